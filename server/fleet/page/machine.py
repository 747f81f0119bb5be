"""One machine: how it is, how long it has, what speaks against it, and what to say about it."""

from server.fleet.page import curves, spectra, svg, words
from server.fleet.page.curves import SPANS
from server.fleet.page.html import Child, Html, make
from server.fleet.page.layout import Visit, address, form, live, page
from server.fleet.page.machines import where
from server.fleet.query import Query, Row, Seen

MOST_WORD = 64


def machine(visit: Visit, query: Query, seen: Seen, span: str, *, every: bool) -> str:
    """Return the page.

    ``span``: how far back, of ``SPANS``; ``every``: show all features, not those alone that matter.
    """
    row = seen.row
    newest = row["t"]
    seconds = SPANS[span][1]
    since = None if seconds is None or newest is None else newest - seconds
    history = query.history(row["id"], since)
    if newest is not None and (not history or history[-1]["t"] < newest):
        history.append(row)  # the newest report is rarely a point of history
    alerts = query.alerts(row["id"])
    above = (row["site"], row["node"], row["asset_class"] or "class not known")
    links: tuple[Child, ...] = (
        make("a", above[0], href=address("/", {"site": row["site"]})),
        " / ",
        make("a", above[1], href=address("/", {"site": row["site"], "node": row["node"]})),
        f" / {above[2]}",
    )
    return page(
        visit,
        row["asset"],
        "",
        make("p", links, class_="crumbs"),
        live("div", "title", make("h1", row["asset"]), svg.state(row["state"]), class_="title"),
        _notes(visit, query, seen),
        make(
            "div",
            _alert(visit, seen, query.said(row["id"])),
            make("div", _left(seen), _why(seen), class_="stacked"),
            class_="cards",
        ),
        curves.over_time(history, alerts, row, span, every=every),
        curves.features(query.features(row["id"], since), alerts, seen, span, every=every),
        spectra.spectra(query.spectra(row["id"]), seen),
        make(
            "div",
            _changes(alerts),
            _lived(query.live(row["site"], row["node"], row["asset_class"])),
            class_="cards",
        ),
    )


def _notes(visit: Visit, query: Query, seen: Seen) -> Html:
    row, notes = seen.row, []
    silent = query.is_silent(row, visit.now)
    if seen.node is not None and not seen.node["online"]:
        gone = words.span(max(0.0, visit.now - seen.node["since_s"]))
        notes.append(
            make(
                "p",
                f"Its device {row['node']} has been gone for {gone}: this is what it said "
                "last. Look at its power and its network.",
                class_="note warn",
            )
        )
    elif silent:
        notes.append(
            make(
                "p",
                "Its device is there, but nothing came of this machine for "
                f"{words.span(visit.now - row['heard_s'])}. Look at its sensors and what sends "
                "their readings.",
                class_="note warn",
            )
        )
    if seen.report is not None:
        notes += [make("p", f"Drift {text}.", class_="note") for text in words.drift(seen.report)]
        if seen.report.marks:
            notes.append(
                make(
                    "p",
                    "Doubtful data: ",
                    [make("span", mark, class_="mark") for mark in seen.report.marks[:8]],
                    class_="note",
                )
            )
        if seen.report.state == "learning":
            notes.append(
                make(
                    "p",
                    "It is still learning what is usual for this machine; until then nothing "
                    "is judged.",
                    class_="note",
                )
            )
    as_of = f"As of {words.moment(row['t'])} by its data. " if row["t"] is not None else ""
    heard = f"{as_of}Heard {words.ago(visit.now - row['heard_s'])}."
    return live("div", "notes", notes, make("p", heard, class_="fine"))


def _left(seen: Seen) -> Html:
    row = seen.row
    left, between = words.left(row["rul_h"], row["rul_low_h"], row["rul_high_h"])
    body: list[Child] = [make("h2", "Time left")]
    if not left:
        body.append(
            make(
                "p",
                "Not known yet: it is learnt from lives that ended. Tell the agent when a "
                "machine failed, and it begins to learn.",
                class_="fine",
            )
        )
    else:
        body.append(make("p", f"about {left}", class_="big"))
        if between:
            coverage = seen.report.rul_coverage if seen.report else None
            share = f" in {coverage:.0%} of cases" if coverage else ""
            body += [
                svg.interval(row["rul_h"], row["rul_low_h"], row["rul_high_h"]),
                make("p", f"between {between}{share}", class_="fine"),
            ]
        elif seen.report and seen.report.rul_error_h is not None:
            error = words.hours(seen.report.rul_error_h)
            body.append(make("p", f"give or take {error} h", class_="fine"))
        if seen.report and seen.report.rul_local_h is not None and row["judged_by"]:
            own = words.hours(seen.report.rul_local_h)
            body.append(make("p", f"This device's own model alone says {own} h.", class_="fine"))
    judge = f"release {row['judged_by']} of the fleet" if row["judged_by"] else "its device's own"
    body.append(
        make("p", f"Judged by {judge}{'' if row['judged_by'] else ' models'}.", class_="fine")
    )
    return live("section", "left", body, class_="card")


def _why(seen: Seen) -> Html:
    body: list[Child] = [make("h2", "What speaks against it")]
    report = seen.report
    if report is None or not report.why:
        body.append(make("p", "Nothing stands out.", class_="fine"))
    else:
        rows = []
        for why in report.why:
            said, detail = words.reason(why, seen.config)
            share = make(
                "svg",
                make("rect", x=0, y=0, width=100, height=8, class_="back"),
                make("rect", x=0, y=0, width=f"{100 * why.share:.0f}", height=8, class_="part"),
                viewBox="0 0 100 8",
                preserveAspectRatio="none",
                aria_hidden="true",
            )
            rows.append(
                make(
                    "li",
                    make("b", said),
                    make("span", share, f"{why.share:.0%} of the score", class_="share"),
                    make("small", detail),
                )
            )
        body.append(make("ul", rows, class_="reasons"))
    if report is not None and report.faults:
        like = ", ".join(f"{one.kind} ({one.share:.0%})" for one in report.faults[:3])
        body.append(make("p", f"It looks like: {like}."))
    return live("section", "why", body, class_="card")


def _alert(visit: Visit, seen: Seen, said: list[Row]) -> Html:
    alert = seen.alert
    body: list[Child] = [make("h2", "Alert")]
    named = alert is not None and not alert.id.endswith("/0")
    if alert is None or not named or (alert.now == "normal" and not alert.text):
        body.append(make("p", "There has been no alert.", class_="fine"))
        return live("section", "alert", body, _told(visit, said), class_="card")
    now = words.ALERTS[alert.now]
    text = alert.text.removesuffix(f" [{alert.id}]").removeprefix(f"{alert.asset}: ")
    body += [
        make("p", make("span", now, class_=f"owed {alert.now}"), f" {text}"),
        make("p", f"{alert.id}, {words.moment(alert.t)}", class_="fine"),
    ]
    if alert.verdict:
        body.append(make("p", f"Looked into: {words.VERDICTS[alert.verdict]}."))
    names = where(seen.row) | {"alert": alert.id}
    who = make(
        "label",
        "Your name",
        make("input", name="by", value=visit.by, maxlength=MOST_WORD, autocomplete="name"),
    )
    if alert.now in {"unacknowledged", "returned", "latched"}:
        body.append(
            form(
                visit,
                "/machine/acknowledge",
                make("div", who, make("button", "Acknowledge", class_="do"), class_="line"),
                **names,
            )
        )
    if not alert.verdict:
        body.append(_verdict(visit, who, names))
    return live("section", "alert", body, _told(visit, said), class_="card")


def _verdict(visit: Visit, who: Html, names: dict[str, str]) -> Html:
    buttons = [
        make("button", text, name="verdict", value=value, class_="verdict")
        for value, text in (
            ("confirmed", "There was a fault"),
            ("false_alarm", "False alarm"),
            ("not_found", "Nothing found"),
        )
    ]
    return make(
        "details",
        make("summary", "You have looked into it? Say what it was"),
        form(
            visit,
            "/machine/verdict",
            make(
                "div",
                who,
                make(
                    "label",
                    "Which fault, in a word",
                    make("input", name="fault", maxlength=MOST_WORD, placeholder="bearing"),
                ),
                class_="line",
            ),
            make("label", "Note", make("textarea", name="note", rows=2, maxlength=1000)),
            make("div", buttons, class_="line"),
            **names,
        ),
        make(
            "p",
            "The device learns from it: a confirmed fault and a false alarm both make the next "
            "alert better.",
            class_="fine",
        ),
    )


def _told(visit: Visit, said: list[Row]) -> Html | None:
    if not said:
        return None
    return make(
        "ul",
        [
            make(
                "li",
                f"{one['by'] or 'somebody'}: {one['what']}",
                make(
                    "small",
                    f"{words.ago(visit.now - one['at_s'])}, ",
                    "the device has taken it"
                    if one["answered_s"] is not None
                    else "not answered by the device yet",
                ),
            )
            for one in said[:5]
        ],
        class_="told list",
    )


def _changes(alerts: list[Row]) -> Html:
    body: Child = make("p", "None yet.", class_="fine")
    if alerts:
        body = make(
            "ul",
            [
                make(
                    "li",
                    make("time", words.moment(one["t"])),
                    make("b", words.CHANGES.get(one["state"], one["state"])),
                    f" {one['text'].partition(': ')[2].removesuffix(' [' + one['alert'] + ']')}",
                    make("small", words.VERDICTS[one["verdict"]]) if one["verdict"] else None,
                )
                for one in alerts[:20]
            ],
            class_="list",
        )
    return live("section", "changes", make("h2", "Alerts so far"), body, class_="card")


def _lived(lives: list[Row]) -> Html:
    body: Child = make("p", "Its device has not said yet.", class_="fine")
    if lives:
        body = make(
            "ul",
            [
                make(
                    "li",
                    make("time", f"since {words.moment(one['since_s'])}"),
                    f"release {one['version']}" if one["version"] else "the device's own models",
                )
                for one in lives
            ],
            class_="list",
        )
    return live("section", "lived", make("h2", "What judged it when"), body, class_="card")

"""The federation: what it does now, its versions before and after, who took part in which round."""

from typing import Any

from server.fleet.federation import Cohort, Federation
from server.fleet.page import versions, words
from server.fleet.page.drift import drift
from server.fleet.page.html import Child, Html, make
from server.fleet.page.layout import Visit, form, live, page
from server.fleet.query import Drifting
from server.status import Status

EVENTS = 30
_SHOWN = frozenset({"phase", "release", "restored", "wave"})
_PHASES = {
    "waiting": "waiting for devices",
    "statistics": "adding up what devices know of healthy machines",
    "shape": "agreeing on what to look at",
    "gradients": "learning from each other's errors",
    "fit": "training",
    "evaluate": "measuring the new version on the devices",
    "deploy": "handing the new version out",
    "serving": "at rest; the newest version is handed out",
    "ended": "ended",
    "failed": "failed",
    "stopped": "stopped",
}


def rounds(visit: Visit, federation: Federation, drifting: list[Drifting]) -> str:
    """Return the page; ``drifting``: what drifts, class by class."""
    status, cohorts = federation.status(), federation.cohorts()
    if status is None and not cohorts:
        body: Child = make(
            "div",
            make("h2", "What to do"),
            make(
                "p",
                "No training has run with this server's state folder. Start the federation with ",
                make("code", "runout-server run --config FILE"),
                ", and beside each agent ",
                make("code", "runout-agent node --config FILE"),
                ". Without one, each device goes on with its own models.",
            ),
            class_="empty card",
        )
        return page(
            visit,
            "Federation",
            "/federation",
            make("h1", "Federation"),
            live("div", "now", body),
            drift(drifting),
        )
    return page(
        visit,
        "Federation",
        "/federation",
        make("h1", "Federation"),
        _now(visit, status) if status else None,
        _ask(visit, federation),
        drift(drifting),
        [_cohort(visit, cohort, number) for number, cohort in enumerate(cohorts)],
        _traffic(status) if status else None,
    )


def _now(visit: Visit, status: Status) -> Html:
    doing = _PHASES.get(status.phase, status.phase)
    if status.phase == "fit" and status.rounds:
        doing = f"{doing}, round {status.round} of {status.rounds}"
    asked = set(status.asked)
    answered, accepted = asked & set(status.answered), asked & set(status.accepted)
    facts = [
        f"{words.count(status.online, 'device')} there",
        f"{len(answered)} of {len(asked)} answered" if asked else None,
        f"{len(accepted)} used" if accepted else None,
    ]
    seconds = sum(status.seconds.values())
    if seconds:
        facts.append(f"the last training took {words.span(seconds)}")
    failed = [
        make("li", make("b", node), f": {reason}") for node, reason in sorted(status.failed.items())
    ]
    kind = {"failed": "bad", "waiting": "warn", "serving": "good"}.get(status.phase, "")
    return live(
        "section",
        "now",
        make("h2", f"Now: {doing}"),
        make("p", " · ".join(filter(None, facts))),
        make("p", status.error) if status.error else None,
        make("ul", failed, class_="list") if failed else None,
        make("small", f"said {words.ago(max(0.0, visit.now - status.updated_s))}"),
        class_=f"overall {kind}",
    )


def _ask(visit: Visit, federation: Federation) -> Html:
    if federation.asked:
        return live(
            "p",
            "ask",
            "A training is asked for: it begins when enough devices are there.",
            class_="note",
        )
    return live("div", "ask", form(visit, "/federation/round", make("button", "Train now")))


def _cohort(visit: Visit, cohort: Cohort, number: int) -> Html:
    parts: list[Child] = [make("h2", f"Class {cohort.name}")]
    if not cohort.versions:
        parts.append(
            make(
                "p",
                "No version yet: devices must first know healthy machines, and some lives "
                "that ended.",
                class_="fine",
            )
        )
    else:
        parts += [
            versions.bars(cohort),
            versions.back(visit, cohort),
            versions.table(visit, cohort),
            versions.devices(cohort),
        ]
    parts.append(_events(cohort))
    return live("section", f"cohort-{number}", parts)


def _events(cohort: Cohort) -> Html:
    rows = [_event(event) for event in cohort.events if event.get("event") in _SHOWN]
    if not rows:
        return make("p", "No round yet.", class_="fine")
    heads = ("When", "What", "Asked", "Used", "Took", "Not used, and why")
    return make(
        "details",
        make(
            "summary",
            f"Rounds: {cohort.rounds:,} so far, {sum(cohort.rejected.values()):,} answers not used",
        ),
        make(
            "table",
            make("thead", make("tr", [make("th", head, scope="col") for head in heads])),
            make("tbody", rows[:EVENTS]),
            class_="rounds",
        ),
        open=True,
    )


def _event(event: dict[str, Any]) -> Html:
    at = words.moment(float(event.get("t", 0.0)))
    if event["event"] == "release":
        return _told_of(at, event, " registered")
    if event["event"] == "restored":
        again = event.get("restores")
        what = f" restores version {again}" if again else " restores each device's own models"
        what += f", asked for by {event['by']}" if event.get("by") else ""
        return _told_of(at, event, what)
    if event["event"] == "wave":
        devices, why = event.get("devices", []), event.get("why")
        to = f": {', '.join(devices[:6])}{' and more' if len(devices) > 6 else ''}"
        what = f", wave {event.get('wave')} {event.get('state')}{to if devices else ''}"
        return _told_of(at, event, f"{what}: {why}" if why else what)
    asked, used = event.get("asked", []), event.get("accepted", [])
    failed = event.get("failed", {})
    reasons = [make("li", make("b", node), f": {why}") for node, why in sorted(failed.items())]
    missing = sorted(set(asked) - set(used) - set(failed))
    if missing:
        reasons.append(make("li", make("b", ", ".join(missing[:6])), ": did not answer in time"))
    return make(
        "tr",
        make("td", at, class_="when"),
        make("td", str(event.get("phase", "")), class_="what"),
        make("td", str(len(asked)), class_="number asked"),
        make("td", str(len(used)), make("small", ", ".join(used[:6])), class_="number used"),
        make("td", words.span(float(event.get("seconds", 0.0))), class_="number took"),
        make("td", make("ul", reasons) if reasons else "-", class_="failed"),
    )


def _told_of(at: Child, event: dict[str, Any], what: str) -> Html:
    version = make("b", f"version {event.get('version')}")
    return make(
        "tr", make("td", at, class_="when"), make("td", version, what, class_="what", colspan=5)
    )


def _traffic(status: Status) -> Html:
    delivered = status.released.delivered if status.released else {}
    names = sorted({*status.bytes_up, *status.bytes_down, *delivered})[:200]
    if not names:
        return live("section", "traffic")
    heads = ("Device", "Sent", "Received", "Newest version")
    rows = [
        make(
            "tr",
            make("th", name, scope="row"),
            make("td", _bytes(status.bytes_up.get(name, 0)), class_="number sent"),
            make("td", _bytes(status.bytes_down.get(name, 0)), class_="number received"),
            make("td", delivered.get(name, "-"), class_="newest"),
        )
        for name in names
    ]
    return live(
        "section",
        "traffic",
        make("h2", "Devices in this run"),
        make(
            "table",
            make("thead", make("tr", [make("th", head, scope="col") for head in heads])),
            make("tbody", rows),
            class_="traffic",
        ),
    )


def _bytes(number: int) -> str:
    if number < 1_000_000:
        return f"{number / 1000:.1f} kB"
    return f"{number / 1e6:.1f} MB"

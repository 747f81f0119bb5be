"""The versions of a class: how good each is, where, and how an earlier one is handed out again."""

from typing import Any, TypeAlias

from contract.release import Manifest
from server.fleet.federation import Cohort, Version
from server.fleet.page import words
from server.fleet.page.html import Child, Html, make
from server.fleet.page.layout import Visit, form

VERSIONS = 20
DEVICES = 50
"""Of a release, those that it serves worst."""
Errors: TypeAlias = "tuple[float | None, float | None, float | None, float | None]"


def _errors(manifest: Manifest) -> Errors:
    """Return the error of a version, of what judged before, of devices alone, of the worst."""
    metrics, judging = manifest.metrics, manifest.rul_model
    names = f"rmse/{judging}", "rmse/live", "rmse/local", f"rmse_worst/{judging}"
    after, before, alone, worst = (metrics.get(name) for name in names)
    return after, before, alone, worst


def bars(cohort: Cohort) -> Html | None:
    """Return the error of each version beside what devices reach alone; None: too few are known."""
    measured = [
        (v, _errors(v.manifest)) for v in reversed(cohort.versions) if v.manifest is not None
    ]
    told = [(v, e) for v, e in measured if e[0] is not None]
    return _bars(told) if len(told) > 1 else None


def _bars(measured: list[tuple[Version, Errors]]) -> Html:
    """Return the error of each version beside what devices reach alone."""
    told = [(v, e) for v, e in measured if e[0] is not None][-VERSIONS:]
    most = max(value for _, e in told for value in (e[0], e[2]) if value is not None) or 1.0
    width = 560 / len(told)
    parts: list[Html] = []
    for at, (version, (after, _, alone, _)) in enumerate(told):
        x = 30 + at * width
        for value, name, left in ((alone, "alone", 0.08), (after, "after", 0.48)):
            if value is None:
                continue
            height = 110 * value / most
            parts.append(
                make(
                    "rect",
                    make("title", f"version {version.number}: {words.hours(value)} h"),
                    x=f"{x + left * width:.1f}",
                    y=f"{120 - height:.1f}",
                    width=f"{min(0.38 * width, 40):.1f}",
                    height=f"{height:.1f}",
                    class_=name,
                )
            )
        parts.append(
            make(
                "text",
                str(version.number),
                x=f"{x + 0.48 * width:.1f}",
                y=136,
                text_anchor="middle",
            )
        )
    parts.append(make("line", x1=26, y1=120, x2=594, y2=120, class_="axis"))
    return make(
        "figure",
        make(
            "figcaption",
            make("b", "Error of the hours left, by version: "),
            make("span", "each device alone", class_="key alone"),
            " ",
            make("span", "with the fleet", class_="key after"),
        ),
        make(
            "svg",
            parts,
            viewBox="0 0 600 142",
            class_="chart bars",
            role="img",
            aria_label="Error by version",
        ),
        class_="card",
    )


def table(visit: Visit, cohort: Cohort) -> Html:
    """Return the versions, the newest first, each with what it takes to hand it out again."""
    heads = (
        "Version",
        "Made",
        "From",
        "Error before",
        "Error after",
        "Worst device",
        "Devices alone",
    )
    return make(
        "table",
        make("thead", make("tr", [make("th", head, scope="col") for head in heads])),
        make("tbody", [_version(visit, cohort.name, v) for v in cohort.versions[:VERSIONS]]),
        class_="versions",
    )


def _version(visit: Visit, name: str, version: Version) -> Html:
    mark = make("span", "handed out", class_="mark good") if version.handed_out else None
    way = make("small", version.way) if version.way else None
    again = _again(visit, name, version) if visit.asks and not version.handed_out else None
    head = make("th", str(version.number), " ", mark, way, again, scope="row")
    manifest = version.manifest
    if manifest is None:
        return make("tr", head, make("td", version.problem, colspan=6))
    after, before, alone, worst = _errors(manifest)

    def told(value: float | None) -> str:
        return "-" if value is None else f"{words.hours(value)} h"

    better = ""
    if after is not None and before is not None and before > 0:
        change = after / before - 1
        better = f"{abs(change):.0%} {'less' if change < 0 else 'more'}" if change else "the same"
    names = ", ".join(manifest.contributors[:6])
    more = len(manifest.contributors) - 6
    return make(
        "tr",
        head,
        make("td", words.moment(manifest.created_ns / 1e9), class_="made"),
        make(
            "td",
            words.count(len(manifest.contributors), "device"),
            make("small", f"{names}{f' and {more} more' if more > 0 else ''}"),
            class_="from",
        ),
        make("td", told(before), class_="number before"),
        make(
            "td",
            make("b", told(after)),
            make("small", better) if better else None,
            class_="number after",
        ),
        make("td", told(worst), class_="number worst"),
        make("td", told(alone), class_="number alone"),
    )


def back(visit: Visit, cohort: Cohort) -> Html | None:
    """Return the form that goes back to what judged before; None: there is nothing, or it may not.

    Who may see the page without a password may not change what judges the fleet.
    """
    if cohort.before is None:
        return None
    if not visit.asks:
        return make(
            "p",
            "Versions are handed out again on this page only where it asks for a password: give ",
            make("code", "fleet.password_file"),
            ", or say ",
            make("code", "runout-server models rollback"),
            ".",
            class_="fine",
        )
    to = f"version {cohort.before}" if cohort.before else "each device's own models"
    what, number = f"Roll back to {to}", str(cohort.before)
    return _ask(visit, "/federation/rollback", "Roll back", what, cohort.name, version=number)


def _again(visit: Visit, name: str, version: Version) -> Html | None:
    if version.manifest is None:
        return None
    what = f"Hand out version {version.number}"
    number = str(version.number)
    return _ask(visit, "/federation/promote", "hand out again", what, name, version=number)


def _ask(visit: Visit, action: str, summary: str, button: str, name: str, **fields: str) -> Html:
    """Return a form that asks once more before all devices get something."""
    who = make(
        "label",
        "Your name",
        make("input", name="by", value=visit.by, maxlength=64, autocomplete="name"),
    )
    return make(
        "details",
        make("summary", summary),
        make("p", "All devices of the class get it, and take it without a trial.", class_="fine"),
        form(
            visit,
            action,
            make("div", who, make("button", button, class_="do"), class_="line"),
            asset_class=name,
            **fields,
        ),
        class_="change",
    )


def devices(cohort: Cohort) -> Html | None:
    """Return the error of the newest release on each device, before and after, the worst first."""
    measured = (e for e in cohort.events if e.get("event") == "release" and e.get("devices"))
    event = next(measured, None)
    if event is None:
        return None
    heads = ("Device", "Error before", "Error after", "Alone")
    found: dict[str, Any] = event["devices"]
    rows = [_device(node, errors) for node, errors in list(found.items())[:DEVICES]]
    worse = sum(
        1 for before, after, _ in found.values() if before and after is not None and after > before
    )
    text = f"Version {event.get('version')} on {words.count(len(found), 'device')}"
    text += f": worse than before on {worse}" if worse else ": worse than before on none"
    return make(
        "details",
        make("summary", text),
        make(
            "table",
            make("thead", make("tr", [make("th", head, scope="col") for head in heads])),
            make("tbody", rows),
            class_="measured",
        ),
    )


def _device(node: str, errors: list[float | None]) -> Html:
    before, after, alone = errors

    def told(value: float | None) -> str:
        return "-" if value is None else f"{words.hours(value)} h"

    worse = before is not None and after is not None and after > before
    note: Child = make("span", "worse", class_="mark") if worse else None
    return make(
        "tr",
        make("th", node, scope="row"),
        make("td", told(before), class_="number before"),
        make("td", make("b", told(after)), " ", note, class_="number after"),
        make("td", told(alone), class_="number alone"),
    )

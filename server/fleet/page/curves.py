"""A machine over time: health, score, hours left, and the features that it is judged by."""

from server.fleet.page import svg, words
from server.fleet.page.html import Html, make
from server.fleet.page.layout import address, live
from server.fleet.page.machines import where
from server.fleet.query import Row, Seen

SPANS = {
    "day": ("a day", 86_400.0),
    "week": ("a week", 7 * 86_400.0),
    "month": ("a month", 30 * 86_400.0),
    "all": ("all", None),
}
SHOWN = 6
"""Features, unless all are asked for."""
POINTS = 160
"""Of a feature's curve."""


def over_time(history: list[Row], alerts: list[Row], row: Row, span: str, *, every: bool) -> Html:
    """Return the curves of health."""
    spans = [
        make(
            "a",
            text,
            href=address("/machine", _names(row, key, every=every)) + "#over-time",
            aria_current="true" if key == span else None,
        )
        for key, (text, _) in SPANS.items()
    ]
    marks = _marks(alerts)
    ends = (history[0]["t"], history[-1]["t"]) if history else None

    def curve(name: str, factor: float = 1.0) -> list[tuple[float, float]]:
        return [(p["t"], factor * p[name]) for p in history if p[name] is not None]

    band = [
        (p["t"], p["rul_low_h"], p["rul_high_h"])
        for p in history
        if p["rul_low_h"] is not None and p["rul_high_h"] is not None
    ]
    score = curve("score")
    top = max([2.0, *(value for _, value in score)])
    plots = [
        (
            "Health",
            "100 % is as it began, 0 % failed",
            svg.chart(
                curve("health", 100.0),
                "Health over time, in percent",
                low=0.0,
                high=100.0,
                marks=marks,
                span=ends,
                unit=" %",
            ),
        ),
        (
            "Score",
            "the dashed line is the limit of healthy",
            svg.chart(
                score,
                "Score over time; 1 is the limit",
                low=0.0,
                high=top,
                limit=1.0,
                marks=marks,
                span=ends,
            ),
        ),
        (
            "Hours left",
            "the band is where the truth should lie",
            svg.chart(
                curve("rul_h"),
                "Hours left over time",
                low=0.0,
                band=band,
                marks=marks,
                span=ends,
                unit=" h",
            ),
        ),
    ]
    return live(
        "section",
        "curves",
        make(
            "div",
            make("h2", "Over time", id="over-time"),
            make("nav", spans, class_="choice", aria_label="How far back"),
            class_="title",
        ),
        make(
            "div",
            [
                make(
                    "figure", make("figcaption", make("b", name), f" {what}"), drawn, class_="card"
                )
                for name, what, drawn in plots
            ],
            class_="plots",
        ),
        make("p", "Times are in UTC. Thin upright lines: an alert changed.", class_="fine")
        if marks
        else None,
    )


def features(
    found: dict[str, list[svg.Point]], alerts: list[Row], seen: Seen, span: str, *, every: bool
) -> Html:
    """Return the features over time, those first that speak against the machine."""
    drawn = {name: curve for name, curve in found.items() if curve}
    report = seen.report
    against = [f"{why.channel} {why.feature}" for why in report.why] if report else []
    order = [*(name for name in against if name in drawn), *(n for n in drawn if n not in against)]
    shown = order if every else order[:SHOWN]
    marks = _marks(alerts)
    plots = []
    for name in shown:
        title, unit = words.feature(name, seen.config)
        told = f" in {unit}" if unit else ""
        against_it = " speaks against it" if name in against else ""
        plots.append(
            make(
                "figure",
                make("figcaption", make("b", title), told, against_it),
                svg.chart(drawn[name], f"{title} over time", marks=marks, most=POINTS),
                class_="card against" if against_it else "card",
            )
        )
    to = address("/machine", _names(seen.row, span, every=not every)) + "#features"
    more = f"all {len(order)}" if not every else "those alone that matter most"
    body = make("div", plots, class_="plots") if plots else _no_features()
    return live(
        "section",
        "feature-curves",
        make(
            "div",
            make("h2", "Features", id="features"),
            make("nav", make("a", more, href=to), class_="choice", aria_label="Which features")
            if len(order) > SHOWN
            else None,
            class_="title",
        ),
        body,
    )


def _no_features() -> Html:
    return make(
        "p",
        "None has come in this time. Its device sends some every quarter of an hour of its data; "
        "an older agent does not, nor one with ",
        make("code", "report.features_every_s = 0"),
        ".",
        class_="fine",
    )


def _names(row: Row, span: str, *, every: bool) -> dict[str, str]:
    return where(row) | {"span": span} | ({"features": "all"} if every else {})


def _marks(alerts: list[Row]) -> list[tuple[float, str]]:
    return [
        (
            one["t"],
            f"alert {words.CHANGES.get(one['state'], one['state'])}, {words.moment(one['t'])}",
        )
        for one in alerts
        if one["state"] in {"raised", "escalated", "returned", "latched"}
    ]

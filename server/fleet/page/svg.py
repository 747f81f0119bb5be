"""Drawings: a machine's state as a shape, a stacked bar, an interval, curves over time."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from server.fleet.page.html import Html, make
from server.fleet.page.words import DAY_S, STATES, hours

SHAPES = {
    "healthy": "M3 8.5 6.5 12 13 4.5",
    "degraded": "M8 2 15 14H1Z",
    "failing": "M5 1h6l4 4v6l-4 4H5l-4-4V5Z",
    "learning": "M8 1.5a6.5 6.5 0 1 0 .01 0Z",
    "stale": "M2 8H14",
    "": "M2 8H14",
}
"""One each: colour alone tells not everybody."""
OPEN = frozenset({"healthy", "learning", "stale", ""})
"""Shapes that are drawn as a line."""
POINTS = 400
"""Of a curve; of more, each stretch shows its lowest and its highest."""

Point = tuple[float, float]


def state(name: str) -> Html:
    """Return a state as shape and word."""
    path = make("path", d=SHAPES[name], class_="line" if name in OPEN else "full")
    shape = make("svg", path, viewBox="0 0 16 16", aria_hidden="true")
    return make("span", shape, STATES[name], class_=f"state {name or 'none'}")


def stacked(by_state: dict[str, int], label: str) -> Html:
    """Return machines by state as one bar, the worst at the left."""
    total = sum(by_state.values())
    parts, x = [], 0.0
    for name, number in by_state.items():
        width = 100.0 * number / total if total else 0.0
        if width:
            # One of ten thousand is to be seen, too.
            parts.append(
                make(
                    "rect",
                    make("title", f"{number:,} {STATES[name]}"),
                    x=f"{x:.3f}",
                    y=0,
                    width=f"{max(width, 0.6):.3f}",
                    height=10,
                    class_=name,
                )
            )
        x += width
    return make(
        "svg",
        make("rect", x=0, y=0, width=100, height=10, class_="back"),
        parts,
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="stack",
        role="img",
        aria_label=label,
    )


def bar(health: float | None, name: str) -> Html:
    """Return a health index as a bar with its number."""
    if health is None:
        return make("span", "not known yet", class_="fine")
    width = 100.0 * min(max(health, 0.0), 1.0)
    drawn = make(
        "svg",
        make("rect", x=0, y=0, width=100, height=12, class_="back"),
        make("rect", x=0, y=0, width=f"{width:.1f}", height=12, class_=f"fill {name}"),
        viewBox="0 0 100 12",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    return make("span", drawn, make("span", f"{health:.0%}"), class_="bar")


def interval(rul_h: float, low_h: float, high_h: float) -> Html:
    """Return hours left as a point in its interval, from nothing on."""
    most = max(high_h, rul_h, 1e-9) * 1.05
    low, high, at = (300 * value / most for value in (low_h, high_h, rul_h))
    return make(
        "svg",
        make("line", x1=0, y1=14, x2=300, y2=14, class_="axis"),
        make(
            "rect", x=f"{low:.1f}", y=8, width=f"{max(high - low, 2):.1f}", height=12, class_="band"
        ),
        make("circle", cx=f"{at:.1f}", cy=14, r=6, class_="dot"),
        make("text", "0", x=0, y=34),
        make("text", f"{hours(most / 1.05)} h", x=300, y=34, text_anchor="end"),
        viewBox="-6 0 312 38",
        class_="interval",
        role="img",
        aria_label=f"{hours(rul_h)} hours, between {hours(low_h)} and {hours(high_h)}",
    )


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Return at most about so many points: of each stretch the lowest and the highest.

    >>> len(thinned([(float(i), 0.0) for i in range(10_000)], 400)) <= 400
    True
    >>> (5.0, 9.0) in thinned([(float(i), 9.0 if i == 5 else 0.0) for i in range(10_000)])
    True
    """
    if len(points) <= most:
        return list(points)
    size = -(-2 * len(points) // most)
    kept = []
    for at in range(0, len(points), size):
        stretch = points[at : at + size]
        ends = min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])
        kept += sorted(set(ends))
    return kept


def chart(
    curve: Sequence[Point],
    title: str,
    *,
    low: float | None = None,
    high: float | None = None,
    band: Sequence[tuple[float, float, float]] = (),
    limit: float | None = None,
    marks: Sequence[tuple[float, str]] = (),
    span: tuple[float, float] | None = None,
    unit: str = "",
    most: int = POINTS,
) -> Html:
    """Return a curve over time.

    Args:
        curve: time and value, in order.
        title: what it shows, in words.
        low: of the axis; None: as the curve is.
        high: of the axis.
        band: time, lowest and highest.
        limit: a line across.
        marks: times that are marked, and what happened.
        span: of the axis of time; None: as the curve is.
        unit: behind the numbers of the axis.
        most: points of the curve; of more, each stretch shows its lowest and its highest.
    """
    if not curve:
        return make("p", "Nothing is known of it in this time.", class_="fine")
    values = [value for _, value in curve] + [v for _, a, b in band for v in (a, b)]
    values += [] if limit is None else [limit]
    bottom = min(values) if low is None else low
    top = max(values) if high is None else high
    if top <= bottom:
        bottom, top = bottom - 0.5, top + 0.5
    begin, end = span or (curve[0][0], curve[-1][0])
    end = max(end, begin + 1.0)

    def x(t: float) -> float:
        return 44 + 548 * (t - begin) / (end - begin)

    def y(value: float) -> float:
        return 150 - 138 * (min(max(value, bottom), top) - bottom) / (top - bottom)

    parts: list[Html] = []
    for at in (bottom, (bottom + top) / 2, top):
        parts.append(
            make("line", x1=44, y1=f"{y(at):.1f}", x2=592, y2=f"{y(at):.1f}", class_="axis")
        )
        parts.append(
            make(
                "text",
                f"{short(at, top - bottom)}{unit}",
                x=40,
                y=f"{y(at) + 4:.1f}",
                text_anchor="end",
            )
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        t = begin + share * (end - begin)
        parts.append(
            make("text", _clock(t, end - begin), x=f"{x(t):.1f}", y=168, text_anchor=anchor)
        )
    if band:
        lows, highs = thinned([(t, a) for t, a, _ in band]), thinned([(t, b) for t, _, b in band])
        outline = [*highs, *reversed(lows)]
        parts.append(make("polygon", points=_path((x(t), y(v)) for t, v in outline), class_="band"))
    if limit is not None:
        level = f"{y(limit):.1f}"
        parts.append(make("line", x1=44, y1=level, x2=592, y2=level, class_="limit"))
    for t, what in marks:
        if begin <= t <= end:
            when = f"{x(t):.1f}"
            parts.append(
                make("line", make("title", what), x1=when, y1=8, x2=when, y2=150, class_="mark")
            )
    if len(curve) == 1:
        parts.append(
            make(
                "circle", cx=f"{x(curve[0][0]):.1f}", cy=f"{y(curve[0][1]):.1f}", r=3, class_="dot"
            )
        )
    parts += [
        make("polyline", points=_path((x(t), y(v)) for t, v in stretch), class_="curve")
        for stretch in _unbroken(thinned(curve, most))
    ]
    return make("svg", parts, viewBox="0 0 600 174", class_="chart", role="img", aria_label=title)


def _unbroken(points: list[Point]) -> list[list[Point]]:
    """Return stretches without a hole: where nothing was heard, nothing is drawn."""
    if len(points) < 3:
        return [points]
    gaps = sorted(b[0] - a[0] for a, b in pairwise(points))
    most = 8 * gaps[len(gaps) // 2]
    found = [[points[0]]]
    for a, b in pairwise(points):
        if b[0] - a[0] > most:
            found.append([])
        found[-1].append(b)
    return found


def _path(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def short(value: float, range_: float = 10.0) -> str:
    """Return a number for an axis, by how much the axis spans.

    >>> short(12.0), short(0.5), short(0.0213, 0.01), short(1013.2, 0.5), short(1e6, 1e5)
    ('12', '0.5', '0.021', '1013.2', '1000000')
    """
    digits = 0 if range_ >= 20 else 1 if range_ >= 1 else 2 if range_ >= 0.1 else 3
    if range_ < 1e-3 and value:
        return f"{value:.2g}"
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _clock(t: float, span: float) -> str:
    when = datetime.fromtimestamp(t, UTC)
    if span > 60 * DAY_S:
        return f"{when.day} {when:%b %Y}"
    if span > 2 * DAY_S:
        return f"{when.day} {when:%b}"
    return f"{when.day} {when:%b %H:%M}" if span > 3600 else f"{when:%H:%M:%S}"

"""The spectra of a machine's newest bursts, with the lines marked where faults would show."""

import math
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from contract.picture import Lines, Spectrum
from server.fleet.page import svg, words
from server.fleet.page.html import Child, Html, make
from server.fleet.page.layout import live
from server.fleet.query import Seen

SLIP = 0.02
"""How far a bearing's line may lie from where its geometry puts it."""
STANDS_OUT = 5.0
"""Times the median of the envelope; noise alone shows 1 to 2, and now and then 3."""
WIDE, LEFT, TOP, HIGH, ROW = 600, 48, 6, 150, 14


class Kind(NamedTuple):
    """A kind of lines.

    Attributes:
        short: as engineers write it.
        what: in words.
        harmonics: that are marked.
        sides: lines of the shaft's distance on either side of each are marked, too.
        slips: a line lies only about there.
    """

    short: str
    what: str
    harmonics: tuple[int, ...] = (1, 2, 3)
    sides: bool = False
    slips: bool = True


SHAKEN = {
    "shaft": Kind("shaft", "turns of the shaft: unbalance at 1, misalignment at 2", slips=False),
    "mesh": Kind("mesh", "teeth of the gear", (1, 2), sides=True, slips=False),
}
STRUCK = {
    "bpfo": Kind("BPFO", "outer ring of the bearing"),
    "bpfi": Kind("BPFI", "inner ring of the bearing"),
    "bsf": Kind("BSF", "rolling element of the bearing"),
    "ftf": Kind("FTF", "cage of the bearing", (1, 2)),
}


def spectra(found: list[Spectrum], seen: Seen) -> Html | None:
    """Return the section; None: the machine has no waveforms, and there is nothing to say."""
    waves = _waves(seen)
    if not found and not waves:
        return live("section", "spectra")
    body: list[Child] = [make("h2", "Spectrum of the last burst")]
    if not found:
        body.append(
            make(
                "p",
                f"None has come of {', '.join(waves)} yet. Its device sends one an hour of its "
                "data; an older agent does not, nor one with ",
                make("code", "report.spectrum_every_s = 0"),
                ".",
                class_="fine",
            )
        )
    return live("section", "spectra", body, [_spectrum(one) for one in found])


def _waves(seen: Seen) -> list[str]:
    """Return the waveforms of a machine, as its device says."""
    if seen.config is None:
        return []
    own = seen.row["asset_class"]
    return [w.name for spec in seen.config.classes if spec.name == own for w in spec.waveforms]


def _spectrum(one: Spectrum) -> Html:
    speed = (
        f"the shaft at {one.rpm:,.0f} rpm"
        if one.rpm is not None
        else "the speed was not known, so that no line can be marked"
    )
    when = f"{words.moment(one.t)}, {speed}"
    plots = [
        make(
            "figure",
            make("figcaption", make("b", one.waveform), f" in {one.unit}: {when}"),
            _plot(one.lines, one.at_hz, SHAKEN, f"Spectrum of {one.waveform} in {one.unit}"),
            _told(one.lines, one.at_hz, SHAKEN, f" {one.unit}", judged=False),
            class_="card",
        )
    ]
    if one.envelope is not None:
        plots.append(
            make(
                "figure",
                make(
                    "figcaption",
                    make("b", f"{one.waveform}, envelope"),
                    " over its median: strikes in a bearing",
                ),
                _plot(one.envelope, one.at_hz, STRUCK, f"Envelope spectrum of {one.waveform}"),
                _told(one.envelope, one.at_hz, STRUCK, "", judged=True),
                class_="card",
            )
        )
    return make("div", plots, class_="plots")


def level(lines: Lines, hz: float, *, slips: bool) -> float | None:
    """Return the highest line about a frequency; None: it is beyond the spectrum.

    >>> lines = Lines((98.5, 100.0, 101.5, 104.0), (1.0, 2.0, 7.0, 9.0))
    >>> level(lines, 100.0, slips=True), level(lines, 500.0, slips=True)
    (7.0, None)
    """
    if not lines.hz or not lines.hz[0] <= hz <= lines.hz[-1]:
        return None
    near = min(range(len(lines.hz)), key=lambda i: abs(lines.hz[i] - hz))
    step = lines.hz[1] - lines.hz[0] if len(lines.hz) > 1 else 0.0
    room = max(step * 1.01, SLIP * hz if slips else 0.0)
    found = [v for f, v in zip(lines.hz, lines.values, strict=True) if abs(f - hz) <= room]
    return max([lines.values[near], *found])


def _told(
    lines: Lines, at_hz: dict[str, float], kinds: dict[str, Kind], unit: str, *, judged: bool
) -> Html | None:
    """Return in words what stands at the lines: what the drawing shows, for who cannot see it."""
    rows = []
    for name, kind in kinds.items():
        hz = at_hz.get(name)
        if hz is None:
            continue
        levels = [(n, level(lines, n * hz, slips=kind.slips)) for n in kind.harmonics]
        told = [(n, value) for n, value in levels if value is not None]
        if not told:
            continue
        # Not the mean: one line of three may be another fault's.
        usual = median(value for _, value in told)
        numbers = ", ".join(f"{n} x: {value:.3g}{unit}" for n, value in told)
        out = judged and usual >= STANDS_OUT
        rows.append(
            make(
                "li",
                make("b", f"{kind.short} {hz:,.4g} Hz"),
                " ",
                make("span", "stands out", class_="mark") if out else None,
                make("small", f"{kind.what}; {numbers}"),
            )
        )
    return make("ul", rows, class_="list") if rows else None


def _plot(lines: Lines, at_hz: dict[str, float], kinds: dict[str, Kind], title: str) -> Html:
    """Return a spectrum over a logarithmic axis, a row of marks for each kind of line above it."""
    if len(lines.hz) < 2:
        return make("p", "There is no line in it.", class_="fine")
    low, high = math.log(lines.hz[0]), math.log(lines.hz[-1])
    peak = max(lines.values) * 1.05 or 1.0
    there = {name: kind for name, kind in kinds.items() if name in at_hz}
    above = TOP + ROW * len(there) + 8

    def x(hz: float) -> float:
        return LEFT + (WIDE - LEFT - 8) * (math.log(hz) - low) / (high - low)

    def y(value: float) -> float:
        return above + HIGH - HIGH * value / peak

    parts: list[Html] = []
    for value in (0.0, peak / 2, peak):
        at = f"{y(value):.1f}"
        parts.append(make("line", x1=LEFT, y1=at, x2=WIDE - 8, y2=at, class_="axis"))
        text = svg.short(value, peak)
        parts.append(make("text", text, x=LEFT - 4, y=f"{y(value) + 4:.1f}", text_anchor="end"))
    for hz in _ticks(lines.hz[0], lines.hz[-1]):
        at = f"{x(hz):.1f}"
        parts.append(make("line", x1=at, y1=above, x2=at, y2=above + HIGH, class_="axis"))
        parts.append(make("text", _hz(hz), x=at, y=above + HIGH + 16, text_anchor="middle"))
    for row, (name, kind) in enumerate(there.items()):
        parts += _marks(name, kind, at_hz, row, above, x, (lines.hz[0], lines.hz[-1]))
    points = " ".join(
        f"{x(hz):.1f},{y(value):.1f}" for hz, value in zip(lines.hz, lines.values, strict=True)
    )
    parts.append(make("polyline", points=points, class_="curve"))
    return make(
        "svg",
        parts,
        viewBox=f"0 0 {WIDE} {above + HIGH + 22}",
        class_="chart spectrum",
        role="img",
        aria_label=title,
    )


def _marks(
    name: str,
    kind: Kind,
    at_hz: dict[str, float],
    row: int,
    above: float,
    x: Callable[[float], float],
    ends: tuple[float, float],
) -> list[Html]:
    """Return a row of marks: each a line through the spectrum and its number over it."""
    level_y = TOP + ROW * row + 9
    parts = [make("text", kind.short, x=LEFT - 4, y=level_y + 1, text_anchor="end")]
    for n in kind.harmonics:
        hz = n * at_hz[name]
        if not ends[0] <= hz <= ends[1]:
            continue
        at = f"{x(hz):.1f}"
        what = make("title", f"{n} times {kind.short}: {hz:,.4g} Hz, {kind.what}")
        parts += [
            make("line", what, x1=at, y1=level_y + 2, x2=at, y2=above + HIGH, class_=f"at {name}"),
            make("text", str(n), x=at, y=level_y, text_anchor="middle", class_=f"at {name}"),
        ]
        turns = at_hz.get("shaft", 0.0)
        for side in (hz - turns, hz + turns) if kind.sides and turns else ():
            if ends[0] <= side <= ends[1]:
                beside = f"{x(side):.1f}"
                told = make("title", f"side line of the shaft's turns: {side:,.4g} Hz")
                parts.append(
                    make(
                        "line",
                        told,
                        x1=beside,
                        y1=above,
                        x2=beside,
                        y2=above + HIGH,
                        class_=f"at {name} side",
                    )
                )
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Return round frequencies for an axis.

    >>> _ticks(1.6, 6400.0)
    [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [
        n * 10**decade if decade >= 0 else n / 10**-decade for decade in decades for n in (1, 2, 5)
    ]
    return [hz for hz in found if low <= hz <= high]


def _hz(hz: float) -> str:
    return f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz:g}"

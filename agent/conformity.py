"""How what came conforms to what was declared: a line a channel, its verdict, its mend, a table."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.clean import QUALITY, Quality, Reason
from contract.spec import Channel, Waveform

BEAT = 1.25
"""The spacing may differ from the declared one by this factor, either way."""
DOUBT = 0.05
"""Share of readings that may be uncertain, and one in any case; none may be bad."""

Verdict = Literal["ok", "not ok", "not looked at", "ignored"]


class Line(msgspec.Struct, kw_only=True):
    """What came of one channel, against what was declared of it.

    Attributes:
        asset: which.
        channel: or waveform: of it a burst is a reading, and its samples are its values.
        seen: readings that bear a value.
        spacing_s: median, in the data's time; None: fewer than two came.
        every_s: declared.
        least: finite value.
        most: finite value.
        low: declared.
        high: declared.
        marks: readings by reason, as in docs/quality.md.
        unit: declared.
        given: units that payload or configuration named; empty: the declared one is taken.
        age_s: of the newest reading by its own time.
        verdict: ``not ok`` fails the check; ``ignored``: a channel that the class does not have;
            ``not looked at``: it may come from a source that was not opened.
        mend: why, and what to do.
    """

    asset: str
    channel: str
    seen: int = 0
    spacing_s: float | None = None
    every_s: float | None = None
    least: float | None = None
    most: float | None = None
    low: float | None = None
    high: float | None = None
    marks: dict[str, int] = {}
    unit: str = ""
    given: tuple[str, ...] = ()
    age_s: float | None = None
    verdict: Verdict = "ok"
    mend: str = ""


class Refused(msgspec.Struct):
    """Payloads that could not be used, of one reason and topic.

    Attributes:
        reason: one word.
        topic: of them; empty: of several others.
        count: how many.
        text: the first one's error.
    """

    reason: str
    topic: str
    count: int
    text: str


class Looked(msgspec.Struct):
    """What ``runout-agent check --live`` found.

    Attributes:
        ok: whether the contract holds: exit code 0.
        seconds: that were listened for.
        messages: that came.
        events: life events among them.
        lines: per asset and channel.
        rejected: payloads, most frequent first.
        notes: what else is to be known.
    """

    ok: bool
    seconds: float
    messages: int
    events: int
    lines: list[Line]
    rejected: list[Refused]
    notes: list[str]


def complaint(line: Line, declared: Channel | Waveform, quiet_s: float) -> str:
    """Return what is wrong with a channel that came, and the mend; or nothing."""
    words = []
    for name, count in line.marks.items():
        reason = Reason[name.upper()]
        # A burst has no uncertain quality: whatever the reason, no feature is made of it.
        quality = QUALITY[reason]
        bad = quality == Quality.BAD or isinstance(declared, Waveform)
        if bad or (quality and count > max(1.0, DOUBT * line.seen)):
            words.append(f"{count} {name}: {_MENDS[reason]}")
    every_s, spacing_s = line.every_s, line.spacing_s
    if every_s is not None:
        if spacing_s is not None and not every_s / BEAT <= spacing_s <= every_s * BEAT:
            words.append(f"comes every {spacing_s:.3g} s: mend every_s, or its sender")
        if quiet_s > max(2.5 * every_s, 1.0):
            words.append(f"fell silent {quiet_s:.1f} s before the end")
    return "; ".join(words)


_MENDS = {
    Reason.MISSING: "send it in each message, or at its own times and give the class every_s",
    Reason.INFINITE: "no number; mend the sender",
    Reason.LOW: "mend low or unit, or the sensor",
    Reason.HIGH: "mend high or unit, or the sensor",
    Reason.STEP: "mend step_per_s, or look for a loose contact",
    Reason.FLAT: "stuck? Mend the sensor, or flat_s",
    Reason.CLIPPED: "at the end of its scale: a sensor with a larger one, or mend clip",
    Reason.GAP: "readings are lost: look at the network, or mend every_s",
    Reason.JITTER: "off its beat: let the sender give times, or mend every_s",
    Reason.CLOCK: "time leaps: is the sender's clock set?",
    Reason.LATE: "older than what was there: send it in order, or give the class wait_s",
}


HEAD = (
    "asset",
    "channel",
    "seen",
    "every s",
    "of s",
    "least",
    "most",
    "of",
    "unit",
    "age s",
    "marks",
    "",
)


def as_text(found: Looked) -> str:
    """Return a table, and what was rejected."""
    rows: list[Sequence[str]] = [HEAD]
    for line in found.lines:
        low, high = _number(line.low), _number(line.high)
        given = ",".join(line.given)
        rows.append(
            (
                line.asset,
                line.channel,
                str(line.seen),
                _number(line.spacing_s),
                _number(line.every_s),
                _number(line.least),
                _number(line.most),
                "-" if (low, high) == ("-", "-") else f"{low}..{high}",
                line.unit if given in {"", line.unit} else f"{given} -> {line.unit}",
                _number(line.age_s),
                ", ".join(f"{count} {name}" for name, count in line.marks.items()) or "-",
                line.verdict + (f": {line.mend}" if line.mend else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD) - 1)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in {0, 1, 7, 8, 10} else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    lines += ["", f"{found.messages} messages in {found.seconds:.1f} s, {found.events} life events"]
    for refused in found.rejected:
        topic = refused.topic or "other topics"
        lines.append(
            f"not ok: {refused.count} rejected ({refused.reason}), {topic}: {refused.text}"
        )
    lines += found.notes
    lines.append("ok" if found.ok else "not ok")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

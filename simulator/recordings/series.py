"""What a recording says of one machine, as messages and as truth, whatever file it came from."""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from contract.arrays import Floats
from contract.report import LifeEvent
from simulator.burst import encode
from simulator.merge import merged
from simulator.message import Message, life_event, reading, waveform
from simulator.truth import FELT, LifeTruth, Truth


@dataclass(frozen=True, slots=True, eq=False)
class Burst:
    """A stretch of one waveform.

    Attributes:
        t: of the first sample, seconds since 1970 UTC.
        channel: its name.
        rate_hz: samples a second.
        unit: of the samples.
        samples: ``(n,)``.
    """

    t: float
    channel: str
    rate_hz: float
    unit: str
    samples: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One machine's recording.

    Attributes:
        asset: its name.
        units: of its channels, in the order of ``values``.
        t: ``(n,)`` seconds since 1970 UTC, as recorded: a clock may have been set back.
        values: ``(n, C)``; NaN where nothing was recorded.
        abnormal: from when to when something was wrong, by those who recorded it, in order; None:
            nobody says.
        failed: it ends with a failure.
        bursts: in the order of time.
    """

    asset: str
    units: dict[str, str]
    t: Floats
    values: Floats
    abnormal: tuple[tuple[float, float], ...] | None = None
    failed: bool = False
    bursts: tuple[Burst, ...] = field(default=())

    @property
    def last_t(self) -> float:
        """Return when it ends."""
        return max([*map(float, self.t), *(burst.t for burst in self.bursts[-1:])])

    @property
    def first_t(self) -> float:
        """Return when it begins."""
        return min([*map(float, self.t[:1]), *(burst.t for burst in self.bursts[:1])])

    @property
    def rows(self) -> int:
        """Return how many rows and bursts there are."""
        return len(self.t) + len(self.bursts)


def intervals(t: Floats, label: Floats) -> tuple[tuple[float, float], ...]:
    """Return from when to when a label ``(n,)`` is not 0.

    >>> intervals(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 1, 0]))
    ((2.0, 3.0),)
    """
    on = np.concatenate(([0], (np.nan_to_num(label) != 0).astype(np.int8), [0]))
    begins, ends = np.flatnonzero(np.diff(on) == 1), np.flatnonzero(np.diff(on) == -1) - 1
    return tuple(zip(t[begins].tolist(), t[ends].tolist(), strict=True))


def messages(series: Sequence[Series], nodes: Sequence[str]) -> Iterator[Message]:
    """Yield the messages of all series in the order of their time; dealt to nodes in turn."""
    each = (_messages(one, nodes[at % len(nodes)]) for at, one in enumerate(series))
    return merged(each)


def _messages(series: Series, node: str) -> Iterator[Message]:
    yield from heapq.merge(_rows(series, node), _bursts(series, node), key=lambda m: m.t)
    if series.failed:
        yield life_event(node, series.asset, LifeEvent("failed", series.last_t))


def _rows(series: Series, node: str) -> Iterator[Message]:
    if not len(series.t):
        return
    names = tuple(series.units)
    first = set(np.unique(series.t, return_index=True)[1].tolist())
    # A row whose clock was set back is played behind the one before it, and says what it said.
    played_t: list[float] = np.maximum.accumulate(series.t).tolist()
    for at, (t, row) in enumerate(zip(series.t.tolist(), series.values.tolist(), strict=True)):
        values = dict(zip(names, row, strict=True))
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        if known:
            message = reading(played_t[at], node, series.asset, known, said_t=t, units=series.units)
            # Agents recognise a time that was said before, and count its row once.
            yield message if at in first else replace(message, rows=0)


def _bursts(series: Series, node: str) -> Iterator[Message]:
    for burst in series.bursts:
        # 16 bits over the largest that this stretch holds lose less than a sensor's noise.
        end = float(np.abs(burst.samples).max()) or 1.0
        payload = encode(
            burst.samples, burst.rate_hz, t_ns=round(burst.t * 1e9), unit=burst.unit, scale_end=end
        )
        yield waveform(burst.t, node, series.asset, burst.channel, payload)


def truth(series: Sequence[Series], nodes: Sequence[str], source: str, site: str) -> Truth:
    """Return what is known of the series.

    Where it was recorded when something was wrong, a life ends with each such time: what is told
    of it can be judged, and what is told before it is a false alarm.
    """
    lives = [
        life
        for at, one in enumerate(series)
        for life in _lives(one, nodes[at % len(nodes)], source)
    ]
    return Truth(source, site, None, "recording", FELT, tuple(lives))


def _lives(series: Series, node: str, source: str) -> Iterable[LifeTruth]:
    if series.abnormal is None:
        yield _life(series, node, 0, (series.first_t, series.last_t), None, source)
        return
    start_t = series.first_t
    for number, (begin, end) in enumerate(series.abnormal):
        yield _life(series, node, number, (start_t, end), (begin, end), source)
        after = series.t[series.t > end]
        start_t = float(after[0]) if len(after) else end
    if start_t < series.last_t:
        count = len(series.abnormal)
        yield _life(series, node, count, (start_t, series.last_t), (), source)


def _life(
    series: Series,
    node: str,
    number: int,
    span: tuple[float, float],
    wrong: tuple[float, float] | tuple[()] | None,
    source: str,
) -> LifeTruth:
    """Return one life; ``wrong``: from when to when, () for never, None where nobody says."""
    start_t, end_t = span
    began_t = wrong[0] if wrong else None
    fault = None if wrong is None else source if wrong else ""
    return LifeTruth(
        node=node,
        asset=series.asset,
        life=number,
        phase="recording",
        fault=fault,
        started_t=start_t,
        fault_began_t=began_t,
        felt_t=began_t,
        failure_t=end_t,
        played_until_t=end_t,
        rows=int(((series.t >= start_t) & (series.t <= end_t)).sum()),
        failed=series.failed and wrong is None,
        rul_h=0.0,
        severity=None if wrong is None else float(bool(wrong)),
        channels=(),
    )

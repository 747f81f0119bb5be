"""Judge each value: there, in range, plausible, on time? Marks it; never repairs, never drops.

What each mark means, and when it is given, stands in docs/quality.md.
"""

from enum import IntEnum
from math import isnan

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.spec import Channel, Waveform


class Quality(IntEnum):
    """What may be done with a value; a larger number is worse."""

    GOOD = 0
    UNCERTAIN = 1
    """Judged, but never learnt from."""
    BAD = 2
    """Reaches no model."""


class Reason(IntEnum):
    """Why a value is not good."""

    GOOD = 0
    MISSING = 1
    INFINITE = 2
    LOW = 3
    HIGH = 4
    STEP = 5
    """Changed faster than the quantity can."""
    FLAT = 6
    """Has not changed at all for long."""
    CLIPPED = 7
    """At an end of the sensor's scale: the truth is there or beyond."""
    GAP = 8
    """The first after readings that did not come."""
    JITTER = 9
    """Off its beat."""
    CLOCK = 10
    """The first after a leap of time: a clock that was set, forward or back, or a long silence."""
    LATE = 11
    """Of a time that is over: it changes nothing any more."""
    DUPLICATE = 12
    """Said already, of the same channel and time: it changes nothing."""


QUALITY = np.full(len(Reason), Quality.UNCERTAIN, dtype=np.uint8)
QUALITY[[Reason.GOOD, Reason.DUPLICATE]] = Quality.GOOD
QUALITY[[Reason.MISSING, Reason.INFINITE, Reason.LOW, Reason.HIGH, Reason.STEP]] = Quality.BAD
"""The quality of each reason: ``QUALITY[reasons]``.

Bad is a value that cannot be the quantity's: not a number, out of range, or faster than physics
allows. Uncertain is one that can: a stuck or saturated sensor may stand still by chance or at a
true extreme, and what comes off its beat was measured all the same. A machine that is failing
saturates its sensors and disturbs its network; who dropped those values would be blind when it
counts, and who learnt from them would learn the fault as healthy. What is late was measured, too,
but nothing of it is used: rows go on. A duplicate was good the first time; it is counted, and told
in no report: after a restart the broker sends again what was not acknowledged, and no result may
depend on that.
"""

CONFIRM = 3
"""Readings in a row that agree with each other make a step the new level."""
GAP_STEPS, CLOCK_STEPS, CLOCK_NS = 2.5, 100, 86_400_000_000_000
CLIP_SAMPLES = 3
"""Samples of a burst at the end of the scale that make it bad: one or two may be a peak."""

_LARGEST = np.finfo(np.float64).max
_LARGEST_32 = float(np.finfo(np.float32).max)
_NEVER = -(2**63)
_FOREVER = 2**62
_FEW = 64
"""Rows up to which one reading at a time is faster than whole columns."""


class Ranges:
    """The plausible range of each column of an asset class."""

    def __init__(self, channels: tuple[Channel, ...]) -> None:
        self._low = np.array([-_LARGEST if c.low is None else c.low for c in channels])
        self._high = np.array([_LARGEST if c.high is None else c.high for c in channels])

    def judge(
        self, values: Floats, whole: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8] | None:
        """Return a ``Reason`` per value ``(n, C)``, or None where all are good.

        ``whole``: rows ``(n,)`` in which NaN is a value that is missing; in the others nothing
        was said of that channel, which is no fault. None: all.

        >>> ranges = Ranges((Channel("flow", "m3/h", low=0, high=50),))
        >>> ranges.judge(np.array([[12.0], [np.nan], [-3.0]])).ravel().tolist()
        [0, 1, 3]
        """
        good = (values >= self._low) & (values <= self._high)
        if good.all():
            return None
        missing = np.isnan(values)
        if whole is not None:
            good |= missing & ~whole[:, None]
            if good.all():
                return None
        return np.select(
            [good, missing, np.isinf(values), values < self._low],
            [Reason.GOOD, Reason.MISSING, Reason.INFINITE, Reason.LOW],
            Reason.HIGH,
        ).astype(np.uint8)


class Cleaner:
    """The checks of one asset, with what they remember of it.

    A row's NaN is MISSING where the row is whole: as ``agent.frame`` closes rows, all are. Before
    a grid (``agent.resample``) channels speak at their own rates and a row holds what one message
    said: NaN there says nothing of the channel, and is no fault.

    Checks with a memory see the readings of a channel in the order of its time: one that is not
    later than those before it is held to its range and to the ends of its scale alone, and changes
    nothing; as late or repeated it is counted where rows are made.
    """

    def __init__(self, columns: tuple[Channel, ...]) -> None:
        self._channels = len(columns)
        self._ranges = Ranges(columns)
        self._histories = [(c, _History(channel)) for c, channel in enumerate(columns)]
        self._watched = [(c, history) for c, history in self._histories if history.checks]

    def judge(
        self, t_ns: NDArray[np.int64], values: Floats, whole: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8] | None:
        """Return a ``Reason`` per value ``(n, C)``, or None where all are good.

        Bad goes before uncertain; of several uncertain reasons, CLIPPED, FLAT, CLOCK, GAP, JITTER.

        >>> cleaner = Cleaner((Channel("flow", "m3/h", step_per_s=1.0, every_s=1.0),))
        >>> t_ns = np.array([0, 1, 2, 3, 9]) * 10**9
        >>> flow = np.array([[5.0], [5.5], [9.9], [5.2], [5.2]])
        >>> [Reason(r).name for r in cleaner.judge(t_ns, flow).ravel()]
        ['GOOD', 'GOOD', 'STEP', 'GOOD', 'GAP']
        """
        reasons = self._ranges.judge(values, whole)
        if not self._watched:
            return reasons
        if len(t_ns) > _FEW:
            return self._judge_columns(t_ns, values, reasons)
        times = t_ns.tolist()
        for c, history in self._watched:
            for i, value in enumerate(values[:, c].tolist()):
                reason = history.judge(times[i], value)
                if reason:
                    if reasons is None:
                        reasons = np.zeros(values.shape, dtype=np.uint8)
                    reasons[i, c] = reason
        return reasons

    def _judge_columns(
        self, t_ns: NDArray[np.int64], values: Floats, reasons: NDArray[np.uint8] | None
    ) -> NDArray[np.uint8] | None:
        for c, history in self._watched:
            column = history.judge_many(t_ns, values[:, c])
            if column is not None:
                if reasons is None:
                    reasons = np.zeros(values.shape, dtype=np.uint8)
                reasons[:, c] = np.where(column != Reason.GOOD, column, reasons[:, c])
        return reasons

    def begin_anew(self, t_ns: int) -> None:
        """Let time go on from here, where it was set back to."""
        for _, history in self._histories:
            history.begin_anew(t_ns)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        return {
            "clean/times": np.array([h.times() for _, h in self._histories]).reshape(-1, 5),
            "clean/values": np.array([h.values() for _, h in self._histories]).reshape(-1, 3),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned; checks may have come or gone since."""
        for (_, history), times, values in zip(
            self._histories, arrays["clean/times"], arrays["clean/values"], strict=True
        ):
            history.restore(times.tolist(), values.tolist())


class _History:
    """One channel's checks with a memory, and the ends of its scale.

    A step: a reading is near another if it is within ``step_per_s`` times the time between them.
    What is near the last good reading is good. What is not is a STEP, until the CONFIRM-th reading
    in a row each of which is near the one before it: that one is good again, and the new level.
    """

    def __init__(self, channel: Channel) -> None:
        self._low = -_LARGEST if channel.low is None else channel.low
        self._high = _LARGEST if channel.high is None else channel.high
        self._clip_low = -np.inf if channel.clip_low is None else channel.clip_low
        self._clip_high = np.inf if channel.clip_high is None else channel.clip_high
        self._per_ns = None if channel.step_per_s is None else channel.step_per_s / 1e9
        self._flat_ns = None if channel.flat_s is None else _ns(channel.flat_s)
        self._every = channel.every_s is not None
        every_ns = 0 if channel.every_s is None else _ns(channel.every_s)
        # In whole nanoseconds, so that every path compares alike.
        self._early_ns = (every_ns + 1) // 2
        self._tardy_ns = 3 * every_ns // 2
        self._gap_ns = int(GAP_STEPS * every_ns)
        self._clock_ns = max(self._gap_ns, min(CLOCK_STEPS * every_ns, CLOCK_NS))
        clips = channel.clip_low is not None or channel.clip_high is not None
        self.checks = clips or self._every or self._per_ns is not None or self._flat_ns is not None
        self._said_ns = _NEVER
        self._good, self._good_ns = np.nan, _NEVER
        self._odd, self._odd_ns, self._odd_count = np.nan, _NEVER, 0
        self._flat, self._flat_since = np.nan, _NEVER

    def judge(self, t_ns: int, value: float) -> Reason:
        """Take one reading; its range is judged elsewhere, and stands where GOOD is returned."""
        reason = Reason.GOOD
        if isnan(value):
            return reason
        fresh = t_ns > self._said_ns
        if fresh:
            if self._every and self._said_ns != _NEVER:
                reason = self._judge_spacing(t_ns - self._said_ns)
            self._said_ns = t_ns
        if not self._low <= value <= self._high:
            return Reason.GOOD
        if fresh and self._flat_ns is not None:
            if value != self._flat:
                self._flat, self._flat_since = value, t_ns
            elif t_ns - self._flat_since > self._flat_ns:
                reason = Reason.FLAT
        if value <= self._clip_low or value >= self._clip_high:
            reason = Reason.CLIPPED
        if fresh and self._per_ns is not None and not self._follows(t_ns, value, self._per_ns):
            reason = Reason.STEP
        return reason

    def _judge_spacing(self, spacing_ns: int) -> Reason:
        if spacing_ns > self._clock_ns:
            return Reason.CLOCK
        if spacing_ns > self._gap_ns:
            return Reason.GAP
        if spacing_ns > self._tardy_ns or spacing_ns < self._early_ns:
            return Reason.JITTER
        return Reason.GOOD

    def _follows(self, t_ns: int, value: float, per_ns: float) -> bool:
        """Tell whether a reading follows from those before it; remember it either way."""
        if self._good_ns == _NEVER or abs(value - self._good) <= per_ns * (t_ns - self._good_ns):
            self._odd_count = 0
        else:
            near = abs(value - self._odd) <= per_ns * (t_ns - self._odd_ns)
            self._odd_count = self._odd_count + 1 if self._odd_count and near else 1
            self._odd, self._odd_ns = value, t_ns
            if self._odd_count < CONFIRM:
                return False
            self._odd_count = 0
        self._good, self._good_ns = value, t_ns
        return True

    def judge_many(self, t_ns: NDArray[np.int64], values: Floats) -> NDArray[np.uint8] | None:
        """Take readings ``(n,)``; the same, to the last bit, as one by one. None: all good."""
        reasons = np.zeros(len(values), dtype=np.uint8)
        at = np.flatnonzero(~np.isnan(values))
        t = t_ns[at]
        if not len(at):
            return None
        fresh = np.empty(len(at), dtype=np.bool_)
        fresh[0] = t[0] > self._said_ns
        fresh[1:] = t[1:] > np.maximum(np.maximum.accumulate(t), self._said_ns)[:-1]
        inside = (values >= self._low) & (values <= self._high)
        if not fresh.all():
            at, t = at[fresh], t[fresh]
        if len(at):
            if self._every:
                reasons[at] = self._judge_spacings(t)
            self._said_ns = int(t[-1])
            kept = inside[at]
            if not kept.all():
                at, t = at[kept], t[kept]
        reasons[~inside] = Reason.GOOD
        if len(at) and self._flat_ns is not None:
            reasons[at[self._stand_still(t, values[at], self._flat_ns)]] = Reason.FLAT
        reasons[inside & ((values <= self._clip_low) | (values >= self._clip_high))] = (
            Reason.CLIPPED
        )
        if len(at) and self._per_ns is not None:
            reasons[at[self._steps(t, values[at], self._per_ns)]] = Reason.STEP
        return reasons if reasons.any() else None

    def _judge_spacings(self, t: NDArray[np.int64]) -> NDArray[np.uint8]:
        first = t[0] if self._said_ns == _NEVER else self._said_ns
        spacing = np.diff(t, prepend=first)
        marks = np.zeros(len(t), dtype=np.uint8)
        marks[(spacing > self._tardy_ns) | (spacing < self._early_ns)] = Reason.JITTER
        marks[spacing > self._gap_ns] = Reason.GAP
        marks[spacing > self._clock_ns] = Reason.CLOCK
        if self._said_ns == _NEVER:
            marks[0] = Reason.GOOD
        return marks

    def _stand_still(self, t: NDArray[np.int64], values: Floats, flat_ns: int) -> NDArray[np.intp]:
        """Return where a value has stood for longer than ``flat_ns``."""
        changed = np.empty(len(t), dtype=np.bool_)
        changed[0] = values[0] != self._flat
        np.not_equal(values[1:], values[:-1], out=changed[1:])
        # Before the first change the run goes on that began in an earlier batch: -1.
        begin = np.maximum.accumulate(np.where(changed, np.arange(len(t)), -1))
        since = np.where(begin < 0, self._flat_since, t[begin])
        self._flat, self._flat_since = float(values[-1]), int(since[-1])
        return np.flatnonzero(t - since > flat_ns)

    def _steps(self, t: NDArray[np.int64], values: Floats, per_ns: float) -> list[int]:
        """Return where readings are steps; one by one only from a step until it is over."""
        with np.errstate(over="ignore"):  # the difference of two plausible values may be infinite
            near = np.abs(np.diff(values)) <= per_ns * np.diff(t)
        # Reading i follows i - 1; the first is judged by what is remembered.
        doubtful = (np.flatnonzero(~near) + 1).tolist()
        steps: list[int] = []
        i = 0
        for start in [0, *doubtful]:
            if start < i:
                continue
            if start > i:
                self._good, self._good_ns = float(values[start - 1]), int(t[start - 1])
            i = start
            while i < len(t):
                followed = self._follows(int(t[i]), float(values[i]), per_ns)
                i += 1
                if followed:
                    break
                steps.append(i - 1)
        if i < len(t):
            self._good, self._good_ns = float(values[-1]), int(t[-1])
        return steps

    def begin_anew(self, t_ns: int) -> None:
        """Forget the times; a value that has stood still is held to have done so from here on."""
        self._said_ns = self._odd_ns = self._good_ns = _NEVER
        self._good, self._odd, self._odd_count = np.nan, np.nan, 0
        if self._flat_since != _NEVER:
            self._flat_since = t_ns

    def times(self) -> list[int]:
        """Return what is remembered of times and counts."""
        return [self._said_ns, self._good_ns, self._odd_ns, self._odd_count, self._flat_since]

    def values(self) -> list[float]:
        """Return what is remembered of values."""
        return [self._good, self._odd, self._flat]

    def restore(self, times: list[int], values: list[float]) -> None:
        """Take back what ``times`` and ``values`` returned."""
        self._said_ns, self._good_ns, self._odd_ns, self._odd_count, self._flat_since = times
        self._good, self._odd, self._flat = values


def _ns(seconds: float) -> int:
    return max(1, round(min(seconds * 1e9, _FOREVER / GAP_STEPS)))


def judge_burst(wave: Waveform, samples: NDArray[np.float32]) -> Reason:
    """Return why a burst ``(n,)`` is bad, or GOOD: whatever the reason, no feature is made of it.

    There is no uncertain burst: the spectrum of one that is clipped, flat or holds a sample that
    cannot be has lines which the machine has not. Limits are compared in float32, as the samples
    are. A burst of another rate or length does not come here; it is refused when it is decoded.

    >>> wave = Waveform("axial", "m/s2", rate_hz=25600, clip=50.0)
    >>> sine = np.sin(np.arange(4096, dtype=np.float32) / 9)
    >>> judge_burst(wave, 20 * sine), judge_burst(wave, np.clip(60 * sine, -50, 50))
    (<Reason.GOOD: 0>, <Reason.CLIPPED: 7>)
    """
    least, most = samples.min(), samples.max()
    if not np.isfinite(least) or not np.isfinite(most):  # NaN among them makes both NaN
        return Reason.INFINITE
    if wave.low is not None and least < _float32(wave.low):
        return Reason.LOW
    if wave.high is not None and most > _float32(wave.high):
        return Reason.HIGH
    if wave.clip is not None:
        # A millionth below: scaling whole counts to a unit rounds.
        end = _float32(wave.clip * (1 - 1e-6))
        if max(-least, most) >= end and np.count_nonzero(np.abs(samples) >= end) >= CLIP_SAMPLES:
            return Reason.CLIPPED
    return Reason.FLAT if least == most else Reason.GOOD


def judge_bursts(wave: Waveform, samples: NDArray[np.float32]) -> list[Reason]:
    """Return what ``judge_burst`` returns of each of some bursts ``(k, n)``.

    >>> wave = Waveform("axial", "m/s2", rate_hz=25600, clip=50.0)
    >>> judge_bursts(wave, np.float32([[1, 2, 3], [4, 4, 4], [50, 50, 50]]))
    [<Reason.GOOD: 0>, <Reason.FLAT: 6>, <Reason.CLIPPED: 7>]
    """
    least, most = samples.min(axis=1), samples.max(axis=1)
    # Most are beyond doubt; NaN among the samples makes every comparison false.
    sure = (least > -np.inf) & (most < np.inf) & (least < most)
    if wave.low is not None:
        sure &= least >= _float32(wave.low)
    if wave.high is not None:
        sure &= most <= _float32(wave.high)
    if wave.clip is not None:
        sure &= np.maximum(-least, most) < _float32(wave.clip * (1 - 1e-6))
    return [
        Reason.GOOD if good else judge_burst(wave, one)
        for good, one in zip(sure.tolist(), samples, strict=True)
    ]


def _float32(limit: float) -> np.float32:
    return np.float32(min(max(limit, -_LARGEST_32), _LARGEST_32))

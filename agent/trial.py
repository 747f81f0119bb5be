"""A release and what it stands beside judge the same vectors, and are compared.

Before it is promoted the release judges beside what judges; afterwards what judged before goes on
beside the release. Nothing here speaks, learns or is met in a replay of the journal, and none of it
is done while readings wait: vectors are put on a bounded queue, and judged in the agent's pauses.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from agent import health
from agent.alerts import AssetAlert
from agent.config import TrialConfig
from agent.group import Group
from agent.personal import Personal
from agent.prognosis import predict_one
from contract.arrays import Floats
from contract.models.histogram import BINS
from contract.models.lagged import LaggedModel
from contract.release import Predictor, Release
from contract.spec import AssetClass

QUEUE = 256
"""Vectors that wait for a pause; more are left out, and counted."""
ASSETS = 64
"""Of a class, that are judged beside; of more the first that were heard of."""
PAUSE_S = 0.02
"""Of one pause, in this thread's work, after which no further vector is begun."""
FEWEST = 50
"""Vectors below which no share is held against another."""
ALONE = 0.5
"""Share of vectors in alarm that is too much where nothing is there to compare with."""
TIMED = 5
"""The fastest of so many vectors counts before anything has been tried: others use the device."""


class Seen(NamedTuple):
    """A vector as it was judged.

    Attributes:
        asset: which.
        life: number of its life.
        t_ns: of the vector.
        z: what health watches, in the asset's own deviations ``(F,)``.
        x: the whole vector ``(F,)``.
        score: smoothed, over the limit.
        rul_h: hours left; None: not asked for.
        alarm: over the limit, or an alert stands.
        gap: vectors before it were left out.
    """

    asset: str
    life: int
    t_ns: int
    z: Floats
    x: Floats
    score: float
    rul_h: float | None
    alarm: bool
    gap: bool = False


class Count(msgspec.Struct):
    """What a trial has come to.

    Attributes:
        vectors: judged by the release.
        paired: of these, judged by both.
        alarms: of ``vectors``, in alarm by the release.
        paired_alarms: of ``paired``, in alarm by the release.
        before: of ``paired``, in alarm by the other.
        disagree: of ``paired``, in alarm by one alone.
        broken: of which the release made no number.
        left_out: vectors that there was no time for.
        timed: vectors of which the release's time was taken.
        seconds: that it took for these.
        apart_h: hours left by one less those by the other, without sign, added up.
        lives: vectors of which that is.
        hours: of the data's own time.
        newest_ns: time of the newest vector.
    """

    vectors: int = 0
    paired: int = 0
    alarms: int = 0
    paired_alarms: int = 0
    before: int = 0
    disagree: int = 0
    broken: int = 0
    left_out: int = 0
    timed: int = 0
    seconds: float = 0.0
    apart_h: float = 0.0
    lives: int = 0
    hours: float = 0.0
    newest_ns: int = 0

    @property
    def share(self) -> float:
        """Return the share in alarm by the release, of what both have judged if that is most."""
        if self._alone:
            return self.alarms / max(self.vectors, 1)
        return self.paired_alarms / self.paired

    @property
    def share_before(self) -> float | None:
        """Return the share in alarm by the other; None: too little was judged by it."""
        return None if self._alone else self.before / self.paired

    @property
    def latency_ms(self) -> float | None:
        """Return the release's mean time for a vector; None: not taken."""
        return 1e3 * self.seconds / self.timed if self.timed else None

    @property
    def _alone(self) -> bool:
        return self.paired * 2 <= self.vectors

    def problem(self, config: TrialConfig) -> str:
        """Return why the release must not judge, as far as that is known; empty: nothing is."""
        if self.broken:
            return f"it makes no number of {self.broken} of {self.vectors} vectors"
        latency = self.latency_ms
        if latency is not None and self.timed >= TIMED and latency > config.latency_ms:
            return f"it takes {latency:.3g} ms for a vector, and may {config.latency_ms:g} ms"
        if self.vectors < FEWEST:
            return ""
        before = self.share_before
        if before is None:
            if self.share > ALONE:
                return f"it puts {self.share:.0%} of {self.vectors} vectors into alarm"
            return ""
        if self.share > before * config.alarms + config.alarms_more:
            return (
                f"it puts {self.share:.0%} of {self.paired} vectors into alarm, the other "
                f"{before:.0%}"
            )
        return ""

    def in_words(self) -> str:
        """Return what was found; empty: nothing was judged."""
        if not self.vectors:
            return ""
        before = self.share_before
        said = f"{self.share:.0%} of {self.vectors} vectors in alarm"
        if before is not None:
            apart = self.disagree / self.paired
            said += f", by the other {before:.0%}, apart on {apart:.0%}"
        if self.lives:
            said += f", hours left {self.apart_h / self.lives:.1f} h apart"
        latency = self.latency_ms
        return said if latency is None else f"{said}; {latency:.2g} ms for a vector"


class _Beside:
    """One asset, as another than what judges it sees it."""

    __slots__ = ("alert", "life", "memory", "smooth")

    def __init__(self, spec: AssetClass, life: int) -> None:
        self.life = life
        self.alert = AssetAlert(spec)
        self.smooth: float | None = None
        self.memory: Floats | None = None


class Bench:
    """Judges vectors beside what judges: with its own smoothing and alerts; learns nothing.

    Args:
        spec: of the class.
        judge: of health, as it is at the time; it may return None.
        predictor: of remaining life, likewise.
    """

    def __init__(
        self,
        spec: AssetClass,
        judge: Callable[[], health.Judge | None],
        predictor: Callable[[], Predictor | None],
    ) -> None:
        self._spec = spec
        self._judge = judge
        self.predictor = predictor
        self._assets: dict[str, _Beside] = {}

    def push(self, one: Seen) -> tuple[bool, float | None] | None:
        """Judge a vector.

        Returns:
            whether it is in alarm, and the hours left; None: there is nothing to judge health by.

        Raises:
            ArithmeticError: it makes no number of it.
        """
        judge, predictor = self._judge(), self.predictor()
        if judge is None:
            return None
        beside = self._assets.get(one.asset)
        if beside is None or beside.life != one.life:
            beside = self._assets[one.asset] = _Beside(self._spec, one.life)
        if one.gap:
            beside.memory = None
        with np.errstate(all="ignore"):  # what is no number is told below
            score = self._score(judge, beside, one.z)
            rul_h = None if predictor is None else predict_one(predictor, one.x)
        if not np.isfinite(score) or (rul_h is not None and not np.isfinite(rul_h)):
            beside.smooth = None
            raise ArithmeticError
        beside.alert.push(one.t_ns, score, rul_h, one.life)
        return score >= 1.0 or beside.alert.active, rul_h

    def _score(self, judge: health.Judge, beside: _Beside, z: Floats) -> float:
        if isinstance(judge.model, LaggedModel):
            memory = judge.model.cold() if beside.memory is None else beside.memory
            z = beside.memory = judge.model.follow(memory, z)
        raw = float(judge.model.score_rows(z[None, :])[0]) / judge.limit
        smooth, a = beside.smooth, self._spec.health.smoothing
        beside.smooth = raw if smooth is None else smooth + a * (raw - smooth)
        return beside.smooth


def bench_of(group: Group, release: Release | None, own: Personal | None = None) -> Bench:
    """Return what judges as a release would on this device; None: as its own models do.

    ``own``: the release's remaining-life model made this device's own, or None.
    """
    spec = group.spec

    def local() -> Predictor | None:
        found = group.local_predictor()
        return None if found is None else found[1]

    released: Predictor | None = None
    if release is not None and release.rul:
        released = release.rul.get(release.manifest.rul_model)
        if own is not None or spec.privacy is not None:
            released = None if own is None else own.model
        predictor: Callable[[], Predictor | None] = lambda: released  # noqa: E731
    else:
        predictor = local
    if release is None or release.health is None:
        return Bench(spec, group.cohort.judge, predictor)
    scores = release.arrays.get("health/histogram", np.zeros(BINS, dtype=np.int64))
    limit = health.limit_of(scores.astype(np.int64), spec.health.alarm_rate)
    judge = health.Judge(release.health, limit)
    return Bench(spec, lambda: judge, predictor)


class Trial:
    """Counts what a release and what it stands beside make of the same vectors.

    Args:
        bench: of the one of the two that does not judge.
        count: to go on from.
        judges: whether it is the release that judges.
        clock: seconds of this thread's work: what others do meanwhile is not the release's time.
    """

    def __init__(
        self,
        bench: Bench,
        count: Count,
        *,
        judges: bool,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.bench = bench
        self.count = count
        self._judges = judges
        self._clock = clock
        self._queue: deque[Seen] = deque()
        self._assets: set[str] = set()
        self._gaps: set[str] = set()

    def put(self, one: Seen) -> None:
        """Let a vector wait for the next pause, if there is room."""
        if one.asset not in self._assets:
            if len(self._assets) >= ASSETS:
                return
            self._assets.add(one.asset)
        if len(self._queue) >= QUEUE:
            self.count.left_out += 1
            self._gaps.add(one.asset)
            return
        if one.asset in self._gaps:
            self._gaps.discard(one.asset)
            one = one._replace(gap=True)
        self._queue.append(one)

    def work(self) -> None:
        """Judge what waits, one vector at least, for as long as a pause may be."""
        until = self._clock() + PAUSE_S
        while self._queue:
            self._take(self._queue.popleft())
            if self._clock() >= until:
                return  # the others wait for the next

    def _take(self, one: Seen) -> None:
        count = self.count
        if 0 < count.newest_ns < one.t_ns:
            count.hours += min((one.t_ns - count.newest_ns) / 3.6e12, 24.0)
        count.newest_ns = max(count.newest_ns, one.t_ns)
        count.vectors += 1
        began = self._clock()
        try:
            found = self.bench.push(one)
        except ArithmeticError:
            if not self._judges:
                count.broken += 1
            found = None
        if not self._judges:
            count.seconds += self._clock() - began
            count.timed += 1
        if self._judges and not np.isfinite(one.score):
            count.broken += 1
        if self._judges:
            release: bool | None = one.alarm
            other = None if found is None else found[0]
        else:
            release, other = (None if found is None else found[0]), one.alarm
        count.alarms += bool(release)
        if release is None or other is None:
            return
        count.paired += 1
        count.paired_alarms += release
        count.before += other
        count.disagree += release != other
        if found is not None and found[1] is not None and one.rul_h is not None:
            count.apart_h += abs(found[1] - one.rul_h)
            count.lives += 1


def tried_on(bench: Bench, recent: Iterable[Seen], config: TrialConfig) -> Count:
    """Let a release judge the newest vectors before anything else, and return what came of it.

    Ends early where it is too slow: then the fastest of a few vectors is its time.
    """
    trial = Trial(bench, Count(), judges=False)
    times: list[float] = []
    for one in recent:
        before = trial.count.seconds
        trial._take(one)  # noqa: SLF001  # its own
        times.append(trial.count.seconds - before)
        if len(times) == TIMED:
            if 1e3 * min(times) > config.latency_ms:
                trial.count.seconds = min(times) * TIMED
                return trial.count
            # A first time costs more: what is loaded or laid out then is not the release's.
            trial.count.seconds = min(times) * TIMED
    return trial.count

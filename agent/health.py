"""How far an asset is from its own beginning, judged by moments; what it may learn as healthy."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.features.regime import UNKNOWN, Regime
from agent.models.healthy import LearningNetwork, nothing
from agent.models.healthy import learnt as learnt_of
from contract.arrays import Arrays, Floats
from contract.features import FeatureSpec
from contract.model_spec import Extremes, Lagged
from contract.models import histogram
from contract.models.healthy import Healthy, Scorer, remembers, scorer, shown
from contract.models.lagged import LaggedModel
from contract.models.moments import Moments, spread
from contract.models.network import NetworkModel
from contract.report import Why
from contract.spec import AssetClass

HALF = 3.0
"""The smoothed score at which the health index is one half."""


QUICKLY = 50
"""Rows after which extremes are solved anew: it costs little, and they must know of the newest."""


class Cohort:
    """What all assets of one class on this device learn together about healthy behaviour.

    Attributes:
        healthy: learnt from standardised healthy vectors.
        scores: histogram of healthy scores, see ``contract.models.histogram``.
        model: solved from what is learnt when that has grown by a quarter; extremes each 50 rows.
        solved_at: rows that had been learnt then.
    """

    def __init__(self, spec: AssetClass) -> None:
        self._spec = spec.health
        size = len(FeatureSpec.of(spec).columns(spec.health_stats))
        self._first = min(16, learnt(spec))
        self._quick = isinstance(self._spec, Extremes)
        if isinstance(self._spec, Lagged):
            self._first = min(16, self._spec.baseline - self._spec.lags)
        """Rows that make the first model: what one asset alone can teach in a life is enough."""
        self.healthy: Healthy = nothing(spec.health, size)
        self.scores: NDArray[np.int64] = np.zeros(histogram.BINS, dtype=np.int64)
        self.model: Scorer | None = None
        self._rows = self.solved_at = 0
        self._judge: Judge | None = None

    def judge(self) -> "Judge | None":
        """Return what judges by what was learnt here; None while that is not enough."""
        if self._judge is None and self.model is not None:
            self._judge = Judge(self.model, self.limit())
        return self._judge

    def count(self, raw: float, times: int = 1) -> None:
        """Count a healthy score."""
        self.scores[histogram.bin_of(raw)] += times
        self._judge = None

    def learn(self, Z: Floats) -> None:
        """Learn standardised rows ``(n, F)`` as healthy; NaN all through: an absent column."""
        memory = self._spec.memory
        if memory:
            self.healthy = self.healthy.decay(0.5 ** (len(Z) / memory))
        self.healthy = self.healthy.learn(Z)
        self._rows += len(Z)
        more = self._first
        if self.solved_at:
            counted = min(self.solved_at, memory) if memory else self.solved_at
            more = self.solved_at + (QUICKLY if self._quick else max(16, counted // 4))
        if self._rows >= more:
            self.model = self.healthy.solve()
            self.solved_at = self._rows
            self._judge = None

    def acquit(self, Z: Floats) -> None:
        """Learn rows ``(n, F)`` that a person found healthy, at once: the same is to be normal."""
        self.learn(Z)
        if self.model is not None:
            self.model = self.healthy.solve()
            self.solved_at = self._rows
            self._judge = None

    def adopt(self, model: Scorer) -> None:
        """Go on learning from a release's weights, where what is learnt is weights."""
        if isinstance(self.healthy, LearningNetwork) and isinstance(model, NetworkModel):
            self.healthy = self.healthy.adopt(model.layers)

    def limit(self) -> float:
        """Return the score that healthy vectors exceed at the allowed rate; at least 1."""
        return limit_of(self.scores, self._spec.alarm_rate)

    def arrays(self) -> Arrays:
        """Return the state."""
        solved = {} if self.model is None else self.model.arrays("model/")
        return {
            **self.healthy.arrays("healthy/"),
            **solved,
            "scores": self.scores.copy(),
            "rows": np.array([self._rows, self.solved_at]),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self.healthy = learnt_of(self._spec, arrays, "healthy/")
        self.scores = np.array(arrays["scores"], dtype=np.int64)
        self._rows, self.solved_at = (int(v) for v in arrays["rows"])
        self._judge = None
        self.model = scorer(self._spec, arrays, "model/")


def limit_of(scores: NDArray[np.int64], alarm_rate: float) -> float:
    """Return the limit by a histogram of healthy scores, once there are enough of them."""
    if scores.sum() < 0.2 / alarm_rate:
        return 1.0
    return max(1.0, histogram.quantile(scores, 1.0 - alarm_rate))


@dataclass(frozen=True, slots=True)
class Judge:
    """The model that judges, and the score that is its limit."""

    model: Scorer
    limit: float


class Judged:
    """What one feature vector says of an asset's health.

    Attributes:
        score: smoothed, over the limit; None while the asset's beginning is not known.
        z: the standardised vector ``(F,)``, where one was judged; else the score is an older one.
        absent: which columns ``(F,)`` it was judged without, or None: none.
        seen: what the model saw, where it sees more than the vector, or None.
        own: mean and scale ``(2, F)`` that it was standardised by, where they do not stay, or None.
        regime: in which it was judged.
        raw: the newest score itself, by the model alone: not smoothed, over no limit.
    """

    __slots__ = ("_model", "absent", "own", "raw", "regime", "score", "seen", "z")

    def __init__(
        self,
        score: float | None,
        z: Floats | None = None,
        model: Scorer | None = None,
        absent: NDArray[np.bool_] | None = None,
    ) -> None:
        self.score = score
        self.z = z
        self.absent = absent
        self.seen: Floats | None = None
        self.own: Floats | None = None
        self.regime = 0
        self.raw = 0.0
        self._model = model

    @property
    def shares(self) -> Floats | None:
        """Return each watched column's share in the newest score ``(F,)``; found when asked."""
        if self._model is None or self.z is None:
            return None
        return self._model.shares(self.z if self.seen is None else self.seen)


class AssetHealth:
    """One asset's own standardisation and smoothed score, over one life; per operating regime.

    A vector is of a regime once that has stood for as long as the vector looks back: what mixes two
    regimes is judged by neither.

    The beginning is gathered from whole vectors. Columns that say nothing for as long as a vector
    looks back and a beginning takes are absent: the asset is judged without them, if they are not
    most. When they speak in the end, their own beginning is gathered from then on.
    """

    def __init__(self, spec: AssetClass) -> None:
        self._spec = spec.health
        self._size = self.size = len(FeatureSpec.of(spec).columns(spec.health_stats))
        """Columns that are watched."""
        self._learnt = learnt(spec)
        self._regime = Regime(spec.regimes, spec.channel_names) if spec.regimes else None
        self._regimes = 1 if self._regime is None else self._regime.size
        self._width = len(spec.columns)
        self._channel, self._independent = _of_means(spec)
        wander = np.array([column.wander for column in spec.columns] + [1.0])
        self._wander = wander[self._channel]
        self._stretched = bool(self._spec.floor) or bool((self._wander != 1.0).any())
        self._remembers = remembers(self._spec, self._size)
        self._span = -(-look_back(spec, spec.health_stats) // spec.hop)
        self._patience = self._span + self._spec.baseline
        self.reset()

    def reset(self) -> None:
        """Begin a new life."""
        count = self._regimes
        self._beginning = np.zeros((count, self._spec.baseline, self._size))
        self._seen = np.zeros(count, dtype=np.int64)
        """Healthy vectors of each regime: gathered up to ``baseline``, then learnt."""
        self._known = np.zeros((count, self._size), dtype=np.bool_)
        """Columns that ever said something."""
        self._waited = np.zeros(count, dtype=np.int64)
        """Vectors that were not gathered, because they were not whole."""
        self._late = np.zeros(count, dtype=np.int64)
        """Vectors gathered for columns that were absent in the beginning."""
        self._mean = np.zeros((count, self._size))
        """NaN: the column is absent."""
        self._scale = np.ones((count, self._size))
        self._stretch = np.ones((count, self._size))
        """How many times wider the scale is than what the beginning alone shows."""
        self._noise = np.zeros((count, 3, self._width if self._spec.floor else 0))
        """Count, mean and scatter of the beginning's readings."""
        self._memory = np.zeros(self._remembers)
        """What a model that remembers does of the vectors so far; zeros: nothing."""
        self._smooth = np.nan
        self._label, self._stood = int(UNKNOWN), 0
        self._unsorted = np.zeros((self._spec.baseline, self._width if self._regime else 0))
        """Rows that tell regimes apart, until there are enough of them to find the regimes."""
        if self._regime is not None:
            self._regime.reset()

    @property
    def full(self) -> bool:
        """Return whether as much is learnt of each regime as may be."""
        found = 1 if self._regime is None else self._regime.found
        return bool(found and (self._seen[:found] >= self._learnt).all())

    def settled(self, X: Floats) -> bool:
        """Return whether nothing is learnt from these vectors ``(n, F)``, or any like them."""
        found = 1 if self._regime is None else self._regime.found
        if not found or (self._seen[:found] < self._learnt).any():
            return False
        absent = np.isnan(self._mean).any(axis=0)
        return not absent.any() or not np.isfinite(X[:, absent]).any()

    def judge_settled(
        self,
        X: Floats,
        rows: Floats,
        judge: Judge | None,
        doubtful: NDArray[np.bool_] | None = None,
    ) -> list[Judged]:
        """Judge vectors ``(n, F)`` with their newest rows ``(n, C)``; see ``settled``.

        The same to the last bit as one by one; ``doubtful`` are those that must not be learnt
        from.
        """
        regimes = self._regimes_of(rows)
        if judge is None:
            return [Judged(None)] * len(X)
        if not self._spec.follow:
            return self._judge(X, regimes, judge)
        # What one vector moves, the next is judged by.
        judged = []
        for i in range(len(X)):
            judged += self._judge(X[i : i + 1], regimes[i : i + 1], judge)
            if doubtful is None or not doubtful[i]:
                self._follow(X[i], judged[i])
        return judged

    def _follow(self, x: Floats, judged: Judged) -> None:
        """Let the own mean follow the columns that are near it, slowly."""
        if judged.z is None:
            return
        mean = self._mean[judged.regime]
        near = (np.abs(judged.z) < self._spec.follow_within) & np.isfinite(x) & np.isfinite(mean)
        mean[near] += (x[near] - mean[near]) / self._spec.follow

    def push(
        self,
        x: Floats,
        row: Floats,
        cohort: Cohort,
        judge: Judge | None,
        *,
        learn: bool = True,
        sure: bool = True,
    ) -> Judged:
        """Judge one vector of watched features ``(F,)``, and learn from it if it is healthy.

        Args:
            x: the vector.
            row: the newest row ``(C,)``, which tells regimes apart.
            cohort: what the class learns together.
            judge: what judges; None while there is nothing yet.
            learn: False: it must not be learnt as healthy.
            sure: False: there is something in it that its own mean must not follow either.
        """
        if self._regime is not None and not self._regime.known:
            if learn and self._may_gather(x, 0):
                self._gather_unsorted(x, row, cohort)
            return Judged(None)
        regimes = self._regimes_of(row[None, :])
        regime = int(regimes[0])
        if regime >= 0 and self._seen[regime] < self._spec.baseline:
            if learn and self._may_gather(x, regime):
                self._gather(x, row, regime, cohort)
            regime = -1
        if judge is None:
            more = learn and regime >= 0 and self._seen[regime] < self._learnt
            if more and not self._remembers:
                # Too few to judge by, as yet: the beginning goes on.
                z = self._standardised(x[None, :], regimes)
                if self._says_all(z[0], regime):
                    self._seen[regime] += 1
                    cohort.learn(z * self._stretch[regime])
            return Judged(None)
        if regime < 0:
            self._memory[:] = 0.0
            return Judged(None if np.isnan(self._smooth) else float(self._smooth))
        judged = self._judge(x[None, :], regimes, judge)[0]
        if judged.z is not None and learn:
            self._learn(x, row, judged, cohort, judge)
        if sure and self._spec.follow:
            # While an alert stands, too: what drifts by itself would else never end one.
            self._follow(x, judged)
        return judged

    def _learn(self, x: Floats, row: Floats, judged: Judged, cohort: Cohort, judge: Judge) -> None:
        """Learn a vector that was judged, if it is healthy."""
        z, regime = judged.z, judged.regime
        assert z is not None  # noqa: S101  # for the type checker; the caller looked
        absent = np.isnan(self._mean[regime])
        finite = np.isfinite(x)
        late = bool((absent & finite).any())
        more = self._seen[regime] < self._learnt
        if not (late or more) or not (finite | absent).all():
            return
        sight = z if judged.seen is None else judged.seen
        raw = judged.raw
        if more:
            self._seen[regime] += 1
            # The scores of all vectors but the clearly sick make the limit; what scores as
            # abnormal is not learnt as healthy.
            if self._smooth < HALF:
                cohort.count(raw)
            if raw < judge.limit or not self._spec.guarded:
                self._teach(z, regime, sight, cohort)
        if late and raw < judge.limit:
            self._gather_late(x, row, regime)

    def _teach(self, z: Floats, regime: int, sight: Floats, cohort: Cohort) -> None:
        """Let the class learn one vector."""
        # In deviations of the beginning alone: what a channel is allowed is no part of its spread.
        stretch = np.where(np.isnan(self._mean[regime]), np.nan, self._stretch[regime])
        if not self._remembers:
            cohort.learn((z * stretch)[None, :])
        elif isinstance(self._spec, Lagged) and sight[0] > self._spec.lags:
            times = self._spec.lags + 1
            past = sight[1 : 1 + times * self._size]
            cohort.learn((past * np.tile(stretch, times))[None, :])

    def _regimes_of(self, rows: Floats) -> NDArray[np.int64]:
        """Return the regime of each vector by its newest row; -1: unknown, or a mixture."""
        if self._regime is None:
            return np.zeros(len(rows), dtype=np.int64)
        regimes = self._regime.of(rows)
        for i, label in enumerate(regimes.tolist()):
            self._stood = self._stood + 1 if label == self._label else 1
            self._label = label
            if self._stood < self._span:
                regimes[i] = UNKNOWN
        return regimes

    def _standardised(self, X: Floats, at: NDArray[np.int64]) -> Floats:
        """Return vectors ``(n, F)`` in the deviations of their regimes; NaN: it says nothing."""
        Z: Floats = (X - self._mean[at]) / self._scale[at]
        return np.minimum(np.maximum(Z, -1e3), 1e3)

    def _says_all(self, z: Floats, regime: int) -> bool:
        """Return whether no column of a standardised vector is missing but those absent."""
        return bool((np.isfinite(z) | np.isnan(self._mean[regime])).all())

    def _judge(self, X: Floats, regimes: NDArray[np.int64], judge: Judge) -> list[Judged]:
        at = np.maximum(regimes, 0)
        Z = self._standardised(X, at)
        known = (regimes >= 0) & (self._seen[at] >= self._spec.baseline)
        finite = np.isfinite(Z)
        absent: NDArray[np.bool_] | None = None
        if not finite.all():
            missing = np.isnan(self._mean)
            absent = missing if missing.any() else None
            most = self._size - missing.sum(axis=1)
            known &= finite.sum(axis=1) * 2 >= most[at]
            Z = np.where(finite, Z, 0.0)  # says nothing of what was not measured
        sights = Z
        if isinstance(judge.model, LaggedModel):
            sights = self._follow_up(Z, known, judge.model)
        raw = judge.model.score_rows(sights)
        scores = (raw / judge.limit).tolist()
        a = self._spec.smoothing
        smooth: float | None = None if np.isnan(self._smooth) else float(self._smooth)
        judged = []
        for i, (score, is_known) in enumerate(zip(scores, known.tolist(), strict=True)):
            if is_known:
                smooth = score if smooth is None else smooth + a * (score - smooth)
                without = None if absent is None else absent[at[i]]
                one = Judged(smooth, Z[i], judge.model, without)
                one.regime = int(at[i])
                one.raw = float(raw[i])
                one.seen = None if sights is Z else sights[i]
                if self._spec.follow:
                    one.own = np.stack([self._mean[at[i]], self._scale[at[i]]])
                judged.append(one)
            else:
                judged.append(Judged(smooth))
        self._smooth = np.nan if smooth is None else smooth
        return judged

    def _follow_up(self, Z: Floats, known: NDArray[np.bool_], model: LaggedModel) -> Floats:
        """Take vectors into the memory; one that says too little, or is of no regime, ends it."""
        sights = np.zeros((len(Z), len(self._memory)))
        for i, z in enumerate(Z):
            self._memory = model.follow(self._memory, z) if known[i] else model.cold()
            sights[i] = self._memory
        return sights

    def _may_gather(self, x: Floats, regime: int) -> bool:
        """Return whether a vector is whole, or as whole as there is reason to wait for."""
        finite = np.isfinite(x)
        self._known[regime] |= finite
        if finite.all():
            return True
        self._waited[regime] = min(self._waited[regime] + 1, self._patience)
        return bool(
            self._waited[regime] >= self._patience
            and finite.sum() * 2 >= self._size
            and finite[self._known[regime]].all()
        )

    def _gather_unsorted(self, x: Floats, row: Floats, cohort: Cohort) -> None:
        assert self._regime is not None  # noqa: S101  # for the type checker; the caller looked
        # In the place of the first regime until it is known how many there are.
        count = int(self._seen[0])
        self._beginning[0, count] = x
        self._unsorted[count] = row
        self._seen[0] += 1
        if self._seen[0] < self._spec.baseline:
            return
        self._regime.fit(self._unsorted)
        vectors = self._beginning[0].copy()
        self._seen[:] = 0
        if not self._regime.known:
            return  # no row told: they are gathered anew
        self._known[:] = False
        self._waited[:] = self._waited[0]
        # What mixes two regimes is of neither's beginning.
        regimes = self._regimes_of(self._unsorted).tolist()
        for vector, newest, regime in zip(vectors, self._unsorted, regimes, strict=True):
            if regime >= 0:
                self._known[regime] |= np.isfinite(vector)
                self._gather(vector, newest, regime, cohort)

    def _gather(self, x: Floats, row: Floats, regime: int, cohort: Cohort) -> None:
        self._take_noise(row, regime)
        self._beginning[regime, self._seen[regime]] = x
        self._seen[regime] += 1
        if self._seen[regime] == self._spec.baseline:
            rows = self._beginning[regime]
            self._mean[regime] = np.nan
            self._take_beginning(regime)
            mean = self._mean[regime]
            if self._spec.recent:
                mean = np.where(np.isnan(mean), np.nan, rows.mean(axis=0))
            scale = self._scale[regime] / self._stretch[regime]
            cohort.learn(shown(self._spec, (rows - mean) / scale))

    def _take_noise(self, row: Floats, regime: int) -> None:
        """Learn how much single readings vary, by those of a beginning."""
        if not self._spec.floor:
            return
        count, mean, scatter = self._noise[regime]
        ok = np.isfinite(row)
        count += ok
        off = np.where(ok, row - mean, 0.0)
        mean += off / np.maximum(count, 1.0)
        scatter += off * np.where(ok, row - mean, 0.0)

    def _gather_late(self, x: Floats, row: Floats, regime: int) -> None:
        """Gather a beginning for columns that had none."""
        finite = np.isfinite(x)
        self._known[regime] |= finite
        if not finite[self._known[regime]].all():
            return
        self._take_noise(row, regime)
        self._beginning[regime, self._late[regime]] = x
        self._late[regime] += 1
        if self._late[regime] == self._spec.baseline:
            self._late[regime] = 0
            self._take_beginning(regime)

    def _take_beginning(self, regime: int) -> None:
        """Learn the standardisation of the columns that have none, and said something each time."""
        rows = self._beginning[regime]
        own = Moments.of(rows, diagonal=True)
        fresh = np.isnan(self._mean[regime]) & np.isfinite(rows).all(axis=0)
        mean, variance = own.mean, own.variance()
        plain = spread(variance, own.mean)
        if self._spec.recent:
            mean = rows[-self._spec.recent :].mean(axis=0)
        if self._spec.floor:
            count, _, scatter = self._noise[regime]
            single = np.append(scatter / np.maximum(count, 1.0), 0.0)[self._channel]
            variance = variance + self._spec.floor * single * self._independent
        self._mean[regime, fresh] = mean[fresh]
        self._scale[regime, fresh] = plain[fresh]
        if self._stretched:
            scale = spread(variance, own.mean) * self._wander
            moved = fresh & np.isfinite(plain) & np.isfinite(scale)
            self._stretch[regime, moved] = (scale / np.where(moved, plain, 1.0))[moved]
            self._scale[regime, fresh] = scale[fresh]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        found = {} if self._regime is None else self._regime.arrays()
        return {
            **{f"health/{name}": array for name, array in found.items()},
            "health/beginning": self._beginning.copy(),
            "health/own": np.stack([self._mean, self._scale]),
            "health/seen": np.stack([self._seen, self._waited, self._late]),
            "health/known": self._known.copy(),
            "health/smooth": np.array([self._smooth]),
            "health/stood": np.array([self._label, self._stood]),
            "health/unsorted": self._unsorted.copy(),
            **({"health/noise": self._noise.copy()} if self._spec.floor else {}),
            **({"health/stretch": self._stretch.copy()} if self._stretched else {}),
            **({"health/memory": self._memory.copy()} if self._remembers else {}),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        self._beginning = np.array(arrays["health/beginning"])
        self._mean, self._scale = (np.array(part) for part in arrays["health/own"])
        self._seen, self._waited, self._late = (np.array(part) for part in arrays["health/seen"])
        self._known = np.array(arrays["health/known"])
        self._smooth = float(arrays["health/smooth"][0])
        self._label, self._stood = (int(v) for v in arrays["health/stood"])
        self._unsorted = np.array(arrays["health/unsorted"])
        if self._spec.floor:
            self._noise = np.array(arrays["health/noise"])
        if self._stretched:
            self._stretch = np.array(arrays["health/stretch"])
        if self._remembers:
            self._memory = np.array(arrays["health/memory"])
        if self._regime is not None:
            own = {n.removeprefix("health/"): a for n, a in arrays.items()}
            self._regime.restore(own)


def _of_means(spec: AssetClass) -> tuple[NDArray[np.intp], Floats]:
    """Return of each watched column its channel, and its share of a single reading's variance.

    The share is that which independent readings would leave it; 0 of all but means. The channel of
    what is of none is the one behind the last.
    """
    features = FeatureSpec.of(spec)
    parts = [features.parts[i] for i in features.columns(spec.health_stats)]
    names = list(spec.channel_names)
    channel = [names.index(c) if c in names else len(names) for c, _ in parts]
    shares = []
    for _, stat in parts:
        kind, _, rows = stat.partition("_")
        n = int(rows) if rows.isdigit() else 0
        # An EWMA with a span of n rows has the weight 2 / (n + 1): Roberts 1959.
        shares.append(1.0 / n if n and kind in {"mean", "ewma"} else 0.0)
    return np.array(channel, dtype=np.intp), np.array(shares)


def learnt(spec: AssetClass) -> int:
    """Return how many vectors of a life may be learnt: its beginning at least."""
    return max(spec.health.learn, spec.health.baseline)


def look_back(spec: AssetClass, stats: tuple[str, ...]) -> int:
    """Return how many rows some statistics, and functions, look back.

    >>> from contract.spec import Channel
    >>> look_back(AssetClass("fan", (Channel("speed", "rpm"),)), ("mean_16", "last"))
    16
    """
    digits = [stat.rpartition("_")[2] for stat in stats]
    rows = [function.rows for function in spec.functions]
    return max([int(text) for text in digits if text.isdigit()] + rows + [1])


def index(score: float, rul_h: float | None, cap_h: float) -> float:
    """Return the health index: 1 healthy, 0 failed; the worse of condition and remaining life.

    >>> index(0.0, None, 125.0), index(3.0, None, 125.0), index(0.0, 12.5, 125.0)
    (1.0, 0.5, 0.1)
    """
    condition = 1.0 / (1.0 + (score / HALF) ** 2)
    return condition if rul_h is None else min(condition, rul_h / cap_h)


def why(judged: Judged, parts: tuple[tuple[str, str], ...], most: int = 3) -> tuple[Why, ...]:
    """Return the channels behind a score, the largest share first.

    One always; beside it those that have a part in it and are beyond their usual spread.

    Args:
        judged: the score.
        parts: channel and statistic of each watched column.
        most: channels to name.
    """
    shares, z = judged.shares, judged.z
    if shares is None or z is None:
        return ()
    names, at, columns = _channels(parts)
    totals = np.bincount(at, weights=shares)
    found: list[Why] = []
    for c in (-totals).argsort(kind="stable")[:most].tolist():
        share = float(totals[c])
        strongest = columns[c][int(shares[columns[c]].argmax())]
        if found and (share < 0.1 or abs(z[strongest]) < 1.0):
            continue
        found.append(
            Why(
                channel=names[c],
                share=round(share, 3),
                feature=parts[strongest][1],
                sigmas=round(float(z[strongest]), 2),
            )
        )
    return tuple(found)


@functools.lru_cache(256)
def _channels(
    parts: tuple[tuple[str, str], ...],
) -> tuple[list[str], NDArray[np.intp], list[NDArray[np.intp]]]:
    """Return the channels of columns, of which of them each column is, and the columns of each."""
    names = list(dict.fromkeys(channel for channel, _ in parts))
    at = np.array([names.index(channel) for channel, _ in parts], dtype=np.intp)
    return names, at, [np.flatnonzero(at == c) for c in range(len(names))]

"""Has a signal left its own ways? Level and variance of each, whatever its autocorrelation.

Plain detectors take each reading for independent of the one before, and on readings that are alike
for a while fire 60 times in 10,000. Here each signal calibrates itself: an autoregressive model of
its healthy rows (Yule and Walker) whitens it, and log-likelihood CUSUMs (E. S. Page, *Continuous
inspection schemes*, Biometrika 41, 1954; G. Lorden 1971) watch what is left, with limits that grow
with the shift to be found, so that false alarms come alike rarely. What the model does not
explain is seen in the spread of block means, by which all limits widen.

Rows are judged in blocks of ``BLOCK``, counted from the first: how arrivals were cut makes no
difference, and a drift is told with the block that ends behind it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.model_spec import Drift
from contract.report import DriftKind

BLOCK = 8
"""Rows that are judged together."""
LAG = 31
"""Blocks for which a row waits before the reference learns it: not to learn a drift."""
STANDS = 512
"""Rows for which a drift is told after it was last seen."""
BINS = 20
KINDS: tuple[DriftKind, ...] = ("up", "down", "wider", "narrower")

_CLIP = 3.5
"""Residuals count up to here, in standard deviations: a single reading is no drift."""
_FLOOR = 3.5
_RATIO = 2.0
"""Of variances, each way, for which the variance's CUSUM is made."""
_HELD = 0.6
"""Share of the limit above which the reference does not learn."""
_PLAIN = 25
"""Residuals of a block mean that shows what autocorrelation is left."""
# Quantiles of the normal distribution that divide it into 20 like parts.
_EDGES = np.array(
    [0.0, 0.12566, 0.25335, 0.38532, 0.52440, 0.67449, 0.84162, 1.03643, 1.28155, 1.64485]
)
EDGES = np.concatenate([-_EDGES[:0:-1], _EDGES])


class Alarm(NamedTuple):
    """A drift that was found.

    Attributes:
        row: of those pushed since the beginning, from 0.
        column: of the signal.
        kind: of ``KINDS``.
    """

    row: int
    column: int
    kind: int


class Watch:
    """Signals of one asset, each by itself; a value that is NaN says nothing.

    Args:
        spec: how.
        columns: signals.

    >>> rng = np.random.default_rng(1)
    >>> watch = Watch(Drift(warm=400), 2)
    >>> watch.push_rows(rng.normal(size=(1000, 2)))
    []
    >>> alarms = watch.push_rows(rng.normal(size=(200, 2)) + [0.0, 1.5])
    >>> sorted({(alarm.column, KINDS[alarm.kind]) for alarm in alarms})[0]
    (1, 'up')
    """

    def __init__(self, spec: Drift, columns: int) -> None:
        self._spec = spec
        self._size = columns
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        size, order = self._size, self._spec.order
        self.rows = 0
        """That were pushed."""
        self._block = np.full((BLOCK, size), np.nan)
        self._seen = np.zeros(size, dtype=np.int64)
        """Values of each signal's beginning."""
        self._warm = np.full((self._spec.warm, size), np.nan)
        self._model = _Model.nothing(order, size)
        self._past = np.full((order, size), np.nan)
        self._lagged = np.full((LAG, BLOCK, size), np.nan)
        self._learnt = np.zeros(size)
        """Rows behind the mean."""
        self._sums = np.zeros((4, size))
        self._found = np.full((4, size), -STANDS, dtype=np.int64)
        """Row at which each kind of drift was last found."""
        self._reference: NDArray[np.int64] = np.zeros((size, BINS), dtype=np.int64)
        self._present: NDArray[np.int64] = np.zeros((size, BINS), dtype=np.int64)
        self._distance = np.full((2, size), np.nan)

    def forget(self, column: int) -> None:
        """Begin anew with one signal: it means something else from here on."""
        fresh = Watch(self._spec, self._size).arrays()
        own = self.arrays()
        for name, array in own.items():
            if name != "drift/rows":
                array[..., column] = fresh[name][..., column]
        self.restore(own)

    # -- rows -------------------------------------------------------------------------------------

    def push(self, row: Floats) -> list[Alarm]:
        """Take one row ``(C,)``; return what was found when it ends a block."""
        at = self.rows % BLOCK
        self._block[at] = row
        self.rows += 1
        return self._judge() if at == BLOCK - 1 else []

    def push_rows(self, X: Floats) -> list[Alarm]:
        """Take rows ``(n, C)``."""
        found = []
        for row in X:
            found += self.push(row)
        return found

    def _judge(self) -> list[Alarm]:
        X = self._block
        ready = self._seen == self._spec.warm
        alarms: list[Alarm] = []
        if ready.any():
            alarms = self._watch(X, ready)
        if not ready.all():
            self._gather(X, np.flatnonzero(~ready))
        return alarms

    def _gather(self, X: Floats, columns: NDArray[np.intp]) -> None:
        """Take a block into the beginnings of some signals; those that are whole become models."""
        warm = self._spec.warm
        for c in columns.tolist():
            values = X[:, c][np.isfinite(X[:, c])][: warm - int(self._seen[c])]
            self._warm[self._seen[c] : self._seen[c] + len(values), c] = values
            self._seen[c] += len(values)
        done = columns[self._seen[columns] == warm]
        if not len(done):
            return
        rows = self._warm[:, done]
        self._model.put(done, _Model.of(rows, self._spec))
        self._past[:, done] = rows[warm - self._spec.order :]
        self._lagged[..., done] = rows[warm - LAG * BLOCK :].reshape(LAG, BLOCK, len(done))
        self._learnt[done] = warm
        self._reference[done] = self._counts(rows, done)
        # The models hold all there is to know of it.
        self._warm[:, done] = np.nan

    def _watch(self, X: Floats, ready: NDArray[np.bool_]) -> list[Alarm]:
        model, order = self._model, self._spec.order
        longer = np.concatenate([self._past, X])
        apart = longer - model.mean
        e = apart[order:].copy()
        for i in range(order):
            e -= model.phi[i] * apart[order - 1 - i : len(apart) - 1 - i]
        r = np.minimum(np.maximum(e / model.scale, -_CLIP), _CLIP)
        q = 1.0 + np.sqrt(2.0) * (r * r - model.usual) / model.varies
        d, z = model.shift, r / model.wide
        half = np.log(_RATIO) / 2.0
        gains = np.empty((4, BLOCK, self._size))
        gains[0] = d * z - d * d / 2.0
        gains[1] = -d * z - d * d / 2.0
        gains[2] = (1.0 - 1.0 / _RATIO) / 2.0 * q - half
        gains[3] = half - (_RATIO - 1.0) / 2.0 * q
        gains[:, ~np.isfinite(e) | ~ready] = 0.0
        # The sum that never falls below zero, all rows at once.
        run = self._sums[:, None, :] + np.cumsum(gains, axis=1)
        run -= np.minimum(np.minimum.accumulate(run, axis=1), 0.0)
        varied = np.full(self._size, self._spec.variance)
        limit = np.stack([model.limit, model.limit, varied, varied])
        over = run > limit[:, None, :]
        self._sums = run[:, -1].copy()
        alarms: list[Alarm] = []
        first = self.rows - BLOCK
        if over.any():
            for kind, c in np.argwhere(over.any(axis=1)).tolist():
                alarms.append(Alarm(first + int(over[kind, :, c].argmax()), c, kind))
                self._found[kind, c] = self.rows - 1
        self._learn(X, ready)
        if alarms:
            self._sums[:, [alarm.column for alarm in alarms]] = 0.0
        self._past = longer[len(longer) - order :].copy()
        self._count(X, ready)
        return alarms

    def _learn(self, X: Floats, ready: NDArray[np.bool_]) -> None:
        """Let the level follow rows that are old enough, where nothing speaks for a drift."""
        place = self.rows // BLOCK % LAG
        old = self._lagged[place]
        known = np.isfinite(old)
        n = known.sum(axis=0)
        mean = np.where(known, old, 0.0).sum(axis=0) / np.maximum(n, 1)
        calm = ready & (n > 0) & (self._sums[:2].max(axis=0) < _HELD * self._model.limit)
        self._learnt = np.where(
            ready, np.minimum(self._learnt + n, self._spec.memory), self._learnt
        )
        share = n / np.maximum(self._learnt, 1.0)
        self._model.mean = np.where(
            calm, self._model.mean + (mean - self._model.mean) * share, self._model.mean
        )
        self._lagged[place] = X

    # -- against the reference --------------------------------------------------------------------

    def _counts(self, rows: Floats, columns: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return how many values of some signals ``(n, k)`` lie in each bin ``(k, BINS)``.

        Bins are those of a signal's own beginning: histograms of several machines add.
        """
        model = self._model
        z = (rows - model.first[columns]) / model.spread[columns]
        bins = np.searchsorted(EDGES, z, side="right")
        known = np.isfinite(z)
        counts = np.zeros((len(columns), BINS), dtype=np.int64)
        at = np.broadcast_to(np.arange(len(columns)), z.shape)
        np.add.at(counts, (at[known], bins[known]), 1)
        return counts

    def _count(self, X: Floats, ready: NDArray[np.bool_]) -> None:
        columns = np.flatnonzero(ready)
        self._present[columns] += self._counts(X[:, columns], columns)
        full = columns[self._present[columns].sum(axis=1) >= self._spec.warm]
        for c in full.tolist():
            self._distance[:, c] = distances(self._reference[c], self._present[c])
            self._present[c] = 0

    @property
    def psi(self) -> Floats:
        """Return each signal's population stability index against its beginning ``(C,)``."""
        psi: Floats = self._distance[0]
        return psi

    @property
    def ks(self) -> Floats:
        """Return the same of the distance of Kolmogorov and Smirnov."""
        ks: Floats = self._distance[1]
        return ks

    @property
    def standing(self) -> list[tuple[int, int]]:
        """Return which signals have drifted, and how: column and kind."""
        kinds, columns = np.nonzero(self.rows - 1 - self._found < STANDS)
        return sorted(zip(columns.tolist(), kinds.tolist(), strict=True))

    # -- state ------------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """Return the state, in arrays of fixed shape; the last axis is the signals'."""
        return {
            "drift/rows": np.array([self.rows]),
            "drift/block": self._block.copy(),
            "drift/seen": self._seen.copy(),
            "drift/warm": self._warm.copy(),
            "drift/model": self._model.stack(),
            "drift/past": self._past.copy(),
            "drift/lagged": self._lagged.copy(),
            "drift/learnt": self._learnt.copy(),
            "drift/sums": self._sums.copy(),
            "drift/found": self._found.copy(),
            "drift/reference": self._reference.T.copy(),
            "drift/present": self._present.T.copy(),
            "drift/distance": self._distance.copy(),
        }

    def fits(self, arrays: Arrays) -> bool:
        """Return whether a state is of such a watch."""
        own = self.arrays()
        return all(name in arrays and arrays[name].shape == a.shape for name, a in own.items())

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self.rows = int(arrays["drift/rows"][0])
        self._block = np.array(arrays["drift/block"])
        self._seen = np.array(arrays["drift/seen"])
        self._warm = np.array(arrays["drift/warm"])
        self._model = _Model.unstack(np.array(arrays["drift/model"]))
        self._past = np.array(arrays["drift/past"])
        self._lagged = np.array(arrays["drift/lagged"])
        self._learnt = np.array(arrays["drift/learnt"])
        self._sums = np.array(arrays["drift/sums"])
        self._found = np.array(arrays["drift/found"])
        self._reference = np.array(arrays["drift/reference"].T, dtype=np.int64)
        self._present = np.array(arrays["drift/present"].T, dtype=np.int64)
        self._distance = np.array(arrays["drift/distance"])


class _Model:
    """How each signal goes when nothing drifts.

    Attributes:
        mean: present level ``(C,)``.
        first: level of the beginning.
        spread: standard deviation of the beginning.
        scale: standard deviation of residuals.
        usual: their mean square, clipped.
        varies: standard deviation of their squares.
        wide: by what block means of them vary more than they should.
        shift: one standard deviation of the signal, as residuals show it.
        limit: of the level's CUSUM.
        phi: autoregressive coefficients ``(order, C)``.
    """

    names = ("mean", "first", "spread", "scale", "usual", "varies", "wide", "shift", "limit")

    def __init__(self, *rows: Floats, phi: Floats) -> None:
        self.mean, self.first, self.spread, self.scale, self.usual = rows[:5]
        self.varies, self.wide, self.shift, self.limit = rows[5:]
        self.phi = phi

    @classmethod
    def nothing(cls, order: int, size: int) -> "_Model":
        return cls.unstack(np.ones((len(cls.names) + order, size)))

    def stack(self) -> Floats:
        return np.concatenate([np.stack([getattr(self, name) for name in self.names]), self.phi])

    @classmethod
    def unstack(cls, array: Floats) -> "_Model":
        count = len(cls.names)
        return cls(*array[:count].copy(), phi=array[count:].copy())

    def put(self, columns: NDArray[np.intp], other: "_Model") -> None:
        """Take the models of some signals from elsewhere."""
        for name in (*self.names, "phi"):
            getattr(self, name)[..., columns] = getattr(other, name)

    @classmethod
    def of(cls, rows: Floats, spec: Drift) -> "_Model":
        """Learn signals from the rows ``(n, C)`` of their beginning."""
        n, order = len(rows), spec.order
        mean = rows.mean(axis=0)
        apart = rows - mean
        lags = np.array([(apart[k:] * apart[: n - k]).sum(axis=0) / n for k in range(order + 1)])
        still = np.sqrt(lags[0]) <= 1e-9 * np.maximum(1.0, np.abs(mean))
        lags[0] = np.maximum(lags[0], 1e-300)
        phi = _levinson(lags, order)
        # What is estimated from few rows is drawn to zero; undone as far as the process is stable.
        total = phi.sum(axis=0)
        grown = 1.0 + (1.0 + 3.0 * total) / (n * np.maximum(total, 0.1))
        phi = phi * np.where(total > 0, np.minimum(grown, 0.995 / np.maximum(total, 1e-9)), 1.0)
        e = apart[order:].copy()
        for i in range(order):
            e -= phi[i] * apart[order - 1 - i : n - 1 - i]
        # One that never moved says nothing.
        scale = np.where(still, np.inf, np.maximum(np.sqrt((e**2).mean(axis=0)), 1e-300))
        r = np.clip(e / scale, -_CLIP, _CLIP)
        q = r * r
        usual, varies = q.mean(axis=0), np.maximum(q.std(axis=0), 1e-12)
        wide = np.sqrt(np.maximum(1.0, _beyond(r)))
        varies = varies * np.sqrt(np.maximum(1.0, _beyond(q)))
        spread = np.where(still, np.inf, np.sqrt(lags[0]))
        seen = np.where(still, 0.0, np.sqrt(lags[0])) / scale
        shift = np.clip((1.0 - phi.sum(axis=0)) * seen / wide, 0.02, 1.5)
        limit = np.maximum(spec.level + np.log(np.minimum(shift, 1.0) ** 2), _FLOOR)
        return cls(mean, mean.copy(), spread, scale, usual, varies, wide, shift, limit, phi=phi)


def _levinson(lags: Floats, order: int) -> Floats:
    """Return autoregressive coefficients ``(order, C)`` for autocovariances ``(order + 1, C)``."""
    phi = np.zeros((order, lags.shape[1]))
    left = lags[0].copy()
    for k in range(order):
        told = np.zeros_like(left)
        for i in range(k):
            told += phi[i] * lags[k - i]
        partial = np.clip((lags[k + 1] - told) / left, -0.995, 0.995)
        before = phi[:k].copy()
        for i in range(k):
            phi[i] = before[i] - partial * before[k - 1 - i]
        phi[k] = partial
        left = left * (1.0 - partial * partial)
    return phi


def _beyond(values: Floats) -> Floats:
    """Return how much more block means vary than those of independent values would ``(C,)``."""
    count = len(values) // _PLAIN
    means = values[: count * _PLAIN].reshape(count, _PLAIN, -1).mean(axis=1)
    ratio: Floats = _PLAIN * means.var(axis=0) / np.maximum(values.var(axis=0), 1e-12)
    return ratio


def distances(reference: NDArray[np.int64], present: NDArray[np.int64]) -> tuple[float, float]:
    """Return the population stability index and the KS distance of two histograms.

    >>> same = np.array([10, 20, 10])
    >>> distances(same, same * 5)
    (0.0, 0.0)
    >>> psi, ks = distances(same, np.array([40, 0, 0]))
    >>> psi > 1.0, ks
    (True, 0.75)
    """
    p, q = reference / max(reference.sum(), 1), present / max(present.sum(), 1)
    a, b = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    psi = float(((b - a) * np.log(b / a)).sum())
    return psi, float(np.abs(np.cumsum(p) - np.cumsum(q)).max())

"""Operating regimes: which way of running a row belongs to, by limits or by clusters.

Clusters are k-means on the rows of a life's beginning, with k-means++ starts (D. Arthur and
S. Vassilvitskii, SODA 2007). How many there are is the largest number at which every two clusters
lie ``APART`` or more of their standard deviations from each other along the line between their
centres (Ashman's D: K. Ashman, C. Bird and S. Zepf, Astronomical Journal 108 (1994)), differ by
``STEP`` of the level, and none is a mere handful of rows. k-means halves anything: a normal
distribution gives 2.7, a uniform one or a slow ramp 3.5, and few samples of 30 rows reach 6; two
modes eight deviations apart give 8. The silhouette cannot say that there is but one.

Each channel counts over its spread within its own modes, found in the same way of it alone. Over
its whole spread, a speed that tells the regimes would shrink beside a load that is mere noise.

A row of a regime that the beginning did not show belongs to the nearest one that it did.
"""

import math

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.errors import ConfigError
from contract.spec import Clustered, Declared, Regimes

Labels = NDArray[np.int64]

UNKNOWN = -1
"""The regime of a row with a bad value, or before clusters are known."""

APART = 6.0
"""Standard deviations between the centres of two regimes, at least."""

STEP = 0.02
"""Of a channel's largest value: regimes that differ by less are a sensor's steps, or noise."""

FEW = 5
"""Rows that make a regime, at least; and at least a twentieth of all."""

MOST = 64
"""Regimes that limits may declare: for each, a beginning is kept."""

STARTS = 8
ROUNDS = 100


class Regime:
    """Tells the regime of rows of one asset, over one life.

    Args:
        spec: how regimes are told apart.
        columns: names of a row's columns.

    Attributes:
        size: regimes there can be: ``of`` returns -1 to ``size`` - 1.
        columns: of a row that tell regimes apart.

    Raises:
        ConfigError: a channel that is no column, limits that do not ascend, or too many regimes.

    >>> fan = Regime(Declared({"speed": (900.0, 1400.0)}), ("speed", "flow"))
    >>> fan.size, fan.of(np.array([[0.0, 1.0], [900.0, 1.0], [1500.0, 1.0], [np.nan, 1.0]]))
    (3, array([ 0,  1,  2, -1]))
    """

    def __init__(self, spec: Regimes, columns: tuple[str, ...]) -> None:
        self._spec = spec
        names = tuple(spec.limits) if isinstance(spec, Declared) else spec.channels
        if not names or len(set(names)) != len(names):
            raise ConfigError("regimes: name each channel once, at least one")
        for name in names:
            if name not in columns:
                raise ConfigError(f"regimes: no channel {name!r}; there are {', '.join(columns)}")
        self.columns = [columns.index(name) for name in names]
        self._limits: list[Floats] = []
        if isinstance(spec, Declared):
            for name, limits in spec.limits.items():
                if not limits or not np.isfinite(limits).all() or np.any(np.diff(limits) <= 0):
                    raise ConfigError(f"regimes: the limits of {name!r} must be numbers, ascending")
                self._limits.append(np.array(limits))
            self.size = math.prod(len(limits) + 1 for limits in self._limits)
            if self.size > MOST:
                raise ConfigError(f"regimes: the limits make {self.size} regimes, above {MOST}")
        else:
            self.size = spec.regimes
        self.reset()

    def reset(self) -> None:
        """Begin a new life: clusters are to be found anew."""
        clustered = 0 if self._limits else self.size
        self._centres = np.full((clustered, len(self.columns)), np.nan)
        self._scale = np.ones(len(self.columns))
        self._found = 0

    @property
    def known(self) -> bool:
        """Return whether regimes can be told."""
        return bool(self._limits) or self._found > 0

    @property
    def found(self) -> int:
        """Return how many regimes there are: as declared, or as found; 0 before ``fit``."""
        return self.size if self._limits else self._found

    def fit(self, rows: Floats) -> None:
        """Find the clusters in rows ``(n, C)``; numbered by their centres, first channel first.

        Without one row that is whole nothing is found. Declared regimes need no fit.
        """
        if not isinstance(self._spec, Clustered):
            return
        own = rows[:, self.columns]
        own = own[np.isfinite(own).all(axis=1)]
        if not len(own):
            return
        level = np.abs(own).max(axis=0)
        self._scale = np.array(
            [self._within(values, high) for values, high in zip(own.T, level, strict=True)]
        )
        labels = self._modes(own / self._scale, level / self._scale)
        self._found = int(labels.max()) + 1
        centres = np.array([own[labels == j].mean(axis=0) for j in range(self._found)])
        self._centres[:] = np.nan
        self._centres[: self._found] = centres[np.lexsort(centres.T[::-1])]

    def _within(self, values: Floats, level: float) -> float:
        """Return the spread of one channel ``(n,)`` within its modes; 1 if it has none at all."""
        spread = float(values.std())
        if spread <= 1e-12 * level:  # what a sum of equal numbers loses by rounding is no spread
            return 1.0
        labels = self._modes(values[:, None] / spread, np.array([level / spread]))
        means = np.array([values[labels == j].mean() for j in range(labels.max() + 1)])
        # Settings that never vary would weigh infinitely much.
        return max(float(np.sqrt(np.square(values - means[labels]).mean())), 0.01 * spread)

    def _modes(self, X: Floats, level: Floats) -> Labels:
        """Return the cluster ``(n,)`` of each row of ``X (n, d)``, of as many as are separate."""
        seed = self._spec.seed if isinstance(self._spec, Clustered) else 0
        for k in range(min(self.size, len(X)), 1, -1):
            labels = cluster(X, k, seed)
            if labels is not None and _separate(X, labels, k, level):
                return labels
        return np.zeros(len(X), dtype=np.int64)

    def of(self, rows: Floats) -> Labels:
        """Return the regime ``(n,)`` of rows ``(n, C)``; -1 where it is not known."""
        own = rows[:, self.columns]
        whole = np.asarray(np.isfinite(own).all(axis=1), dtype=np.bool_)
        if not self.known:
            return np.full(len(rows), UNKNOWN)
        if self._limits:
            labels = np.zeros(len(rows), dtype=np.int64)
            for values, limits in zip(own.T, self._limits, strict=True):
                labels *= len(limits) + 1
                labels += np.searchsorted(limits, values, side="right")
        else:
            centres = self._centres[: self._found] / self._scale
            safe = np.where(whole[:, None], own, 0.0) / self._scale
            labels = _nearest(safe, centres)
        labels[~whole] = UNKNOWN
        return labels

    def arrays(self) -> Arrays:
        """Return the state, in arrays of fixed shape; none for declared regimes."""
        if self._limits:
            return {}
        return {"regime/centres": self._centres.copy(), "regime/scale": self._scale.copy()}

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        if self._limits:
            return
        self._centres = np.array(arrays["regime/centres"], dtype=np.float64)
        self._scale = np.array(arrays["regime/scale"], dtype=np.float64)
        self._found = int(np.isfinite(self._centres).all(axis=1).sum())


def cluster(X: Floats, k: int, seed: int) -> Labels | None:
    """Return the k-means cluster ``(n,)`` of each row of ``X (n, d)``; None if not k differ.

    >>> a, b, c, d = cluster(np.array([[0.0], [0.1], [5.0], [5.1]]), 2, seed=1)
    >>> bool(a == b != c == d)
    True
    """
    rng = np.random.default_rng(seed)
    best, least = None, math.inf
    for _ in range(STARTS):
        centres = _spread_out(X, k, rng)
        if centres is None:
            return None
        labels = _nearest(X, centres)
        for _ in range(ROUNDS):
            if np.bincount(labels, minlength=k).min() == 0:
                break
            centres = np.array([X[labels == j].mean(axis=0) for j in range(k)])
            moved = _nearest(X, centres)
            if np.array_equal(moved, labels):
                break
            labels = moved
        if np.bincount(labels, minlength=k).min() == 0:
            continue
        inertia = float(np.square(X - centres[labels]).sum())
        if inertia < least:
            best, least = labels, inertia
    return best


def _spread_out(X: Floats, k: int, rng: "np.random.Generator") -> Floats | None:
    """Return k rows ``(k, d)`` drawn far from each other; None if fewer differ."""
    centres = [X[rng.integers(len(X))]]
    while len(centres) < k:
        nearest = _squares(X, np.array(centres)).min(axis=1)
        total = np.cumsum(nearest)
        if total[-1] <= 0.0:
            return None
        drawn = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        centres.append(X[min(drawn, len(X) - 1)])
    return np.array(centres)


def _squares(X: Floats, centres: Floats) -> Floats:
    """Return squared distances ``(n, k)``; without BLAS, which may sum in another order."""
    total: Floats = np.square(X[:, None, :] - centres[None, :, :]).sum(axis=2)
    return total


def _nearest(X: Floats, centres: Floats) -> Labels:
    labels: Labels = _squares(X, centres).argmin(axis=1)
    return labels


def _separate(X: Floats, labels: Labels, k: int, level: Floats) -> bool:
    """Return whether clusters are regimes: large, and each well apart from each other."""
    if np.bincount(labels, minlength=k).min() < max(FEW, len(X) / 20.0):
        return False
    groups = [X[labels == j] for j in range(k)]
    for j, group in enumerate(groups):
        for other in groups[:j]:
            line = group.mean(axis=0) - other.mean(axis=0)
            if (np.abs(line) <= STEP * level).all():
                return False
            distance = math.sqrt(float((line * line).sum()))
            along = line / distance
            variances = [float((rows * along).sum(axis=1).var()) for rows in (group, other)]
            if distance < APART * math.sqrt(sum(variances) / 2.0):
                return False
    return True

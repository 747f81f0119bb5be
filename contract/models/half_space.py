"""Half-space trees on a shared seed: counts of healthy rows in boxes that are drawn, not learnt.

S. C. Tan, K. M. Ting and T. F. Liu, *Fast anomaly detection for streaming data*, IJCAI 2011. The
boxes follow from the spec alone, so that the masses in them are sums: they add over devices. The
paper exchanges two windows of masses; here what is old fades by ``decay``, and only what was judged
healthy is learnt: trees that learn all that comes soon find a fault normal.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import HalfSpace
from contract.models.draws import uniform
from contract.models.rows import filled
from contract.models.shares import by_absence

REACH = 4.0
"""Deviations each way that the boxes divide; what lies farther is in the outermost."""
FEW = 0.02
"""Share of all rows in a box below which it is not divided further."""
LIMIT = 4.0
"""How many times thinner than usual a row's boxes may be, before healthy scores are known."""


@lru_cache(maxsize=8)
def boxes(size: int, spec: HalfSpace) -> tuple[NDArray[np.int64], Floats]:
    """Return the column and the place of each cut ``(trees, 2 ** depth - 1)``, level by level."""
    inner = 2**spec.depth - 1
    draws = uniform(spec.seed, spec.trees * (inner + size)).reshape(spec.trees, inner + size)
    columns = np.minimum((draws[:, :inner] * size).astype(np.int64), size - 1)
    # The working range of the paper, about a centre drawn for each column of each tree.
    centre = draws[:, inner:]
    reach = 2.0 * np.maximum(centre, 1.0 - centre)
    low = np.zeros((2 * inner + 1, spec.trees, size))
    high = np.zeros_like(low)
    low[0], high[0] = centre - reach, centre + reach
    cuts = np.empty((spec.trees, inner))
    trees = np.arange(spec.trees)
    for node in range(inner):
        column = columns[:, node]
        middle = (low[node, trees, column] + high[node, trees, column]) / 2.0
        cuts[:, node] = middle
        for child in (2 * node + 1, 2 * node + 2):
            low[child], high[child] = low[node], high[node]
        high[2 * node + 1, trees, column] = middle
        low[2 * node + 2, trees, column] = middle
    return columns, (2.0 * cuts - 1.0) * REACH


def _paths(Z: Floats, spec: HalfSpace) -> NDArray[np.int64]:
    """Return the boxes that rows ``(n, F)`` lie in: ``(depth + 1, n, trees)``."""
    columns, cuts = boxes(Z.shape[1], spec)
    # By places in flat arrays: twice as fast as by two indices.
    trees = np.arange(spec.trees) * columns.shape[1]
    rows = np.arange(len(Z))[:, None] * Z.shape[1]
    flat = np.ascontiguousarray(Z).reshape(-1)
    columns, cuts = columns.reshape(-1), cuts.reshape(-1)
    paths = np.zeros((spec.depth + 1, len(Z), spec.trees), dtype=np.int64)
    for level in range(spec.depth):
        at = paths[level]
        cut = at + trees
        right = flat.take(columns.take(cut) + rows) >= cuts.take(cut)
        paths[level + 1] = 2 * at + 1 + right
    return paths


@dataclass(frozen=True, slots=True, eq=False)
class Masses:
    """What healthy rows weigh in each box.

    Attributes:
        spec: of the trees.
        n: rows.
        masses: ``(trees, 2 ** (depth + 1) - 1)``.
        size: columns of a row.

    >>> empty = Masses.empty(HalfSpace(trees=4, depth=3), 2)
    >>> one = empty.learn(np.array([[0.1, 0.2]]))
    >>> both = one.merge(empty.learn(np.array([[3.0, 3.0]])))
    >>> both.n, np.array_equal(both.withdraw(one).merge(one).masses, both.masses)
    (2.0, True)
    """

    spec: HalfSpace
    n: float
    masses: Floats
    size: int

    @classmethod
    def empty(cls, spec: HalfSpace, size: int) -> "Masses":
        """Return the masses of nothing."""
        return cls(spec, 0.0, np.zeros((spec.trees, 2 ** (spec.depth + 1) - 1)), size)

    @classmethod
    def from_arrays(cls, spec: HalfSpace, arrays: Arrays, prefix: str) -> "Masses":
        """Read back what ``arrays`` wrote."""
        n, size = (float(v) for v in arrays[prefix + "n"])
        return cls(spec, n, np.asarray(arrays[prefix + "masses"], dtype=np.float64), int(size))

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {
            prefix + "n": np.array([self.n, float(self.size)]),
            prefix + "masses": self.masses,
        }

    def learn(self, Z: Floats) -> "Masses":
        """Return the masses with rows ``(n, F)`` in them; a column that is NaN says nothing."""
        if not len(Z):
            return self
        Z, _ = filled(Z)
        masses = self.masses.copy()
        trees = np.arange(self.spec.trees) * masses.shape[1]
        np.add.at(masses.reshape(-1), (_paths(Z, self.spec) + trees).reshape(-1), 1.0)
        return Masses(self.spec, self.n + len(Z), masses, self.size)

    def merge(self, other: "Masses") -> "Masses":
        """Return the masses of both sets of rows."""
        return Masses(self.spec, self.n + other.n, self.masses + other.masses, self.size)

    def withdraw(self, other: "Masses") -> "Masses":
        """Return the masses of the rows that are in ``self`` and not in ``other``."""
        if other.n > self.n:
            raise ContractError("cannot withdraw more rows than were merged")
        return Masses(self.spec, self.n - other.n, self.masses - other.masses, self.size)

    def decay(self, factor: float) -> "Masses":
        """Return the masses with all rows so far counting for less."""
        return Masses(self.spec, self.n * factor, self.masses * factor, self.size)

    def solve(self) -> "HalfSpaceModel":
        """Return what scores by these masses."""
        n = max(self.n, 1.0)
        levels = np.floor(np.log2(np.arange(1, self.masses.shape[1] + 1)))
        share = self.masses / n
        ends = _ends(share, self.spec.depth)
        # What a healthy row finds in its box, on the whole: its own kind, times how small it is.
        usual = float((np.where(ends, share**2 * 2.0**levels, 0.0)).sum(axis=1).mean())
        return HalfSpaceModel(self.spec, share, max(usual, 1e-12))

    def problem(self) -> str:
        """Return what cannot be in these masses, in words; empty: nothing."""
        if self.masses.min(initial=0.0) < 0:
            return "a mass is negative"
        inner = 2**self.spec.depth - 1
        parents = self.masses[:, :inner]
        children = self.masses[:, 1::2] + self.masses[:, 2::2]
        if not np.allclose(parents, children, rtol=1e-9, atol=1e-6):
            return "the halves of a box do not weigh what it weighs"
        if not np.allclose(self.masses[:, 0], self.n, rtol=1e-9, atol=1e-6):
            return "a tree does not weigh what there are rows"
        return ""


def _ends(share: Floats, depth: int) -> NDArray[np.bool_]:
    """Return which boxes are not divided further: the first on a path that holds few rows."""
    ends = share <= FEW
    ends[:, 2**depth - 1 :] = True
    inside = np.zeros_like(ends)
    for node in range(1, share.shape[1]):
        parent = (node - 1) // 2
        inside[:, node] = inside[:, parent] | ends[:, parent]
    result: NDArray[np.bool_] = ends & ~inside
    return result


@dataclass(frozen=True, slots=True, eq=False)
class HalfSpaceModel:
    """Scores rows by how thinly healthy ones lie where they lie: 1 is the limit.

    Attributes:
        spec: of the trees.
        share: of the healthy rows in each box ``(trees, nodes)``.
        usual: what a healthy row finds on the whole.
    """

    spec: HalfSpace
    share: Floats
    usual: float

    @classmethod
    def from_arrays(cls, spec: HalfSpace, arrays: Arrays, prefix: str) -> "HalfSpaceModel":
        """Read back what ``arrays`` wrote."""
        share = np.asarray(arrays[prefix + "share"], dtype=np.float64)
        return cls(spec, share, float(arrays[prefix + "usual"]))

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "share": self.share, prefix + "usual": np.array(self.usual)}

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``, each the same whatever others there are."""
        paths = _paths(Z, self.spec)
        share = self.share.reshape(-1).take(
            paths + np.arange(self.spec.trees) * self.share.shape[1]
        )
        end = share <= FEW
        end[-1] = True
        level = end.argmax(axis=0)
        found = np.take_along_axis(share, level[None], axis=0)[0] * 2.0**level
        density = np.einsum("nt->n", found) / self.spec.trees
        scores: Floats = self.usual / (density + 1e-3 * self.usual) / LIMIT
        return scores

    def shares(self, z: Floats) -> Floats:
        """Return each column's share of a row's score: what would be gone if it were normal."""
        return by_absence(self, z)

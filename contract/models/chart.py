"""A control chart for each column: how far the farthest is from its healthy mean.

W. A. Shewhart 1931 on plain statistics; on ``ewma_N`` it is S. W. Roberts' chart (*Control chart
tests based on geometric moving averages*, Technometrics 1(3), 1959), with a width that is measured
and not taken from a table, since readings that follow each other are alike.
"""

from dataclasses import dataclass

import numpy as np

from contract.arrays import Arrays, Floats
from contract.model_spec import Chart
from contract.models.moments import Moments, normal_quantile, spread
from contract.models.rows import filled


@dataclass(frozen=True, slots=True, eq=False)
class ChartSums:
    """Moments of each column by itself: all that a chart needs.

    Attributes:
        spec: of the chart.
        moments: diagonal.
    """

    spec: Chart
    moments: Moments

    @classmethod
    def empty(cls, spec: Chart, size: int) -> "ChartSums":
        """Return the sums of nothing."""
        return cls(spec, Moments.empty(size, diagonal=True))

    @classmethod
    def from_arrays(cls, spec: Chart, arrays: Arrays, prefix: str) -> "ChartSums":
        """Read back what ``arrays`` wrote."""
        return cls(spec, Moments.from_arrays(arrays, prefix))

    @property
    def n(self) -> float:
        """Return how many rows are in it."""
        return self.moments.n

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return self.moments.arrays(prefix)

    def learn(self, Z: Floats) -> "ChartSums":
        """Return the sums with rows ``(n, F)`` in them; a column that is NaN says nothing."""
        return ChartSums(self.spec, self.moments.merge(_of(Z)))

    def merge(self, other: "ChartSums") -> "ChartSums":
        """Return the sums of both sets of rows."""
        return ChartSums(self.spec, self.moments.merge(other.moments))

    def withdraw(self, other: "ChartSums") -> "ChartSums":
        """Return the sums of the rows that are in ``self`` and not in ``other``."""
        return ChartSums(self.spec, self.moments.withdraw(other.moments))

    def decay(self, factor: float) -> "ChartSums":
        """Return the sums with all rows so far counting for less."""
        return ChartSums(self.spec, self.moments.decay(factor))

    def solve(self) -> "ChartModel":
        """Return what scores by these sums; the limit is that of as many columns as there are."""
        moments, spec = self.moments, self.spec
        if spec.limit:
            size = len(moments.mean)
            # What never moved has no deviations of its own: its z is 0, whatever the limit.
            return ChartModel(np.zeros(size), np.full(size, spec.limit), spec.power)
        tail = self.spec.alarm_rate / (2.0 * len(moments.mean))
        limit = normal_quantile(1.0 - tail)
        width = spread(moments.variance(), moments.mean) * limit
        return ChartModel(moments.mean, width, spec.power)

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        return "scatter is negative" if self.moments.scatter.min(initial=0.0) < 0 else ""


def _of(Z: Floats) -> Moments:
    Z, absent = filled(Z)
    own = Moments.of(Z, diagonal=True)
    own.scatter[absent] += own.n  # it is taken to vary as standardised ones do
    return own


@dataclass(frozen=True, slots=True, eq=False)
class ChartModel:
    """Scores rows by the column that is farthest out, or by several together: 1 is the limit.

    Attributes:
        mean: of each column ``(F,)``.
        limit: how far from it is the limit ``(F,)``; infinite for one that never moved.
        power: see ``contract.model_spec.Chart``.
    """

    mean: Floats
    limit: Floats
    power: int = 0

    @classmethod
    def from_arrays(cls, spec: Chart, arrays: Arrays, prefix: str) -> "ChartModel":
        """Read back what ``arrays`` wrote."""
        return cls(
            np.asarray(arrays[prefix + "mean"], dtype=np.float64),
            np.asarray(arrays[prefix + "limit"], dtype=np.float64),
            spec.power,
        )

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "mean": self.mean, prefix + "limit": self.limit}

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``."""
        parts = np.abs((Z - self.mean) / self.limit)
        worst: Floats = parts.max(axis=1)
        if not self.power:
            return worst
        # Over the largest: no power of it overflows.
        over = parts / np.where(worst > 0, worst, 1.0)[:, None]
        over *= over
        if self.power == 4:
            over *= over
        root: Floats = np.sqrt(np.einsum("nf->n", over))
        return worst * (np.sqrt(root) if self.power == 4 else root)

    def shares(self, z: Floats) -> Floats:
        """Return each column's share: its own deviation, squared, over the sum of all.

        Where they come together by another power, that in place of the square.
        """
        squared = ((z - self.mean) / self.limit) ** 2
        if self.power == 4:
            squared *= squared
        total = squared.sum()
        shares: Floats = squared / total if total > 0 else squared
        return shares

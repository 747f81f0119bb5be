"""How far out each column has been, as counts: what is farther than nearly all there was is rare.

For single quantities of which nothing is known: no shape is assumed, and one column's scale is none
of another's. Counts in logarithmic bins add (see ``contract.models.histogram``).
"""

from dataclasses import dataclass

import numpy as np

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Extremes
from contract.models.histogram import BINS, HIGH, LOW
from contract.models.rows import filled

_RATIO = np.log(HIGH / LOW) / BINS


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """Counts of how far columns were from their mean.

    Attributes:
        spec: of the model.
        rows: how many were learnt.
        counts: of each column ``(F, BINS)``.
    """

    spec: Extremes
    rows: float
    counts: Floats

    @classmethod
    def empty(cls, spec: Extremes, size: int) -> "Tails":
        """Return the counts of nothing."""
        return cls(spec, 0.0, np.zeros((size, BINS)))

    @classmethod
    def from_arrays(cls, spec: Extremes, arrays: Arrays, prefix: str) -> "Tails":
        """Read back what ``arrays`` wrote."""
        counts = np.asarray(arrays[prefix + "counts"], dtype=np.float64)
        return cls(spec, float(arrays[prefix + "rows"]), counts)

    @property
    def n(self) -> float:
        """Return how many rows are in it."""
        return self.rows

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "rows": np.array(self.rows), prefix + "counts": self.counts}

    def learn(self, Z: Floats) -> "Tails":
        """Return the counts with rows ``(n, F)`` in them; a column that is NaN is not counted."""
        Z, absent = filled(Z)
        counts = self.counts.copy()
        bins = np.log(np.maximum(np.abs(Z), LOW) / LOW) / _RATIO
        at = np.minimum(bins.astype(np.int64), BINS - 1)
        for c in np.flatnonzero(~absent).tolist():
            counts[c] += np.bincount(at[:, c], minlength=BINS)
        return Tails(self.spec, self.rows + len(Z), counts)

    def merge(self, other: "Tails") -> "Tails":
        """Return the counts of both sets of rows."""
        return Tails(self.spec, self.rows + other.rows, self.counts + other.counts)

    def withdraw(self, other: "Tails") -> "Tails":
        """Return the counts of the rows that are in ``self`` and not in ``other``."""
        if self.rows < other.rows:
            raise ContractError("cannot withdraw more rows than were merged")
        counts = np.maximum(self.counts - other.counts, 0.0)
        return Tails(self.spec, self.rows - other.rows, counts)

    def decay(self, factor: float) -> "Tails":
        """Return the counts with all rows so far counting for less."""
        return Tails(self.spec, self.rows * factor, self.counts * factor)

    def solve(self) -> "ExtremesModel":
        """Return what scores by these counts; a column that was never counted says nothing."""
        sums = np.cumsum(self.counts, axis=1)
        total = sums[:, -1]
        beyond = sums >= ((1.0 - self.spec.tail) * total)[:, None]
        scale = LOW * np.exp((beyond.argmax(axis=1) + 1) * _RATIO)
        return ExtremesModel(np.where(total > 0, scale * self.spec.margin, np.inf))

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        if min(self.rows, self.counts.min(initial=0.0)) < 0:
            return "a count is negative"
        most = self.counts.sum(axis=1).max(initial=0.0)
        return "more is counted than there were rows" if most > self.rows * (1 + 1e-9) else ""


@dataclass(frozen=True, slots=True, eq=False)
class ExtremesModel:
    """Scores rows by the column that is rarest: 1 is the limit.

    Attributes:
        limit: of each column ``(F,)``; infinite: it says nothing.
    """

    limit: Floats

    @classmethod
    def from_arrays(cls, _spec: Extremes, arrays: Arrays, prefix: str) -> "ExtremesModel":
        """Read back what ``arrays`` wrote."""
        return cls(np.asarray(arrays[prefix + "limit"], dtype=np.float64))

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""
        return {prefix + "limit": self.limit}

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``."""
        scores: Floats = (np.abs(Z) / self.limit).max(axis=1)
        return scores

    def shares(self, z: Floats) -> Floats:
        """Return each column's share: its own excess, squared, over the sum of all."""
        squared = np.square(z / self.limit)
        total = squared.sum()
        shares: Floats = squared / total if total > 0 else squared
        return shares

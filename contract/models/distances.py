"""Where the limit of a distance lies, from sums: G. E. P. Box's approximation of 1954."""

from dataclasses import dataclass

import numpy as np

from contract.arrays import Floats
from contract.models.moments import chi2_quantile


@dataclass(frozen=True, slots=True)
class Distances:
    """Squared distances of healthy rows, as sums: of them and of their squares.

    Attributes:
        n: how many.
        first: their sum.
        second: the sum of their squares.
    """

    n: float = 0.0
    first: float = 0.0
    second: float = 0.0

    @classmethod
    def of(cls, squared: Floats) -> "Distances":
        """Return the sums of some squared distances ``(n,)``."""
        return cls(float(len(squared)), float(squared.sum()), float(np.square(squared).sum()))

    def merge(self, other: "Distances") -> "Distances":
        """Return the sums of both."""
        return Distances(self.n + other.n, self.first + other.first, self.second + other.second)

    def withdraw(self, other: "Distances") -> "Distances":
        """Return the sums without those of ``other``."""
        second = max(self.second - other.second, 0.0)
        return Distances(self.n - other.n, self.first - other.first, second)

    def decay(self, factor: float) -> "Distances":
        """Return the sums with all so far counting for less."""
        return Distances(self.n * factor, self.first * factor, self.second * factor)

    def limit(self, rate: float) -> float:
        """Return the squared distance that a share ``rate`` of healthy rows exceed.

        As if it were g times a chi-square of h degrees of freedom, of the same mean and variance.

        >>> d = np.random.default_rng(1).chisquare(5, 100_000)
        >>> round(Distances.of(d).limit(0.01), 1)        # the tables say 15.1
        15.0
        """
        if self.n < 2 or self.first <= 0:
            return 1.0
        mean = self.first / self.n
        variance = max(self.second / self.n - mean**2, 1e-9 * mean**2)
        return variance / (2.0 * mean) * chi2_quantile(1.0 - rate, 2.0 * mean**2 / variance)

    def array(self) -> Floats:
        """Return the three numbers."""
        return np.array([self.n, self.first, self.second])

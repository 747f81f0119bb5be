"""Gaussian naive Bayes: which kind of fault, from the moments of each kind's vectors. All sums.

As scikit-learn's ``GaussianNB``, whose state is sums as well: each kind's count, means and
variances, with a share of the largest variance added to all so that none is nothing.
"""

from dataclasses import dataclass

import numpy as np

from contract.arrays import Arrays, Floats
from contract.models.moments import Moments

FLOOR = 1e-2
"""Added to each variance, as a share of the largest: few vectors of a kind look alike by chance."""


@dataclass(frozen=True, slots=True, eq=False)
class KindMoments:
    """Diagonal moments of each kind's vectors.

    Attributes:
        kinds: one ``Moments`` each.

    >>> Z = np.array([[0.0, 1.0], [0.2, 1.1], [5.0, 0.0], [5.2, 0.3]])
    >>> learnt = KindMoments.empty(2, 2).learn(Z, np.array([0, 0, 1, 1]))
    >>> learnt.solve().probabilities(np.array([[5.1, 0.2]])).round(3).tolist()
    [[0.0, 1.0]]
    """

    kinds: tuple[Moments, ...]

    @classmethod
    def empty(cls, size: int, kinds: int) -> "KindMoments":
        """Return the moments of nothing."""
        return cls(tuple(Moments.empty(size, diagonal=True) for _ in range(kinds)))

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> "KindMoments":
        """Read back what ``arrays`` wrote."""
        n = np.asarray(arrays[prefix + "n"], dtype=np.float64)
        mean = np.asarray(arrays[prefix + "mean"], dtype=np.float64)
        scatter = np.asarray(arrays[prefix + "scatter"], dtype=np.float64)
        return cls(tuple(Moments(float(n[k]), mean[k], scatter[k]) for k in range(len(n))))

    @property
    def n(self) -> float:
        """Return how many vectors are in it."""
        return sum(kind.n for kind in self.kinds)

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {
            prefix + "n": np.array([kind.n for kind in self.kinds]),
            prefix + "mean": np.stack([kind.mean for kind in self.kinds]),
            prefix + "scatter": np.stack([kind.scatter for kind in self.kinds]),
        }

    def learn(self, Z: Floats, labels: np.ndarray) -> "KindMoments":
        """Return the moments with rows ``(n, F)`` of kinds ``(n,)`` in them."""
        return KindMoments(
            tuple(
                kind.merge(Moments.of(Z[labels == k], diagonal=True))
                for k, kind in enumerate(self.kinds)
            )
        )

    def merge(self, other: "KindMoments") -> "KindMoments":
        """Return the moments of both."""
        pairs = zip(self.kinds, other.kinds, strict=True)
        return KindMoments(tuple(one.merge(two) for one, two in pairs))

    def withdraw(self, other: "KindMoments") -> "KindMoments":
        """Return the moments without those of ``other``."""
        pairs = zip(self.kinds, other.kinds, strict=True)
        return KindMoments(tuple(one.withdraw(two) for one, two in pairs))

    def decay(self, factor: float) -> "KindMoments":
        """Return the moments with all so far counting for less."""
        return KindMoments(tuple(kind.decay(factor) for kind in self.kinds))

    def solve(self) -> "NaiveBayes":
        """Return what tells kinds apart; a kind without vectors is never told."""
        variances = np.stack([kind.variance() for kind in self.kinds])
        n = np.array([kind.n for kind in self.kinds])
        largest = max(float(variances[n > 0].max(initial=0.0)), 1e-12)
        means = np.stack([kind.mean for kind in self.kinds])
        with np.errstate(divide="ignore"):
            prior = np.log(n / max(n.sum(), 1.0))
        return NaiveBayes(means, variances + FLOOR * largest, prior)


@dataclass(frozen=True, slots=True, eq=False)
class NaiveBayes:
    """Tells the probability of each kind.

    Attributes:
        means: ``(K, F)``.
        variances: ``(K, F)``.
        prior: logarithm of each kind's share ``(K,)``; minus infinity: never seen.
    """

    means: Floats
    variances: Floats
    prior: Floats

    def probabilities(self, Z: Floats) -> Floats:
        """Return the probability of each kind ``(n, K)`` for rows ``(n, F)``."""
        apart = Z[:, None, :] - self.means
        fit = np.square(apart) / self.variances + np.log(2.0 * np.pi * self.variances)
        return softmax(self.prior - 0.5 * np.einsum("nkf->nk", fit))


def softmax(logits: Floats) -> Floats:
    """Return probabilities ``(n, K)`` for logits; where all are minus infinity, all alike."""
    top = logits.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(logits - top)
    total = weights.sum(axis=1, keepdims=True)
    even = np.full_like(weights, 1.0 / weights.shape[1])
    result: Floats = np.divide(weights, total, out=even, where=total > 0)
    return result

"""Moments that merge exactly, and what they say: Hotelling's T², SPE and who contributes.

T² and SPE as in MacGregor and Kourti, *Statistical process control of multivariate processes*,
Control Engineering Practice 3(3), 1995. Merging as in Chan, Golub and LeVeque, *Updating formulae
and a pairwise algorithm for computing sample variances*, 1979: no cancellation at large offsets.
"""

from dataclasses import dataclass

import numpy as np

from contract.arrays import Arrays, Floats
from contract.errors import ContractError


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count, mean ``(F,)`` and scatter about the mean, ``(F, F)`` or its diagonal ``(F,)``.

    >>> X = np.array([[1.0, 2.0], [3.0, 5.0], [8.0, 1.0]])
    >>> both = Moments.of(X[:2]).merge(Moments.of(X[2:]))
    >>> bool(np.allclose(both.scatter, Moments.of(X).scatter))
    True
    >>> bool(np.allclose(both.withdraw(Moments.of(X[2:])).mean, X[:2].mean(axis=0)))
    True
    """

    n: float
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, size: int, *, diagonal: bool = False) -> "Moments":
        """Return the moments of nothing."""
        return cls(0.0, np.zeros(size), np.zeros(size) if diagonal else np.zeros((size, size)))

    @classmethod
    def of(cls, X: Floats, *, diagonal: bool = False) -> "Moments":
        """Return the moments of the rows of ``X`` ``(n, F)``."""
        if not len(X):
            return cls.empty(X.shape[1], diagonal=diagonal)
        mean = X.mean(axis=0)
        centred = X - mean
        scatter = (centred**2).sum(axis=0) if diagonal else centred.T @ centred
        return cls(float(len(X)), mean, scatter)

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> "Moments":
        """Read back what ``arrays`` wrote."""
        return cls(
            float(arrays[prefix + "n"]),
            np.asarray(arrays[prefix + "mean"], dtype=np.float64),
            np.asarray(arrays[prefix + "scatter"], dtype=np.float64),
        )

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {
            prefix + "n": np.array(self.n),
            prefix + "mean": self.mean,
            prefix + "scatter": self.scatter,
        }

    def _outer(self, delta: Floats) -> Floats:
        return delta**2 if self.scatter.ndim == 1 else np.outer(delta, delta)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows."""
        n = self.n + other.n
        if not n:
            return self
        delta = other.mean - self.mean
        return Moments(
            n,
            self.mean + delta * (other.n / n),
            self.scatter + other.scatter + self._outer(delta) * (self.n * other.n / n),
        )

    def withdraw(self, other: "Moments") -> "Moments":
        """Return the moments of the rows that are in ``self`` and not in ``other``."""
        n = self.n - other.n
        if n < 0:
            raise ContractError("cannot withdraw more rows than were merged")
        if not n:
            return Moments(0.0, np.zeros_like(self.mean), np.zeros_like(self.scatter))
        mean = (self.mean * self.n - other.mean * other.n) / n
        delta = other.mean - mean
        scatter = self.scatter - other.scatter - self._outer(delta) * (n * other.n / self.n)
        return Moments(n, mean, scatter)

    def decay(self, factor: float) -> "Moments":
        """Return the moments with all rows so far counting for less."""
        return Moments(self.n * factor, self.mean, self.scatter * factor)

    def variance(self) -> Floats:
        """Return the variance of each column ``(F,)``."""
        diagonal = self.scatter if self.scatter.ndim == 1 else np.diagonal(self.scatter)
        return np.maximum(diagonal, 0.0) / max(self.n, 1.0)


def spread(variance: Floats, mean: Floats) -> Floats:
    """Return standard deviations, infinite where a column never moved.

    Dividing by infinity makes a constant column say nothing, in place of a division by zero; a
    variance below the rounding of its mean is no variance.
    """
    sd = np.sqrt(np.maximum(variance, 0.0))
    return np.where(sd > 1e-9 * np.maximum(1.0, np.abs(mean)), sd, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class HealthModel:
    """Scores standardised vectors: 1 is the limit of what healthy machines do; higher is worse.

    Attributes:
        axes: ``(F, k)`` principal axes.
        variances: ``(k,)`` along them.
        t2_limit: of Hotelling's T².
        spe_limit: of the squared prediction error.
    """

    axes: Floats
    variances: Floats
    t2_limit: float
    spe_limit: float

    @classmethod
    def solve(cls, moments: Moments, *, variance: float, alarm_rate: float) -> "HealthModel":
        """Fit the principal subspace that explains a share ``variance`` of the variance.

        The limits are those of a normal population; the agent corrects them by what its own
        healthy scores turn out to be. A tenth of the mean variance is added to each column, as if
        it were measurement noise: with few rows the smallest axes would otherwise be noise alone.
        """
        size = len(moments.mean)
        covariance = moments.scatter / max(moments.n, 1.0)
        shrink = 0.1 * max(float(np.trace(covariance)) / size, 1e-12)
        covariance = covariance + shrink * np.eye(size)
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        share = np.cumsum(values) / values.sum()
        k = min(int(np.searchsorted(share, variance)) + 1, size)
        rest = values[k:]
        t2_limit = chi2_quantile(1 - alarm_rate, k)
        spe_limit = 1.0
        if rest.size:
            # Box 1954: a sum of weighted chi-squares is near g·chi2(h).
            theta1, theta2 = float(rest.sum()), float((rest**2).sum())
            spe_limit = theta2 / theta1 * chi2_quantile(1 - alarm_rate, theta1**2 / theta2)
        return cls(np.ascontiguousarray(vectors[:, :k]), values[:k].copy(), t2_limit, spe_limit)

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> "HealthModel":
        """Read back what ``arrays`` wrote."""
        t2_limit, spe_limit = (float(v) for v in arrays[prefix + "limits"])
        return cls(
            np.asarray(arrays[prefix + "axes"], dtype=np.float64),
            np.asarray(arrays[prefix + "variances"], dtype=np.float64),
            t2_limit,
            spe_limit,
        )

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {
            prefix + "axes": self.axes,
            prefix + "variances": self.variances,
            prefix + "limits": np.array([self.t2_limit, self.spe_limit]),
        }

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``.

        The larger of T² and SPE, each over its limit, as a square root, so that a deviation twice
        as large scores twice as high.
        Each row's score is the same to the last bit whatever rows it is scored with; a product by
        BLAS would round otherwise for another number of rows.
        """
        along = np.einsum("nf,fk->nk", Z, self.axes)
        residual = Z - np.einsum("nk,fk->nf", along, self.axes)
        t2 = np.einsum("nk,nk->n", along, along / self.variances)
        spe = np.einsum("nf,nf->n", residual, residual)
        worse: Floats = np.sqrt(np.maximum(t2 / self.t2_limit, spe / self.spe_limit))
        return worse

    def score(self, z: Floats) -> tuple[float, Floats]:
        """Score one standardised vector ``(F,)``; returns ``score_rows`` and ``shares`` of it."""
        return float(self.score_rows(z[None, :])[0]), self.shares(z)

    def shares(self, z: Floats) -> Floats:
        """Return each column's share of the score of a vector ``(F,)``.

        The columns' terms of T² or SPE, whichever is larger over its limit, over their sum;
        negative terms of T² as zero.
        """
        along = self.axes.T @ z
        weighted = along / self.variances
        residual = z - self.axes @ along
        squared = residual * residual
        t2, spe = float(along @ weighted) / self.t2_limit, float(squared.sum()) / self.spe_limit
        terms = np.maximum(z * (self.axes @ weighted), 0.0) if t2 > spe else squared
        total = terms.sum()
        return terms / total if total > 0 else terms


def chi2_quantile(p: float, dof: float) -> float:
    """Return the quantile of chi-square (Wilson and Hilferty 1931; within 1 % from 1 dof on).

    >>> round(chi2_quantile(0.999, 10), 1)        # the tables say 29.59
    29.8
    """
    z = normal_quantile(p)
    a = 2.0 / (9.0 * dof)
    return float(dof * max(1.0 - a + z * np.sqrt(a), 0.0) ** 3)


def normal_quantile(p: float) -> float:
    """Return the quantile of the standard normal distribution."""
    from statistics import NormalDist  # noqa: PLC0415  # 5 ms that only solving needs

    return NormalDist().inv_cdf(p)

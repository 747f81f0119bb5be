"""What a machine does next, told from what it did: residuals of a vector autoregression, charted.

Readings that follow each other are alike, so that a deviation says less by its size than by its
coming unannounced. Of the residual three kinds of charts: its T² now (jumps), T² of its EWMA (a
mean that moved a little and stays: MEWMA, C. A. Lowry et al., *A multivariate exponentially
weighted moving average control chart*, Technometrics 34(1), 1992), and an EWMA of its T² (it varies
more). The regression is solved from moments of vectors beside those before them, which are sums.

Limits follow from how rows scored that a model had not learnt: the beginning is cut into blocks,
and each scored by a model of the others. In-sample residuals of so many coefficients would flatter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.model_spec import Lagged
from contract.models.distances import Distances
from contract.models.moments import Moments, chi2_quantile
from contract.models.rows import filled

FOLDS = 10
"""Blocks of a beginning, each scored by a model of the others."""
WARM = 20
"""First rows of a beginning whose charts are still settling, which make no limit."""
ROUNDING = 1e-9


def stacked(spec: Lagged, Z: Floats) -> Floats:
    """Return rows ``(n, F)`` that follow each other beside those before: ``(n - lags, S)``.

    >>> stacked(Lagged(lags=1), np.array([[1.0], [2.0], [4.0]])).tolist()
    [[2.0, 1.0], [4.0, 2.0]]
    """
    n = len(Z) - spec.lags
    if n <= 0:
        return np.empty((0, Z.shape[1] * (spec.lags + 1)))
    return np.hstack([Z[spec.lags - i : spec.lags - i + n] for i in range(spec.lags + 1)])


def charts(spec: Lagged) -> int:
    """Return how many charts there are."""
    return 1 + 2 * len(spec.weights)


def memory_size(spec: Lagged, size: int) -> int:
    """Return the length of what a model of ``size`` columns remembers of one asset."""
    return 1 + size * (spec.lags + 2 + len(spec.weights)) + len(spec.weights) + charts(spec)


@dataclass(frozen=True, slots=True, eq=False)
class LaggedSums:
    """Moments of vectors beside those before them, and how unlearnt ones scored.

    Attributes:
        spec: of the model.
        moments: of rows ``(n, S)``, see ``stacked``.
        unlearnt: of each chart, the scores of rows by models that had not learnt them.
    """

    spec: Lagged
    moments: Moments
    unlearnt: tuple[Distances, ...]

    @classmethod
    def empty(cls, spec: Lagged, size: int) -> "LaggedSums":
        """Return the sums of nothing."""
        nothing = tuple(Distances() for _ in range(charts(spec)))
        return cls(spec, Moments.empty(size * (spec.lags + 1)), nothing)

    @classmethod
    def from_arrays(cls, spec: Lagged, arrays: Arrays, prefix: str) -> "LaggedSums":
        """Read back what ``arrays`` wrote."""
        table = np.asarray(arrays[prefix + "unlearnt"], dtype=np.float64)
        unlearnt = tuple(Distances(*row) for row in table.tolist())
        return cls(spec, Moments.from_arrays(arrays, prefix), unlearnt)

    @property
    def n(self) -> float:
        """Return how many rows are in it."""
        return self.moments.n

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        table = np.stack([one.array() for one in self.unlearnt])
        return {**self.moments.arrays(prefix), prefix + "unlearnt": table}

    def learn(self, Z: Floats) -> "LaggedSums":
        """Return the sums with rows ``(n, S)`` in them, see ``stacked``.

        Many at once are a beginning: they also say how high what was not learnt scores.
        """
        Z, absent = filled(Z)
        moments = self.moments.merge(_of(Z, absent))
        unlearnt = self.unlearnt
        if len(Z) >= WARM + 3 * FOLDS:
            scored = self._scored(Z, absent)[WARM:]
            unlearnt = tuple(
                one.merge(Distances.of(scored[:, i])) for i, one in enumerate(unlearnt)
            )
        return LaggedSums(self.spec, moments, unlearnt)

    def _scored(self, Z: Floats, absent: NDArray[np.bool_]) -> Floats:
        """Return what the charts say of rows, each by a model of the other blocks."""
        n, size = len(Z), Z.shape[1] // (self.spec.lags + 1)
        found = np.empty((n, charts(self.spec)))
        for fold in range(FOLDS):
            begin, end = fold * n // FOLDS, (fold + 1) * n // FOLDS
            others = np.concatenate([Z[:begin], Z[end:]])
            model = _solve(self.spec, self.moments.merge(_of(others, absent)), self.unlearnt)
            memory = np.zeros(memory_size(self.spec, size))
            for i in range(end):
                memory = model.follow(memory, Z[i, :size])
                if i >= begin:
                    found[i] = memory[-charts(self.spec) :]
        return found

    def merge(self, other: "LaggedSums") -> "LaggedSums":
        """Return the sums of both sets of rows."""
        pairs = zip(self.unlearnt, other.unlearnt, strict=True)
        unlearnt = tuple(a.merge(b) for a, b in pairs)
        return LaggedSums(self.spec, self.moments.merge(other.moments), unlearnt)

    def withdraw(self, other: "LaggedSums") -> "LaggedSums":
        """Return the sums of the rows that are in ``self`` and not in ``other``."""
        pairs = zip(self.unlearnt, other.unlearnt, strict=True)
        moments = self.moments.withdraw(other.moments)
        return LaggedSums(self.spec, moments, tuple(a.withdraw(b) for a, b in pairs))

    def decay(self, factor: float) -> "LaggedSums":
        """Return the sums with all rows so far counting for less."""
        unlearnt = tuple(one.decay(factor) for one in self.unlearnt)
        return LaggedSums(self.spec, self.moments.decay(factor), unlearnt)

    def solve(self) -> "LaggedModel":
        """Return what scores by these sums."""
        return _solve(self.spec, self.moments, self.unlearnt)

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        scatter = self.moments.scatter
        scale = np.abs(scatter).max(initial=0.0)
        if not np.allclose(scatter, scatter.T, rtol=ROUNDING, atol=ROUNDING * scale):
            return "scatter is not symmetric"
        values = np.linalg.eigvalsh(scatter)
        if values[0] < -ROUNDING * max(float(values[-1]), 0.0):
            return "scatter is not positive-semidefinite"
        wrong = min(float(one.array().min()) for one in self.unlearnt) < 0
        return "a score is negative" if wrong else ""


def _of(Z: Floats, absent: NDArray[np.bool_]) -> Moments:
    own = Moments.of(Z)
    at = np.flatnonzero(absent)
    own.scatter[at, at] += own.n  # it is taken to vary as standardised ones do
    return own


def _solve(spec: Lagged, moments: Moments, unlearnt: tuple[Distances, ...]) -> "LaggedModel":
    size = len(moments.mean) // (spec.lags + 1)
    covariance = moments.scatter / max(moments.n, 1.0)
    now, past = covariance[:size, size:], covariance[size:, size:]
    ridge = past + spec.penalty * np.eye(len(past))
    weights = np.asarray(np.linalg.solve(ridge, now.T), dtype=np.float64)
    residual = covariance[:size, :size] - now @ weights - weights.T @ now.T
    residual += weights.T @ past @ weights
    diagonal = np.maximum(np.diagonal(residual), 1e-12)
    residual = (1.0 - spec.shrink) * (residual + residual.T) / 2.0
    residual += spec.shrink * np.diag(diagonal) + 1e-12 * np.eye(size)
    usual, limits = _limits(spec, size, unlearnt)
    intercept = moments.mean[:size] - moments.mean[size:] @ weights
    precision = np.asarray(np.linalg.inv(residual), dtype=np.float64)
    return LaggedModel(spec, weights, intercept, precision, usual, limits)


def _limits(spec: Lagged, size: int, unlearnt: tuple[Distances, ...]) -> tuple[float, Floats]:
    """Return the mean of T², and each chart's limit: a scaled chi-square's (Box 1954).

    By how unlearnt rows scored; before any did, those of white residuals.
    """
    rate = spec.alarm_rate / charts(spec)
    if unlearnt[0].n > 1:
        usual = unlearnt[0].first / unlearnt[0].n
        return usual, np.array([one.limit(rate) for one in unlearnt])
    limits = [chi2_quantile(1.0 - rate, size)]
    for weight in spec.weights:
        scale = weight / (2.0 - weight)
        limits += [limits[0], scale * chi2_quantile(1.0 - rate, size / scale)]
    return float(size), np.array(limits)


@dataclass(frozen=True, slots=True, eq=False)
class LaggedModel:
    """Scores what it remembers of an asset: 1 is the limit.

    A memory ``(M,)`` is: how many vectors followed each other, these newest first ``(S,)``, the
    newest residual ``(F,)``, its EWMAs, EWMAs of T², and what the charts say. Zeros: nothing.

    Attributes:
        spec: of the model.
        weights: of the vectors before ``(lags * F, F)``.
        intercept: ``(F,)``.
        precision: inverse of the residual's covariance ``(F, F)``.
        usual: mean of T².
        limits: of each chart.
    """

    spec: Lagged
    weights: Floats
    intercept: Floats
    precision: Floats
    usual: float
    limits: Floats

    @classmethod
    def from_arrays(cls, spec: Lagged, arrays: Arrays, prefix: str) -> "LaggedModel":
        """Read back what ``arrays`` wrote."""
        weights, intercept, precision, limits = (
            np.asarray(arrays[prefix + name], dtype=np.float64)
            for name in ("weights", "intercept", "precision", "limits")
        )
        return cls(spec, weights, intercept, precision, float(limits[0]), limits[1:].copy())

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""
        return {
            prefix + "weights": self.weights,
            prefix + "intercept": self.intercept,
            prefix + "precision": self.precision,
            prefix + "limits": np.append(self.usual, self.limits),
        }

    def cold(self) -> Floats:
        """Return the memory of nothing ``(M,)``."""
        return np.zeros(memory_size(self.spec, len(self.intercept)))

    def follow(self, memory: Floats, z: Floats) -> Floats:
        """Return the memory ``(M,)`` with one more vector ``(F,)`` in it."""
        spec, size = self.spec, len(self.intercept)
        if len(memory) != memory_size(spec, size) or len(z) != size:
            raise ValueError(f"a vector of {len(z)} columns for a model of {size}")
        new = np.empty_like(memory)
        new[0] = min(memory[0] + 1.0, spec.lags + 1.0)
        s = 1 + size * (spec.lags + 1)
        new[1 : 1 + size] = z
        new[1 + size : s] = memory[1 : s - size]
        whole = new[0] > spec.lags
        # By what comes too soon to be told nothing is said.
        r = z - self.intercept - new[1 + size : s] @ self.weights if whole else np.zeros(size)
        t2 = self._t2(r) if whole else self.usual
        new[s : s + size] = r
        found = [t2]
        at, vs = s + size, s + size * (1 + len(spec.weights))
        for i, weight in enumerate(spec.weights):
            smooth = memory[at : at + size]
            smooth = smooth + weight * (r - smooth)
            new[at : at + size] = smooth
            varies = float(memory[vs + i]) if memory[0] else self.usual
            varies += weight * (t2 - varies)
            new[vs + i] = varies
            found += [self._t2(smooth) * (2.0 - weight) / weight, varies]
            at += size
        new[vs + len(spec.weights) :] = found
        return new

    def _t2(self, r: Floats) -> float:
        return float(r @ (self.precision @ r))

    def score_rows(self, Z: Floats) -> Floats:
        """Score memories ``(n, M)``: ``(n,)``."""
        if Z.shape[1] != memory_size(self.spec, len(self.intercept)):
            raise ValueError(f"{Z.shape[1]} numbers are no memory of this model")
        found = Z[:, -len(self.limits) :]
        scores: Floats = np.sqrt(np.maximum(found, 0.0) / self.limits).max(axis=1)
        return scores

    def shares(self, z: Floats) -> Floats:
        """Return each column's share ``(F,)`` in the chart that is worst in a memory ``(M,)``."""
        spec, size = self.spec, len(self.intercept)
        worst = int((z[-len(self.limits) :] / self.limits).argmax())
        at = 1 + size * (spec.lags + 1)
        if worst % 2:  # of a mean that moved
            at += size * (1 + worst // 2)
        r = z[at : at + size]
        terms = np.maximum(r * (self.precision @ r), 0.0)
        total = terms.sum()
        shares: Floats = terms / total if total > 0 else terms
        return shares

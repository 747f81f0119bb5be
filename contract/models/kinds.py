"""Which kind of fault it is, by vectors that people have named: sums or weights that merge.

Vectors are standardised, by the logarithm of their size: a fault looks alike while it grows.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Classifier, Faults, Linear, NaiveBayes, Ridge
from contract.models.layers import Layers, layer_arrays, layers_of
from contract.models.naive_bayes import KindMoments, softmax
from contract.models.naive_bayes import NaiveBayes as NaiveBayesModel
from contract.models.ridge import GramSums, expand, width

Labels = NDArray[np.int64]


class KindModel(Protocol):
    """Tells kinds apart."""

    def probabilities(self, Z: Floats) -> Floats:
        """Return the probability of each kind ``(n, K)`` for standardised rows ``(n, F)``."""

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""


class KindState(Protocol):
    """What was learnt of each kind; never changed, only replaced."""

    @property
    def counts(self) -> Floats:
        """Return how many vectors of each kind are in it ``(K,)``."""

    def merge(self, other: Self) -> Self:
        """Return what both have learnt."""

    def withdraw(self, other: Self) -> Self:
        """Return it without what ``other`` has learnt."""

    def solve(self) -> KindModel:
        """Return the model."""

    def problem(self) -> str:
        """Return what cannot be in it, in words; empty: nothing."""

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``, in shapes the spec tells."""


def compressed(Z: Floats) -> Floats:
    """Return rows by the logarithm of their size, their signs kept.

    >>> compressed(np.array([[-1.0, 0.0, np.e - 1.0]])).round(2).tolist()
    [[-0.69, 0.0, 1.0]]
    """
    logs: Floats = np.sign(Z) * np.log1p(np.abs(Z))
    return logs


@dataclass(frozen=True, slots=True, eq=False)
class BayesSums:
    """Moments of each kind's vectors."""

    moments: KindMoments

    @property
    def counts(self) -> Floats:
        """Return how many vectors of each kind are in it ``(K,)``."""
        return np.array([kind.n for kind in self.moments.kinds])

    def learn(self, Z: Floats, labels: Labels) -> "BayesSums":
        """Return the sums with rows ``(n, F)`` of kinds ``(n,)`` in them."""
        return BayesSums(self.moments.learn(compressed(Z), labels))

    def merge(self, other: "BayesSums") -> "BayesSums":
        """Return the sums of both."""
        return BayesSums(self.moments.merge(other.moments))

    def withdraw(self, other: "BayesSums") -> "BayesSums":
        """Return the sums without those of ``other``."""
        return BayesSums(self.moments.withdraw(other.moments))

    def solve(self) -> "BayesModel":
        """Return what tells kinds apart."""
        return BayesModel(self.moments.solve())

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        kinds = self.moments.kinds
        if any(kind.n < 0 for kind in kinds):
            return "a count is negative"
        return "scatter is negative" if any(kind.scatter.min() < 0 for kind in kinds) else ""

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return self.moments.arrays(prefix)


@dataclass(frozen=True, slots=True, eq=False)
class BayesModel:
    """Gaussian naive Bayes over compressed rows."""

    model: NaiveBayesModel

    def probabilities(self, Z: Floats) -> Floats:
        """Return the probability of each kind ``(n, K)`` for standardised rows ``(n, F)``."""
        return self.model.probabilities(compressed(Z))

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""
        # No minus infinity in a file: all numbers of a release are finite.
        prior = np.maximum(self.model.prior, _NEVER)
        return {
            prefix + "means": self.model.means,
            prefix + "variances": self.model.variances,
            prefix + "prior": prior,
        }


_NEVER = -1e300


@dataclass(frozen=True, slots=True, eq=False)
class LinearSums:
    """Gram sums with one target a kind."""

    spec: Linear
    sums: GramSums

    @property
    def counts(self) -> Floats:
        """Return how many vectors of each kind are in it ``(K,)``."""
        counts: Floats = self.sums.target[0].copy()  # the intercept's row: one for each vector
        return counts

    def learn(self, Z: Floats, labels: Labels) -> "LinearSums":
        """Return the sums with rows ``(n, F)`` of kinds ``(n,)`` in them."""
        targets = np.eye(len(self.spec.kinds))[labels]
        own = GramSums.of(expand(compressed(Z), ridge_of(self.spec)), targets)
        return replace(self, sums=self.sums.merge(own))

    def merge(self, other: "LinearSums") -> "LinearSums":
        """Return the sums of both."""
        return replace(self, sums=self.sums.merge(other.sums))

    def withdraw(self, other: "LinearSums") -> "LinearSums":
        """Return the sums without those of ``other``."""
        return replace(self, sums=self.sums.withdraw(other.sums))

    def solve(self) -> "LinearModel":
        """Return what tells kinds apart."""
        return LinearModel(self.spec, self.sums.solve(self.spec.penalty))

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        sums = self.sums
        if sums.n < 0 or (sums.target[0] < 0).any():
            return "a count is negative"
        values = np.linalg.eigvalsh(sums.gram)
        if values[0] < -1e-9 * max(float(values[-1]), 0.0):
            return "gram is not positive-semidefinite"
        return ""

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return self.sums.arrays(prefix)


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Linear scores of each kind; what is above nothing, as shares."""

    spec: Linear
    coefficients: Floats

    def probabilities(self, Z: Floats) -> Floats:
        """Return the share of each kind ``(n, K)`` for standardised rows ``(n, F)``."""
        phi = expand(compressed(Z), ridge_of(self.spec))
        scores = np.maximum(np.einsum("nd,dk->nk", phi, self.coefficients), 0.0)
        total = scores.sum(axis=1, keepdims=True)
        even = np.full_like(scores, 1.0 / scores.shape[1])
        shares: Floats = np.divide(scores, total, out=even, where=total > 0)
        return shares

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""
        return {prefix + "coefficients": self.coefficients}


def ridge_of(spec: Linear) -> Ridge:
    """Return the random features of such a model as ridge has them."""
    return Ridge(random=spec.random, activation="fourier", width=spec.width, seed=spec.seed)


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierState:
    """Weights that scikit-learn has trained; see ``agent.models.kinds`` for how.

    Attributes:
        spec: of them.
        counts: vectors of each kind behind them ``(K,)``.
        layers: the weights.
    """

    spec: Classifier
    counts: Floats
    layers: Layers

    def merge(self, other: "ClassifierState") -> "ClassifierState":
        """Return the mean of both, weighted by their vectors."""
        return self._mixed(other, 1.0)

    def withdraw(self, other: "ClassifierState") -> "ClassifierState":
        """Return the weights without another's share in their mean."""
        return self._mixed(other, -1.0)

    def _mixed(self, other: "ClassifierState", sign: float) -> "ClassifierState":
        own, more = float(self.counts.sum()), sign * float(other.counts.sum())
        counts, n = self.counts + sign * other.counts, own + more
        if (counts < 0).any():
            raise ContractError("cannot withdraw more vectors than were merged")
        if not n:
            return replace(self, counts=counts)
        if not own:
            return replace(self, counts=counts, layers=other.layers)
        layers = tuple(
            ((w * own + v * more) / n, (b * own + c * more) / n)
            for (w, b), (v, c) in zip(self.layers, other.layers, strict=True)
        )
        return ClassifierState(self.spec, counts, layers)

    def solve(self) -> "ClassifierModel":
        """Return what tells kinds apart."""
        return ClassifierModel(self.layers)

    def problem(self) -> str:
        """Return what cannot be in it, in words; empty: nothing."""
        return "a count is negative" if (self.counts < 0).any() else ""

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "counts": self.counts, **layer_arrays(self.layers, prefix)}


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierModel:
    """Layers of weights with ReLU between them, and a softmax at the end."""

    layers: Layers

    def probabilities(self, Z: Floats) -> Floats:
        """Return the probability of each kind ``(n, K)`` for standardised rows ``(n, F)``."""
        h, last = compressed(Z), len(self.layers) - 1
        for i, (weights, offsets) in enumerate(self.layers):
            h = np.einsum("nf,fk->nk", h, weights) + offsets
            h = np.maximum(h, 0.0) if i < last else h
        return softmax(h)

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""
        return layer_arrays(self.layers, prefix)


def nothing(spec: Faults, size: int) -> KindState:
    """Return what has learnt nothing yet, for ``size`` columns."""
    if isinstance(spec, NaiveBayes):
        return BayesSums(KindMoments.empty(size, len(spec.kinds)))
    if isinstance(spec, Linear):
        columns = width(size, ridge_of(spec))
        zeros = np.zeros((columns, len(spec.kinds)))
        return LinearSums(spec, GramSums(0.0, np.zeros((columns, columns)), zeros, 0.0))
    sizes = [size, *(spec.hidden if spec.estimator == "MLPClassifier" else ()), len(spec.kinds)]
    layers = tuple(
        (np.zeros((sizes[i], sizes[i + 1])), np.zeros(sizes[i + 1])) for i in range(len(sizes) - 1)
    )
    return ClassifierState(spec, np.zeros(len(spec.kinds)), layers)


def learnt(spec: Faults, arrays: Arrays, prefix: str) -> KindState:
    """Read back what ``KindState.arrays`` wrote; raises ``KeyError`` or ``ValueError``."""
    if isinstance(spec, NaiveBayes):
        return BayesSums(KindMoments.from_arrays(arrays, prefix))
    if isinstance(spec, Linear):
        return LinearSums(spec, GramSums.from_arrays(arrays, prefix))
    counts = np.asarray(arrays[prefix + "counts"], dtype=np.float64)
    return ClassifierState(spec, counts, layers_of(arrays, prefix))


def model_of(spec: Faults | None, arrays: Arrays, prefix: str) -> KindModel | None:
    """Read back what ``KindModel.arrays`` wrote; None if there is none."""
    if spec is None or not any(name.startswith(prefix) for name in arrays):
        return None
    if isinstance(spec, NaiveBayes):
        means, variances, prior = (
            np.asarray(arrays[prefix + name], dtype=np.float64)
            for name in ("means", "variances", "prior")
        )
        return BayesModel(NaiveBayesModel(means, variances, prior))
    if isinstance(spec, Linear):
        return LinearModel(spec, np.asarray(arrays[prefix + "coefficients"], dtype=np.float64))
    return ClassifierModel(layers_of(arrays, prefix))


def tells(state: KindState) -> bool:
    """Return whether there is anything to tell apart: vectors of two kinds at least."""
    return int((state.counts > 0).sum()) >= 2

"""Ridge regression over linear and seeded random features, from sums that merge exactly.

Random Fourier features: Rahimi and Recht, *Random features for large-scale kernel machines*, 2007.
ReLU features: the same with the arc-cosine kernel (Cho and Saul 2009).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import numpy as np

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Ridge
from contract.models.draws import normal, uniform
from contract.models.moments import Moments, spread


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The standardisation that random features need: itself merged, some phases before.

    Attributes:
        mean: ``(F,)``.
        scale: ``(F,)``; infinite for a column that never moved.
        shape: ``(F, F)``, which directions random features look along, or None: all alike.
    """

    mean: Floats
    scale: Floats
    shape: Floats | None = None

    @classmethod
    def of(cls, moments: Moments) -> "Basis":
        """Return the standardisation by some moments."""
        return cls(moments.mean, spread(moments.variance(), moments.mean))

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str = "basis/") -> "Basis":
        """Read back what ``arrays`` wrote."""
        shape = arrays.get(prefix + "shape")
        return cls(
            np.asarray(arrays[prefix + "mean"], dtype=np.float64),
            np.asarray(arrays[prefix + "scale"], dtype=np.float64),
            None if shape is None else np.asarray(shape, dtype=np.float64),
        )

    def arrays(self, prefix: str = "basis/") -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        shape: Arrays = {} if self.shape is None else {prefix + "shape": self.shape}
        return {prefix + "mean": self.mean, prefix + "scale": self.scale, **shape}

    def apply(self, X: Floats) -> Floats:
        """Standardise rows; clipped at 10, so that one wild value cannot own a prediction."""
        standardised: Floats = np.clip((X - self.mean) / self.scale, -10.0, 10.0)
        return standardised

    def expansion(self, spec: Ridge) -> "Expansion":
        """Return how standardised rows are expanded."""
        return Expansion.of(len(self.mean), spec, self.shape)


@lru_cache(maxsize=8)
def projection(size: int, count: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return what is drawn for random features: two devices with any numpy draw the same.

    Returns:
        normal weights ``(size, count)``, normal offsets and uniform phases ``(count,)``.
    """
    drawn = normal(seed, (size + 1) * count)
    angles = uniform(seed, 2 * (size + 1) * count)[(size + 1) * count :]
    phases = 2.0 * np.pi * angles[size * count :]
    return drawn[: size * count].reshape(size, count), drawn[size * count :], phases


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """``[1, z, random(z)]`` of standardised rows: linear and seeded random features.

    Attributes:
        weights: ``(F, random)``.
        offsets: ``(random,)``.
        fourier: cosines in place of ReLU.
        gain: of the random features.
    """

    weights: Floats
    offsets: Floats
    fourier: bool
    gain: float

    @classmethod
    def of(cls, size: int, spec: Ridge, shape: Floats | None = None) -> "Expansion":
        """Return the expansion of rows of ``size`` columns, along some directions or all alike."""
        drawn, offsets, phases = projection(size, spec.random, spec.seed)
        weights = drawn / math.sqrt(size) if shape is None else shape @ drawn
        fourier = spec.activation == "fourier"
        gain = math.sqrt(2.0 / max(spec.random, 1) * size)
        return cls(
            np.ascontiguousarray(weights * spec.width),
            phases if fourier else offsets,
            fourier,
            gain,
        )

    def apply(self, Z: Floats) -> Floats:
        """Return ``(n, 1 + F + random)`` for rows ``(n, F)``."""
        drawn: Floats = Z @ self.weights + self.offsets
        if self.fourier:
            np.cos(drawn, out=drawn)
        else:
            np.maximum(drawn, 0.0, out=drawn)
        drawn *= self.gain
        return np.concatenate([np.ones((len(Z), 1)), Z, drawn], axis=1)

    def gradients(self, Z: Floats, coefficients: Floats) -> Floats:
        """Return how a model's prediction changes with each column ``(n, F)``."""
        size = len(self.weights)
        drawn = Z @ self.weights + self.offsets
        rises = -np.sin(drawn) if self.fourier else (drawn > 0.0).astype(np.float64)
        along: Floats = (rises * (coefficients[1 + size :] * self.gain)) @ self.weights.T
        return along + coefficients[1 : 1 + size]


def first_of(spec: Ridge) -> Ridge:
    """Return the smaller model, alike in all directions, whose gradients shape the final one."""
    return msgspec.structs.replace(
        spec, random=spec.shaping, shaping=0, penalty=SHAPING_PENALTY, seed=spec.seed + 1_000_003
    )


SHAPING_PENALTY = 1e-3
"""Of the first model; between 1e-4 and 1e-2 the final one's error changes by less than 1 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Sums of outer products of a model's gradients: which directions matter to it, and how much.

    Random features drawn along them learn far more from the same rows: A. Radhakrishnan et al.,
    *Mechanism for feature learning in neural networks and backpropagation-free machine learning
    models*, Science 383 (2024).

    Attributes:
        n: rows.
        outer: ``(F, F)``.
    """

    n: float
    outer: Floats

    @classmethod
    def empty(cls, size: int) -> "Gradients":
        """Return the sums of nothing."""
        return cls(0.0, np.zeros((size, size)))

    @classmethod
    def of(
        cls,
        basis: Basis,
        spec: Ridge,
        coefficients: Floats,
        parts: Iterable[tuple[Floats, Floats, Floats]],
    ) -> "Gradients":
        """Return the sums over raw rows, as ``GramSums.of_rows``, of a model solved from those."""
        expansion = basis.expansion(spec)
        total = cls.empty(len(basis.mean))
        for X, _, w in parts:
            along = expansion.gradients(basis.apply(X), coefficients)
            total = total.merge(cls(float(w.sum()), (along * w[:, None]).T @ along))
        return total

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> "Gradients":
        """Read back what ``arrays`` wrote."""
        return cls(
            float(arrays[prefix + "n"]), np.asarray(arrays[prefix + "outer"], dtype=np.float64)
        )

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "n": np.array(self.n), prefix + "outer": self.outer}

    def merge(self, other: "Gradients") -> "Gradients":
        """Return the sums of both sets of rows."""
        return Gradients(self.n + other.n, self.outer + other.outer)

    def withdraw(self, other: "Gradients") -> "Gradients":
        """Return the sums of the rows that are in ``self`` and not in ``other``."""
        if other.n > self.n:
            raise ContractError("cannot withdraw more rows than were merged")
        return Gradients(self.n - other.n, self.outer - other.outer)

    def decay(self, factor: float) -> "Gradients":
        """Return the sums with all rows so far counting for less."""
        return Gradients(self.n * factor, self.outer * factor)

    def shape(self) -> Floats | None:
        """Return the directions ``(F, F)``: ``shape @ shape.T`` is the mean outer product.

        The symmetric root: eigenvectors have no sign of their own, and another processor's linear
        algebra would choose others. Over its trace, so that random features reach as far as those
        that are alike in all directions; None where the model has no gradient.
        """
        values, vectors = np.linalg.eigh(self.outer)
        values = np.maximum(values, 0.0)
        total = float(values.sum())
        if not total > 0.0:
            return None
        shape: Floats = (vectors * np.sqrt(values / total)) @ vectors.T
        return shape


def expand(Z: Floats, spec: Ridge, shape: Floats | None = None) -> Floats:
    """Return ``[1, z, random(z)]`` for standardised rows ``(n, F)``: ``(n, 1 + F + random)``."""
    return Expansion.of(Z.shape[1], spec, shape).apply(Z)


def width(size: int, spec: Ridge) -> int:
    """Return the number of coefficients for ``size`` features."""
    return 1 + size + spec.random


@dataclass(frozen=True, slots=True, eq=False)
class GramSums:
    """Everything ridge needs of its rows: count, Gram matrix, products with the target.

    Attributes:
        n: rows.
        gram: ``(D, D)`` sum of outer products of expanded rows.
        target: ``(D,)`` sum of expanded rows times target; ``(D, K)`` of K targets.
        energy: sum of squared targets.
    """

    n: float
    gram: Floats
    target: Floats
    energy: float

    @classmethod
    def empty(cls, size: int) -> "GramSums":
        """Return the sums of nothing."""
        return cls(0.0, np.zeros((size, size)), np.zeros(size), 0.0)

    @classmethod
    def of(cls, phi: Floats, y: Floats, w: Floats | None = None) -> "GramSums":
        """Return the sums of expanded rows ``(n, D)`` and targets ``(n,)``, or ``(n, K)``.

        ``w``: what each row counts ``(n,)``; None: all alike.
        """
        size = phi.shape[1]
        empty = cls(0.0, np.zeros((size, size)), np.zeros((size, *y.shape[1:])), 0.0)
        return empty.add(phi, y, w)

    @classmethod
    def of_rows(
        cls, basis: Basis, spec: Ridge, parts: Iterable[tuple[Floats, Floats, Floats]]
    ) -> "GramSums":
        """Return the sums of raw rows ``(n, F)`` with targets and weights, part by part."""
        sums = cls.empty(width(len(basis.mean), spec))
        expansion = basis.expansion(spec)
        for X, y, w in parts:
            sums = sums.add(expansion.apply(basis.apply(X)), y, w)
        return sums

    def add(self, phi: Floats, y: Floats, w: Floats | None = None) -> "GramSums":
        """Return these sums with more rows in them, in the same arrays: nothing large is copied."""
        w = np.ones(len(y)) if w is None else w
        weighted = phi * w[:, None]
        for at in range(0, len(self.target), 64):
            self.gram[at : at + 64] += weighted[:, at : at + 64].T @ phi
        self.target[:] += weighted.T @ y
        energy = float((np.square(y).T * w).sum())
        return GramSums(self.n + float(w.sum()), self.gram, self.target, self.energy + energy)

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> "GramSums":
        """Read back what ``arrays`` wrote."""
        target = np.asarray(arrays[prefix + "target"], dtype=np.float64)
        packed = np.asarray(arrays[prefix + "gram"], dtype=np.float64)
        size = len(target)
        gram = np.zeros((size, size))
        upper = np.triu_indices(size)
        gram[upper] = packed
        gram.T[upper] = packed
        n, energy = (float(v) for v in arrays[prefix + "n"])
        return cls(n, gram, target, energy)

    def arrays(self, prefix: str) -> Arrays:
        """Return the state; of the symmetric Gram matrix the upper triangle only."""
        return {
            prefix + "n": np.array([self.n, self.energy]),
            prefix + "gram": self.gram[np.triu_indices(len(self.target))],
            prefix + "target": self.target,
        }

    def merge(self, other: "GramSums") -> "GramSums":
        """Return the sums of both sets of rows."""
        return GramSums(
            self.n + other.n,
            self.gram + other.gram,
            self.target + other.target,
            self.energy + other.energy,
        )

    def decay(self, factor: float) -> "GramSums":
        """Return the sums with all rows so far counting for less."""
        return GramSums(
            self.n * factor, self.gram * factor, self.target * factor, self.energy * factor
        )

    def withdraw(self, other: "GramSums") -> "GramSums":
        """Return the sums of the rows that are in ``self`` and not in ``other``."""
        if other.n > self.n:
            raise ContractError("cannot withdraw more rows than were merged")
        return GramSums(
            self.n - other.n,
            self.gram - other.gram,
            self.target - other.target,
            self.energy - other.energy,
        )

    def _damped(self, penalty: float) -> Floats:
        if not self.n:
            raise ContractError("no rows to learn remaining life from")
        damped: Floats = np.divide(self.gram, self.n)
        damped[np.diag_indices_from(damped)] += penalty
        damped[0, 0] -= penalty * (1.0 - 1e-9)
        return damped

    def condition(self, penalty: float) -> float:
        """Return by how much solving multiplies a rounding of the sums."""
        values = np.linalg.eigvalsh(self._damped(penalty))
        return float(values[-1] / max(float(values[0]), 1e-300))

    def solve(self, penalty: float) -> Floats:
        """Return the coefficients ``(D,)`` or ``(D, K)``; the intercept is not penalised."""
        damped = self._damped(penalty)
        return np.asarray(np.linalg.solve(damped, self.target / self.n), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class RidgeModel:
    """Predicts remaining life, in hours, from raw feature vectors."""

    spec: Ridge
    basis: Basis
    coefficients: Floats
    cap_h: float
    expansion: Expansion = field(init=False)

    def __post_init__(self) -> None:
        """Lay out the expansion once: a row's prediction must not wait for it."""
        object.__setattr__(self, "expansion", self.basis.expansion(self.spec))

    def predict(self, X: Floats) -> Floats:
        """Return hours left ``(n,)`` for rows ``(n, F)``, between 0 and the cap."""
        hours = self.expansion.apply(self.basis.apply(X)) @ self.coefficients
        clipped: Floats = np.clip(hours, 0.0, self.cap_h)
        return clipped

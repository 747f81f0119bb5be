"""Ridge regression over linear and seeded random features, from sums that merge exactly.

Random Fourier features: Rahimi and Recht, *Random features for large-scale kernel machines*, 2007.
ReLU features: the same with the arc-cosine kernel (Cho and Saul 2009).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Ridge
from contract.models.moments import Moments, spread


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The standardisation that random features need: itself merged, one phase before.

    Attributes:
        mean: ``(F,)``.
        scale: ``(F,)``; infinite for a column that never moved.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, moments: Moments) -> "Basis":
        """Return the standardisation by some moments."""
        return cls(moments.mean, spread(moments.variance(), moments.mean))

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str = "basis/") -> "Basis":
        """Read back what ``arrays`` wrote."""
        return cls(
            np.asarray(arrays[prefix + "mean"], dtype=np.float64),
            np.asarray(arrays[prefix + "scale"], dtype=np.float64),
        )

    def arrays(self, prefix: str = "basis/") -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "mean": self.mean, prefix + "scale": self.scale}

    def apply(self, X: Floats) -> Floats:
        """Standardise rows; clipped at 10, so that one wild value cannot own a prediction."""
        standardised: Floats = np.clip((X - self.mean) / self.scale, -10.0, 10.0)
        return standardised


@lru_cache(maxsize=8)
def projection(size: int, spec: Ridge) -> tuple[Floats, Floats]:
    """Return the random weights ``(size, random)`` and offsets ``(random,)`` of a spec.

    Drawn from the raw PCG64 stream, which numpy guarantees never to change, by Box and Muller's
    method: two devices with other versions of numpy must draw the same.
    """
    count = (size + 1) * spec.random
    raw = np.random.PCG64(spec.seed).random_raw(2 * count)
    uniform = ((raw >> np.uint64(11)) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:count]))
    normal = radius * np.cos(2.0 * np.pi * uniform[count:])
    weights = normal[: size * spec.random].reshape(size, spec.random)
    offsets = normal[size * spec.random :]
    if spec.activation == "fourier":
        # A uniform phase, from the angle of the same draw.
        offsets = 2.0 * np.pi * uniform[count + size * spec.random :]
    return np.ascontiguousarray(weights * (spec.width / math.sqrt(size))), offsets


def expand(Z: Floats, spec: Ridge) -> Floats:
    """Return ``[1, z, random(z)]`` for standardised rows ``(n, F)``: ``(n, 1 + F + random)``."""
    weights, offsets = projection(Z.shape[1], spec)
    drawn: Floats = Z @ weights + offsets
    if spec.activation == "fourier":
        np.cos(drawn, out=drawn)
    else:
        np.maximum(drawn, 0.0, out=drawn)
    drawn *= math.sqrt(2.0 / max(spec.random, 1) * Z.shape[1])
    return np.concatenate([np.ones((len(Z), 1)), Z, drawn], axis=1)


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
    def of(cls, phi: Floats, y: Floats) -> "GramSums":
        """Return the sums of expanded rows ``(n, D)`` and targets ``(n,)``."""
        return cls(float(len(y)), phi.T @ phi, phi.T @ y, float(np.square(y).sum()))

    def add(self, phi: Floats, y: Floats) -> "GramSums":
        """Return these sums with more rows in them, in the same arrays: nothing large is copied."""
        for at in range(0, len(self.target), 64):
            self.gram[at : at + 64] += phi[:, at : at + 64].T @ phi
        self.target[:] += phi.T @ y
        return GramSums(
            self.n + len(y), self.gram, self.target, self.energy + float(np.square(y).sum())
        )

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

    def solve(self, penalty: float) -> Floats:
        """Return the coefficients ``(D,)`` or ``(D, K)``; the intercept is not penalised."""
        if not self.n:
            raise ContractError("no rows to learn remaining life from")
        damped: Floats = np.divide(self.gram, self.n)
        damped[np.diag_indices_from(damped)] += penalty
        damped[0, 0] -= penalty * (1.0 - 1e-9)
        return np.asarray(np.linalg.solve(damped, self.target / self.n), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class RidgeModel:
    """Predicts remaining life, in hours, from raw feature vectors."""

    spec: Ridge
    basis: Basis
    coefficients: Floats
    cap_h: float

    def predict(self, X: Floats) -> Floats:
        """Return hours left ``(n,)`` for rows ``(n, F)``, between 0 and the cap."""
        hours = expand(self.basis.apply(X), self.spec) @ self.coefficients
        clipped: Floats = np.clip(hours, 0.0, self.cap_h)
        return clipped

"""What a device tells with differential privacy: clipped, noisy, and still sums and weights.

The Gaussian mechanism (Dwork and Roth, *The Algorithmic Foundations of Differential Privacy*, 2014,
appendix A) on contributions that are made small first. A contribution is one device's mean, so that
each counts one whatever it has measured; neighbours are fleets that differ in all of one device's
data. Two positive-semidefinite matrices of norm at most C differ by at most √2 C, as their inner
product is not negative; two steps of length at most C by 2 C.

How many devices there are, which answer and when, is not hidden. Nor is noise in floating point
proof against who looks at its last bits (Mironov 2012).
"""

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Privacy
from contract.models.moments import Moments
from contract.models.ridge import GramSums

ROOT2 = float(np.sqrt(2.0))
"""How much farther apart two positive-semidefinite matrices lie than the longer one is, at most."""


def sigma(privacy: Privacy, change: float) -> float:
    """Return the standard deviation of one device's noise, for a sum it can change so far."""
    return privacy.noise * change / float(np.sqrt(privacy.among))


def noisy_gram(
    sums: GramSums, cap_h: float, privacy: Privacy, rng: np.random.Generator
) -> GramSums:
    """Return ridge sums ``(D,)`` as they may leave the device.

    Args:
        sums: of all its rows; without any, noise alone is told.
        cap_h: hours; targets are told as a share of it, beside columns that are near one.
        privacy: how much of it.
        rng: seeded by the system's entropy, but in tests.
    """
    told = _noisy(bordered(sums, cap_h), sums.n, privacy.clip, privacy, rng)
    return unbordered(told, cap_h)


def bordered(sums: GramSums, cap_h: float) -> Floats:
    """Return ridge sums as one matrix ``(D + 1, D + 1)``: of ``[1, features / s, target]``.

    In these units features weigh about as much as the intercept, which so keeps its head above the
    noise, and targets are shares of the cap about its middle: what noise drowns becomes half of it.
    """
    size = len(sums.target)
    whole = np.empty((size + 1, size + 1))
    half = cap_h / 2.0
    whole[:size, :size] = sums.gram
    centred = sums.target - half * sums.gram[0]
    whole[:size, size] = whole[size, :size] = centred / cap_h
    whole[size, size] = (sums.energy - 2 * half * sums.target[0] + half**2 * sums.n) / cap_h**2
    units = np.append(_units(size - 1), 1.0)
    return whole / np.outer(units, units)


def unbordered(whole: Floats, cap_h: float) -> GramSums:
    """Return the sums of which ``bordered`` made a matrix."""
    size = len(whole) - 1
    units = np.append(_units(size - 1), 1.0)
    whole = whole * np.outer(units, units)
    half = cap_h / 2.0
    gram, n = whole[:size, :size], float(whole[0, 0])
    target = whole[:size, size] * cap_h + half * gram[0]
    energy = float(whole[size, size]) * cap_h**2 + 2 * half * float(target[0]) - half**2 * n
    return GramSums(n, gram, target, energy)


def noisy_moments(moments: Moments, privacy: Privacy, rng: np.random.Generator) -> Moments:
    """Return full moments ``(F,)`` as they may leave the device: as raw sums about nothing.

    About which mean they would be scattered is known of the fleet's alone; see ``moments_of``.
    """
    mean = moments.mean
    scatter = moments.scatter + moments.n * np.outer(mean, mean)
    raw = Moments(moments.n, moments.n * mean, scatter)
    told = _noisy(edged(raw), moments.n, privacy.norm, privacy, rng)
    units = _units(len(mean))
    told *= np.outer(units, units)
    return Moments(float(told[0, 0]), told[0, 1:].copy(), told[1:, 1:].copy())


def edged(raw: Moments) -> Floats:
    """Return raw sums as one matrix ``(1 + F, 1 + F)``, of ``[1, columns / s]``."""
    size = len(raw.mean)
    whole = np.empty((1 + size, 1 + size))
    whole[0, 0] = raw.n
    whole[0, 1:] = whole[1:, 0] = raw.mean
    whole[1:, 1:] = raw.scatter
    units = _units(size)
    return whole / np.outer(units, units)


def _units(size: int) -> Floats:
    """Return what one, and some columns, are told in: together they weigh about as much as it."""
    return np.concatenate([[1.0], np.full(size, max(1.0, float(np.sqrt(size)) / 2.0))])


def _noisy(
    whole: Floats, n: float, most: float, privacy: Privacy, rng: np.random.Generator
) -> Floats:
    """Return a sum of outer products as a mean of norm ``most`` at most, and noise."""
    mean = whole / n if n > 0 else np.zeros_like(whole)
    norm = float(np.linalg.norm(mean))
    mean *= min(1.0, most / norm) if norm > 0 else 1.0
    upper = np.triu(rng.normal(scale=sigma(privacy, ROOT2 * most), size=mean.shape))
    told: Floats = mean + upper + np.triu(upper, 1).T
    return told


def noisy_step(
    weights: Arrays, start: Arrays, privacy: Privacy, rng: np.random.Generator
) -> Arrays:
    """Return weights whose step from ``start`` is short, and noisy."""
    steps = {name: _floats(weights[name]) - _floats(start[name]) for name in weights}
    length = float(np.sqrt(sum(float(np.sum(step**2)) for step in steps.values())))
    share = min(1.0, privacy.step / length) if length > 0 else 1.0
    scale = sigma(privacy, 2.0 * privacy.step)
    return {
        name: _floats(start[name]) + share * step + rng.normal(scale=scale, size=step.shape)
        for name, step in sorted(steps.items())
    }


def _floats(array: NDArray[np.generic]) -> Floats:
    return np.asarray(array, dtype=np.float64)


def gram_of(total: GramSums, nodes: int, cap_h: float, privacy: Privacy) -> GramSums:
    """Return the sums of a fleet that can be solved: no direction has less than noise in it.

    Args:
        total: of the noisy sums of all nodes.
        nodes: how many.
        cap_h: hours.
        privacy: of the class.
    """
    whole = bordered(total, cap_h)
    size = len(total.target)
    floor = spectral_noise(privacy, ROOT2 * privacy.clip, nodes, size)
    gram = whole[:size, :size]
    values, vectors = np.linalg.eigh(gram)
    # What is smaller than noise may be anything, and would be divided by.
    whole[:size, :size] = (vectors * np.maximum(values, 0.0)) @ vectors.T + floor * np.eye(size)
    solvable = unbordered(whole, cap_h)
    return GramSums(float(nodes), solvable.gram, solvable.target, max(solvable.energy, 0.0))


def moments_of(total: Moments, nodes: int) -> Moments:
    """Return the moments of a fleet from the sum of the noisy raw ones of all nodes.

    Raises:
        ContractError: there are too few nodes for their sum to be more than noise.
    """
    if total.n <= 0.0:
        raise ContractError(
            f"the statistics of {nodes} nodes are noise alone: more nodes, or less privacy.noise"
        )
    mean = total.mean / total.n
    scatter = total.scatter - total.n * np.outer(mean, mean)
    values, vectors = np.linalg.eigh(scatter)
    scatter = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return Moments(total.n, mean, scatter)


def spectral_noise(privacy: Privacy, change: float, nodes: int, size: int) -> float:
    """Return the largest eigenvalue that the noise of some nodes has by itself (Wigner 1955)."""
    return 2.0 * sigma(privacy, change) * float(np.sqrt(nodes * size))


def farthest(change: float, entries: int, privacy: Privacy) -> float:
    """Return how long an honest device's noisy contribution is, but once in a million or so.

    Args:
        change: that it can make in the sum: ``clip``, ``norm`` or ``step`` times √2, or 2.
        entries: that have noise of their own.
        privacy: of the class.
    """
    return change + sigma(privacy, change) * (float(np.sqrt(entries)) + 5.0)

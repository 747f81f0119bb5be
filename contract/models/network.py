"""Health by what scikit-learn learns to expect: an autoencoder, or a border around the healthy.

The state is weights, trained on devices (``agent.models.healthy``), and merges as a mean weighted
by rows: the means family. Scoring is a forward pass in numpy.

Autoencoder: M. Sakurada and T. Yairi 2014; the limit is that of its own errors on healthy rows.
Border: B. Schölkopf et al. 2001, linear over random Fourier features (Rahimi and Recht 2007).
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Network
from contract.models.distances import Distances
from contract.models.draws import normal, uniform
from contract.models.layers import Layers, layer_arrays, layers_of
from contract.models.moments import normal_quantile
from contract.models.shares import by_absence


def sizes(spec: Network, columns: int) -> list[tuple[int, int]]:
    """Return inputs and outputs of each layer."""
    if spec.estimator == "SGDOneClassSVM":
        return [(spec.random, 1)]
    widths = [columns, *spec.hidden, columns]
    return list(pairwise(widths))


@lru_cache(maxsize=8)
def projection(columns: int, spec: Network) -> tuple[Floats, Floats]:
    """Return weights ``(F, random)`` and phases ``(random,)`` of the one-class SVM's features."""
    weights = normal(spec.seed, columns * spec.random).reshape(columns, spec.random)
    return weights / math.sqrt(columns), 2.0 * np.pi * uniform(spec.seed + 1, spec.random)


def inputs(spec: Network, Z: Floats) -> Floats:
    """Return what the first layer is given for rows ``(n, F)``."""
    if spec.estimator != "SGDOneClassSVM":
        return Z
    weights, phases = projection(Z.shape[1], spec)
    # Not by BLAS: a row's score must not depend on what rows it is scored with.
    turned = np.cos(np.einsum("nf,fk->nk", Z, weights) + phases)
    phi: Floats = turned * math.sqrt(2.0 / spec.random)
    return phi


def forward(spec: Network, layers: Layers, Z: Floats) -> Floats:
    """Return the distance ``(n,)`` of rows from what is expected; of a border, how far outside."""
    h = inputs(spec, Z)
    for i, (weights, offsets) in enumerate(layers):
        h = np.einsum("nf,fk->nk", h, weights) + offsets
        if i < len(layers) - 1:
            h = np.maximum(h, 0.0)
    if spec.estimator == "SGDOneClassSVM":
        return -h[:, 0]
    apart = Z - h
    distance: Floats = np.einsum("nf,nf->n", apart, apart)
    return distance


@dataclass(frozen=True, slots=True, eq=False)
class NetworkState:
    """Weights, the rows behind them, and how far healthy rows were from what they expect.

    Attributes:
        spec: of the network.
        n: rows.
        layers: weights and offsets; empty before the first block.
        distances: of healthy rows, before they were learnt.
        columns: of a row.
    """

    spec: Network
    n: float
    layers: Layers
    distances: Distances
    columns: int

    @classmethod
    def empty(cls, spec: Network, size: int) -> "NetworkState":
        """Return the state that has learnt nothing: weights of zero."""
        layers = tuple((np.zeros(pair), np.zeros(pair[1])) for pair in sizes(spec, size))
        return cls(spec, 0.0, layers, Distances(), size)

    @classmethod
    def from_arrays(cls, spec: Network, arrays: Arrays, prefix: str) -> "NetworkState":
        """Read back what ``arrays`` wrote."""
        n, columns = (float(v) for v in arrays[prefix + "n"])
        return cls(
            spec,
            n,
            layers_of(arrays, prefix),
            Distances(*np.asarray(arrays[prefix + "distances"], dtype=np.float64).tolist()),
            int(columns),
        )

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {
            prefix + "n": np.array([self.n, float(self.columns)]),
            prefix + "distances": self.distances.array(),
            **layer_arrays(self.layers, prefix),
        }

    def learn(self, Z: Floats) -> "NetworkState":
        """Raise: only a device trains."""
        raise ContractError(f"{len(Z)} rows to learn, and no scikit-learn to learn them with")

    def merge(self, other: "NetworkState") -> "NetworkState":
        """Return the mean of both, weighted by rows."""
        return self._mixed(other, self.n, other.n, self.distances.merge(other.distances))

    def withdraw(self, other: "NetworkState") -> "NetworkState":
        """Return the state without another's share in its mean."""
        if other.n > self.n:
            raise ContractError("cannot withdraw more rows than were merged")
        return self._mixed(other, self.n, -other.n, self.distances.withdraw(other.distances))

    def _mixed(
        self, other: "NetworkState", mine: float, theirs: float, distances: Distances
    ) -> "NetworkState":
        n = mine + theirs
        if not n:
            return NetworkState.empty(self.spec, self.columns)
        layers = tuple(
            ((w * mine + v * theirs) / n, (b * mine + c * theirs) / n)
            for (w, b), (v, c) in zip(self.layers, other.layers, strict=True)
        )
        return NetworkState(self.spec, n, layers, distances, self.columns)

    def decay(self, factor: float) -> "NetworkState":
        """Return the state with all rows so far counting for less."""
        return replace(self, n=self.n * factor, distances=self.distances.decay(factor))

    def solve(self) -> "NetworkModel":
        """Return what scores with these weights."""
        rate, known = self.spec.alarm_rate, self.distances
        if self.spec.estimator == "MLPRegressor":
            return NetworkModel(self.spec, self.layers, 0.0, known.limit(rate))
        mean = known.first / known.n if known.n else 0.0
        variance = known.second / known.n - mean**2 if known.n else 0.0
        scale = math.sqrt(max(variance, 1e-12)) * normal_quantile(1.0 - rate)
        return NetworkModel(self.spec, self.layers, mean, scale)

    def problem(self) -> str:
        """Return what cannot be in such a state, in words; empty: nothing."""
        return "it counts below nothing" if self.n < 0 or self.distances.n < 0 else ""


@dataclass(frozen=True, slots=True, eq=False)
class NetworkModel:
    """Scores rows by their distance from what is expected: 1 is the limit.

    Attributes:
        spec: of the network.
        layers: weights and offsets.
        centre: distance that counts as none.
        limit: of the distance above it; squared (MLPRegressor).
    """

    spec: Network
    layers: Layers
    centre: float
    limit: float

    @classmethod
    def from_arrays(cls, spec: Network, arrays: Arrays, prefix: str) -> "NetworkModel":
        """Read back what ``arrays`` wrote."""
        centre, limit = (float(v) for v in arrays[prefix + "limit"])
        return cls(spec, layers_of(arrays, prefix), centre, limit)

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""
        limit = np.array([self.centre, self.limit])
        return {prefix + "limit": limit, **layer_arrays(self.layers, prefix)}

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``."""
        over = np.maximum(forward(self.spec, self.layers, Z) - self.centre, 0.0) / self.limit
        return over if self.spec.estimator == "SGDOneClassSVM" else np.sqrt(over)

    def shares(self, z: Floats) -> Floats:
        """Return each column's share of a row's score: what would be gone if it were normal."""
        return by_absence(self, z)

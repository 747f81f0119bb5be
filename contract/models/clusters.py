"""Healthy ways of running as the centres of clusters; what is far from all of them is not healthy.

Mini-batch k-means (D. Sculley, *Web-scale k-means clustering*, WWW 2010): each centre is the mean
of the rows that were given to it, so centres merge by their counts.
"""

from dataclasses import dataclass

import numpy as np

from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Clusters
from contract.models.distances import Distances
from contract.models.draws import normal
from contract.models.rows import filled


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """Centres with the rows that they are the means of.

    Attributes:
        spec: of the clusters.
        counts: rows of each centre ``(k,)``.
        sums: of these rows ``(k, F)``.
        distances: of rows to the centre that they were given to.
    """

    spec: Clusters
    counts: Floats
    sums: Floats
    distances: Distances

    @classmethod
    def empty(cls, spec: Clusters, size: int) -> "Centres":
        """Return the centres of nothing."""
        k = spec.clusters
        return cls(spec, np.zeros(k), np.zeros((k, size)), Distances())

    @classmethod
    def from_arrays(cls, spec: Clusters, arrays: Arrays, prefix: str) -> "Centres":
        """Read back what ``arrays`` wrote."""
        return cls(
            spec,
            np.asarray(arrays[prefix + "counts"], dtype=np.float64),
            np.asarray(arrays[prefix + "sums"], dtype=np.float64),
            Distances(*np.asarray(arrays[prefix + "distances"], dtype=np.float64).tolist()),
        )

    @property
    def n(self) -> float:
        """Return how many rows are in it."""
        return float(self.counts.sum())

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {
            prefix + "counts": self.counts,
            prefix + "sums": self.sums,
            prefix + "distances": self.distances.array(),
        }

    def places(self) -> Floats:
        """Return where the centres are ``(k, F)``; before its first row one is where it is drawn.

        All devices draw alike, so that the same centre means the same to each.
        """
        k, size = self.sums.shape
        drawn = normal(self.spec.seed, k * size).reshape(k, size)
        counts = self.counts[:, None]
        places: Floats = np.where(counts > 0, self.sums / np.maximum(counts, 1e-300), drawn)
        return places

    def learn(self, Z: Floats) -> "Centres":
        """Return the centres with rows ``(n, F)`` given to the nearest."""
        Z, _ = filled(Z)
        counts, sums = self.counts.copy(), self.sums.copy()
        places = self.places()
        distances = np.empty(len(Z))
        for i, z in enumerate(Z):
            squared = np.square(z - places).sum(axis=1)
            j = int(squared.argmin())
            counts[j] += 1.0
            sums[j] += z
            places[j] = sums[j] / counts[j]
            distances[i] = np.square(z - places[j]).sum()
        return Centres(self.spec, counts, sums, self.distances.merge(Distances.of(distances)))

    def merge(self, other: "Centres") -> "Centres":
        """Return the centres of both sets of rows."""
        return Centres(
            self.spec,
            self.counts + other.counts,
            self.sums + other.sums,
            self.distances.merge(other.distances),
        )

    def withdraw(self, other: "Centres") -> "Centres":
        """Return the centres of the rows that are in ``self`` and not in ``other``."""
        counts = self.counts - other.counts
        if counts.min(initial=0.0) < 0:
            raise ContractError("cannot withdraw more rows than were merged")
        # What is left of a centre without rows is rounding.
        sums = np.where(counts[:, None] > 0, self.sums - other.sums, 0.0)
        return Centres(self.spec, counts, sums, self.distances.withdraw(other.distances))

    def decay(self, factor: float) -> "Centres":
        """Return the centres with all rows so far counting for less."""
        return Centres(
            self.spec, self.counts * factor, self.sums * factor, self.distances.decay(factor)
        )

    def solve(self) -> "ClustersModel":
        """Return what scores by these centres; those without a row do not count."""
        places = self.places()[self.counts > 0]
        if not len(places):
            places = np.zeros((1, self.sums.shape[1]))
        return ClustersModel(places, self.distances.limit(self.spec.alarm_rate))

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        wrong = self.counts.min(initial=0.0) < 0 or min(self.distances.array()) < 0
        return "a count or a distance is negative" if wrong else ""


@dataclass(frozen=True, slots=True, eq=False)
class ClustersModel:
    """Scores rows by the distance to the nearest centre: 1 is the limit.

    Attributes:
        places: of the centres ``(k, F)``.
        limit: of the squared distance.
    """

    places: Floats
    limit: float

    @classmethod
    def from_arrays(cls, _spec: Clusters, arrays: Arrays, prefix: str) -> "ClustersModel":
        """Read back what ``arrays`` wrote."""
        places = np.asarray(arrays[prefix + "places"], dtype=np.float64)
        return cls(places, float(arrays[prefix + "limit"]))

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return {prefix + "places": self.places, prefix + "limit": np.array(self.limit)}

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``."""
        apart = Z[:, None, :] - self.places
        squared = np.einsum("nkf,nkf->nk", apart, apart)
        scores: Floats = np.sqrt(squared.min(axis=1) / self.limit)
        return scores

    def shares(self, z: Floats) -> Floats:
        """Return each column's share in the squared distance to the nearest centre."""
        squared = np.square(z - self.places)
        own = squared[int(squared.sum(axis=1).argmin())]
        total = own.sum()
        shares: Floats = own / total if total > 0 else own
        return shares

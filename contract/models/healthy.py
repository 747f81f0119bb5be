"""What healthy looks like, learnt as sums: each family's, by the spec that names it.

A family is three things: sums that learn and merge (here ``Healthy``), a model that they are solved
for and that scores (``Scorer``), and the settings of both (``contract.model_spec.Health``).
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from contract.arrays import Arrays, Floats
from contract.model_spec import Chart, Clusters, Extremes, HalfSpace, Health, Lagged, Network
from contract.model_spec import Moments as MomentsSpec
from contract.models.chart import ChartModel, ChartSums
from contract.models.clusters import Centres, ClustersModel
from contract.models.extremes import ExtremesModel, Tails
from contract.models.half_space import HalfSpaceModel, Masses
from contract.models.lagged import LaggedModel, LaggedSums, memory_size, stacked
from contract.models.moments import HealthModel, Moments
from contract.models.network import NetworkModel, NetworkState
from contract.models.rows import filled


class Scorer(Protocol):
    """Scores standardised rows: 1 is the limit of what is healthy; higher is worse.

    A model that remembers (``remembers``) scores its memory of an asset, which ends in the newest
    row, in place of that row alone; ``seen`` makes it.
    """

    def score_rows(self, Z: Floats) -> Floats:
        """Score rows ``(n, F)``: ``(n,)``; each the same to the last bit whatever others are."""

    def shares(self, z: Floats) -> Floats:
        """Return each column's share ``(F,)`` in the score of one row ``(F,)``."""

    def arrays(self, prefix: str) -> Arrays:
        """Return the model under names that begin with ``prefix``."""


class Healthy(Protocol):
    """What was learnt as healthy; never changed, only replaced."""

    @property
    def n(self) -> float:
        """Return how many rows are in it."""

    def learn(self, Z: Floats) -> Self:
        """Return it with rows in it as ``shown`` has them; a column of NaN says nothing."""

    def merge(self, other: Self) -> Self:
        """Return what both have learnt."""

    def withdraw(self, other: Self) -> Self:
        """Return it without what ``other`` has learnt."""

    def decay(self, factor: float) -> Self:
        """Return it with all so far counting for less."""

    def solve(self) -> Scorer:
        """Return the model."""

    def problem(self) -> str:
        """Return what cannot be in such sums, in words; empty: nothing."""

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``, in shapes the spec tells."""


@dataclass(frozen=True, slots=True, eq=False)
class MomentsSums:
    """Moments, of which T² and SPE are solved; see ``contract.models.moments``."""

    spec: MomentsSpec
    moments: Moments

    @classmethod
    def empty(cls, spec: MomentsSpec, size: int) -> "MomentsSums":
        """Return the sums of nothing."""
        return cls(spec, Moments.empty(size))

    @classmethod
    def from_arrays(cls, spec: MomentsSpec, arrays: Arrays, prefix: str) -> "MomentsSums":
        """Read back what ``arrays`` wrote."""
        return cls(spec, Moments.from_arrays(arrays, prefix))

    @property
    def n(self) -> float:
        """Return how many rows are in it."""
        return self.moments.n

    def arrays(self, prefix: str) -> Arrays:
        """Return the state under names that begin with ``prefix``."""
        return self.moments.arrays(prefix)

    def learn(self, Z: Floats) -> "MomentsSums":
        """Return the sums with rows in them.

        An absent column is taken to vary as standardised ones do, and by itself: so it makes no
        other asset's, that has it, look narrower than it is.
        """
        Z, absent = filled(Z)
        own = Moments.of(Z)
        if absent.any():
            at = np.flatnonzero(absent)
            own.scatter[at, at] += own.n
        return MomentsSums(self.spec, self.moments.merge(own))

    def merge(self, other: "MomentsSums") -> "MomentsSums":
        """Return the sums of both sets of rows."""
        return MomentsSums(self.spec, self.moments.merge(other.moments))

    def withdraw(self, other: "MomentsSums") -> "MomentsSums":
        """Return the sums of the rows that are in ``self`` and not in ``other``."""
        return MomentsSums(self.spec, self.moments.withdraw(other.moments))

    def decay(self, factor: float) -> "MomentsSums":
        """Return the sums with all rows so far counting for less."""
        return MomentsSums(self.spec, self.moments.decay(factor))

    def solve(self) -> HealthModel:
        """Return T² and SPE."""
        spec = self.spec
        return HealthModel.solve(self.moments, variance=spec.variance, alarm_rate=spec.alarm_rate)

    def problem(self) -> str:
        """Return what cannot be in these sums, in words; empty: nothing."""
        scatter = self.moments.scatter
        scale = np.abs(scatter).max(initial=0.0)
        if not np.allclose(scatter, scatter.T, rtol=ROUNDING, atol=ROUNDING * scale):
            return "scatter is not symmetric"
        return "" if semidefinite(scatter) else "scatter is not positive-semidefinite"


ROUNDING = 1e-9
"""How far below zero an eigenvalue may lie, as a share of the largest."""


def semidefinite(matrix: Floats) -> bool:
    """Return whether no direction of a symmetric matrix has less than nothing in it."""
    values = np.linalg.eigvalsh(matrix)
    return bool(values[0] >= -ROUNDING * max(float(values[-1]), 0.0))


def shown(spec: Health, Z: Floats) -> Floats:
    """Return rows ``(n, F)`` that follow each other as a model is to learn them."""
    return stacked(spec, Z) if isinstance(spec, Lagged) else Z


def remembers(spec: Health, size: int) -> int:
    """Return the length of what a model remembers of one asset with F columns; 0: nothing."""
    return memory_size(spec, size) if isinstance(spec, Lagged) else 0


def seen(model: Scorer, Z: Floats) -> Floats:
    """Return what a model sees as rows ``(n, F)`` follow each other from nothing: ``(n, ...)``."""
    if not isinstance(model, LaggedModel):
        return Z
    memory = model.cold()
    found = np.empty((len(Z), len(memory)))
    for i, z in enumerate(Z):
        memory = found[i] = model.follow(memory, z)
    return found


def nothing(spec: Health, size: int) -> Healthy:
    """Return what has learnt nothing yet, of a family, for ``size`` columns."""
    return _SUMS[type(spec)].empty(spec, size)


def learnt(spec: Health, arrays: Arrays, prefix: str) -> Healthy:
    """Read back what ``Healthy.arrays`` wrote; raises ``KeyError`` or ``ValueError``."""
    return _SUMS[type(spec)].from_arrays(spec, arrays, prefix)


def scorer(spec: Health, arrays: Arrays, prefix: str) -> Scorer | None:
    """Read back what ``Scorer.arrays`` wrote; None if there is none."""
    if not any(name.startswith(prefix) for name in arrays):
        return None
    return _MODELS[type(spec)].from_arrays(spec, arrays, prefix)


class _MomentsModel:
    @staticmethod
    def from_arrays(_spec: MomentsSpec, arrays: Arrays, prefix: str) -> HealthModel:
        return HealthModel.from_arrays(arrays, prefix)


class _Sums(Protocol):
    def empty(self, spec: Health, size: int) -> Healthy: ...

    def from_arrays(self, spec: Health, arrays: Arrays, prefix: str) -> Healthy: ...


class _Models(Protocol):
    def from_arrays(self, spec: Health, arrays: Arrays, prefix: str) -> Scorer: ...


# Each family takes its own spec alone, which no type of a table can say.
_SUMS: dict[type[Health], _Sums] = {
    MomentsSpec: MomentsSums,  # type: ignore[dict-item]
    Chart: ChartSums,  # type: ignore[dict-item]
    HalfSpace: Masses,  # type: ignore[dict-item]
    Clusters: Centres,  # type: ignore[dict-item]
    Network: NetworkState,  # type: ignore[dict-item]
    Lagged: LaggedSums,  # type: ignore[dict-item]
    Extremes: Tails,  # type: ignore[dict-item]
}
_MODELS: dict[type[Health], _Models] = {
    MomentsSpec: _MomentsModel,  # type: ignore[dict-item]
    Chart: ChartModel,  # type: ignore[dict-item]
    HalfSpace: HalfSpaceModel,  # type: ignore[dict-item]
    Clusters: ClustersModel,  # type: ignore[dict-item]
    Network: NetworkModel,  # type: ignore[dict-item]
    Lagged: LaggedModel,  # type: ignore[dict-item]
    Extremes: ExtremesModel,  # type: ignore[dict-item]
}

"""Health models as a device learns them: those of the contract, and scikit-learn's by blocks."""

from dataclasses import dataclass, replace

import numpy as np

from agent.models.sklearn_adapter import Plan, fit
from contract.arrays import Arrays, Floats
from contract.model_spec import Health, Network
from contract.models import healthy
from contract.models.distances import Distances
from contract.models.healthy import Healthy
from contract.models.layers import Layers
from contract.models.network import NetworkModel, NetworkState, forward, inputs
from contract.models.rows import filled


def nothing(spec: Health, size: int) -> Healthy:
    """Return what has learnt nothing yet."""
    if isinstance(spec, Network):
        waiting = np.zeros((spec.block, size))
        return LearningNetwork(NetworkState.empty(spec, size), waiting, 0)
    return healthy.nothing(spec, size)


def learnt(spec: Health, arrays: Arrays, prefix: str) -> Healthy:
    """Read back what ``arrays`` of such a model wrote."""
    if isinstance(spec, Network):
        waiting = np.array(arrays[prefix + "block"], dtype=np.float64)
        state = NetworkState.from_arrays(spec, arrays, prefix)
        return LearningNetwork(state, waiting, int(arrays[prefix + "count"]))
    return healthy.learnt(spec, arrays, prefix)


@dataclass(frozen=True, slots=True, eq=False)
class LearningNetwork:
    """A network and the rows that wait until there is a block of them.

    Attributes:
        state: what is told to others.
        waiting: ``(block, F)``, of which the first ``count`` are rows; never told to anyone.
        count: of them.
    """

    state: NetworkState
    waiting: Floats
    count: int

    @property
    def n(self) -> float:
        """Return how many rows are in it."""
        return self.state.n

    def learn(self, Z: Floats) -> "LearningNetwork":
        """Return the network with rows ``(n, F)`` learnt, as far as they fill blocks."""
        Z, _ = filled(Z)
        state, waiting, count = self.state, self.waiting.copy(), self.count
        for z in Z:
            waiting[count] = z
            count += 1
            if count == len(waiting):
                state, count = _trained(state, waiting), 0
        return LearningNetwork(state, waiting, count)

    def merge(self, other: "LearningNetwork") -> "LearningNetwork":
        """Return the mean of both, weighted by rows; what waits is this one's."""
        return replace(self, state=self.state.merge(other.state))

    def withdraw(self, other: "LearningNetwork") -> "LearningNetwork":
        """Return the network without another's share in its mean."""
        return replace(self, state=self.state.withdraw(other.state))

    def adopt(self, layers: Layers) -> "LearningNetwork":
        """Return the network with others' weights in place of its own; it learns on from them."""
        return replace(self, state=replace(self.state, layers=layers))

    def decay(self, factor: float) -> "LearningNetwork":
        """Return the network with all rows so far counting for less."""
        return replace(self, state=self.state.decay(factor))

    def solve(self) -> NetworkModel:
        """Return what scores."""
        return self.state.solve()

    def problem(self) -> str:
        """Return what cannot be in it, in words; empty: nothing."""
        return self.state.problem()

    def arrays(self, prefix: str) -> Arrays:
        """Return the state, with what waits."""
        return {
            **self.state.arrays(prefix),
            prefix + "block": self.waiting.copy(),
            prefix + "count": np.array(self.count),
        }


def _trained(state: NetworkState, Z: Floats) -> NetworkState:
    spec = state.spec
    border = spec.estimator == "SGDOneClassSVM"
    plan = Plan(
        spec.estimator,
        spec.hidden,
        spec.rate,
        spec.alpha,
        spec.epochs,
        batch=len(Z),
        seed=spec.seed,
    )
    start = state.layers if state.n else ()
    layers = fit(plan, inputs(spec, Z), None if border else Z, start, seed=spec.seed + int(state.n))
    distances = state.distances
    if state.n:
        # How far rows were from what was expected before they were learnt, and never after.
        distances = distances.merge(Distances.of(forward(spec, state.layers, Z)))
    return NetworkState(spec, state.n + len(Z), layers, distances, state.columns)

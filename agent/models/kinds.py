"""Kinds of faults as a device learns them: from the vectors of alerts that people have named."""

from dataclasses import replace

import numpy as np

from agent.models.sklearn_adapter import Plan, fit
from contract.arrays import Arrays, Floats
from contract.model_spec import Classifier, Faults
from contract.models import kinds
from contract.models.kinds import (
    BayesSums,
    ClassifierState,
    KindModel,
    KindState,
    Labels,
    LinearSums,
    compressed,
    tells,
)
from contract.report import Likely

LEAST = 0.05
"""Share below which a kind is not told."""
MEMORY = 256
"""Vectors kept to be learnt again, where weights are learnt: of sixteen alerts at least."""


class KindsLearner:
    """What a class on this device has been told of kinds of faults.

    Attributes:
        spec: of the models.
        state: what was learnt.
        told: verdicts that named a kind after one was told here; and how many of these were right.
    """

    def __init__(self, spec: Faults, size: int) -> None:
        self.spec = spec
        self.state: KindState = kinds.nothing(spec, size)
        self.told = self.right = 0
        # Weights forget what they are not shown again; sums need no memory.
        room = MEMORY if isinstance(spec, Classifier) else 0
        self._memory = np.zeros((room, size))
        self._labels = np.zeros(room, dtype=np.int64)
        self._kept = 0
        self._own: KindModel | None = None
        self._released: KindModel | None = None

    def adopt(self, model: KindModel | None) -> None:
        """Let a release's model tell; None: one's own."""
        self._released = model

    def tell(self, Z: Floats) -> tuple[Likely, ...]:
        """Return the kinds that vectors ``(n, F)`` of one alert look like, the likeliest first."""
        model = self._released
        if model is None:
            if self._own is None and tells(self.state):
                self._own = self.state.solve()
            model = self._own
        if model is None or not len(Z):
            return ()
        shares = model.probabilities(Z).mean(axis=0)
        order = np.argsort(-shares, kind="stable").tolist()
        return tuple(
            Likely(self.spec.kinds[k], round(float(shares[k]), 4))
            for k in order
            if shares[k] >= LEAST
        )

    def learn(self, Z: Floats, fault: str) -> None:
        """Learn the vectors ``(n, F)`` of a confirmed alert; judge what was told before."""
        kind = self.spec.kinds.index(fault)
        told = self.tell(Z)
        if told:
            self.told += 1
            self.right += told[0].kind == fault
        labels = np.full(len(Z), kind)
        if isinstance(self.state, ClassifierState):
            counts = self.state.counts.copy()
            counts[kind] += len(Z)
            self.state = _trained(replace(self.state, counts=counts), *self._remember(Z, labels))
        elif isinstance(self.state, BayesSums | LinearSums):
            self.state = self.state.learn(Z, labels)
        self._own = None

    def _remember(self, Z: Floats, labels: Labels) -> tuple[Floats, Labels]:
        """Keep labelled vectors, the newest of them; return all that are kept."""
        room = len(self._labels)
        at = np.arange(self._kept, self._kept + len(Z)) % room
        self._memory[at], self._labels[at] = Z, labels
        self._kept += len(Z)
        known = min(self._kept, room)
        return self._memory[:known], self._labels[:known]

    def arrays(self) -> Arrays:
        """Return the state."""
        return {
            **self.state.arrays("state/"),
            "told": np.array([self.told, self.right, self._kept]),
            "memory": self._memory.copy(),
            "labels": self._labels.copy(),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self.state = kinds.learnt(self.spec, arrays, "state/")
        self.told, self.right, self._kept = (int(v) for v in arrays["told"])
        self._memory = np.array(arrays["memory"])
        self._labels = np.array(arrays["labels"])
        self._own = None


def _trained(state: ClassifierState, Z: Floats, labels: Labels) -> ClassifierState:
    spec = state.spec
    plan = Plan(
        spec.estimator,
        spec.hidden,
        spec.rate,
        spec.alpha,
        spec.epochs,
        batch=16,
        seed=spec.seed,
        kinds=len(spec.kinds),
    )
    n = int(state.counts.sum())
    start = state.layers if any(w.any() for w, _ in state.layers) else ()
    layers = fit(plan, compressed(Z), labels, start, seed=spec.seed + n)
    return replace(state, layers=layers)

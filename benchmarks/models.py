"""What a model costs: learn and score per vector of 8, in batches of 16.

    python -m benchmarks.models

Each health family and the models of remaining life and of kinds of fault, as the device runs them,
beside River's half-space trees (one vector at a time; it knows no batches) and scikit-learn's
calls. Vectors a second of processor time on one core, median of five runs.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from agent.models.healthy import nothing
from contract.arrays import Floats
from contract.model_spec import Health, Ridge
from contract.models.moments import Moments
from contract.models.naive_bayes import KindMoments
from contract.models.ridge import Basis, GramSums, RidgeModel, width

SIZE, BATCH = 8, 16
GOAL = 200_000


def rate(work: Callable[[Floats], object], batches: list[Floats], seconds: float) -> float:
    """Return vectors a second."""
    found = []
    for batch in batches[:3]:
        work(batch)
    for _ in range(5):
        done, began = 0, time.process_time()
        while time.process_time() - began < seconds:
            for batch in batches:
                work(batch)
            done += len(batches)
        found.append(done * BATCH / (time.process_time() - began))
    return statistics.median(found)


class _Learner:
    """Learns batch upon batch, as a device does."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __call__(self, Z: Floats) -> None:
        self.state = self.state.learn(Z)  # type: ignore[attr-defined]


def ours(batches: list[Floats], seconds: float) -> dict[str, tuple[float, float]]:
    """Return rates of learning and scoring, by model."""
    found = {}
    for spec_type in get_args(Health):
        spec = spec_type()
        name = spec.__struct_config__.tag
        learner = _Learner(nothing(spec, SIZE))
        learns = rate(learner, batches, seconds)
        model = learner.state.solve()  # type: ignore[attr-defined]
        found[name] = learns, rate(model.score_rows, batches, seconds)
    rng = np.random.default_rng(3)
    basis = Basis.of(Moments.of(np.concatenate(batches), diagonal=True))
    for random in (0, 100, 600):
        spec = Ridge(random=random)
        expansion = basis.expansion(spec)
        sums = GramSums.empty(width(SIZE, spec))
        hours = rng.uniform(0, 100, BATCH)

        def learn(
            X: Floats, sums: GramSums = sums, hours: Floats = hours, expansion: object = expansion
        ) -> None:
            sums.add(expansion.apply(basis.apply(X)), hours)  # type: ignore[attr-defined]

        learns = rate(learn, batches, seconds)
        model = RidgeModel(spec, basis, np.ones(width(SIZE, spec)), 125.0)
        found[f"ridge_{random}"] = learns, rate(model.predict, batches, seconds)
    kinds = _Kinds(KindMoments.empty(SIZE, 3), rng.integers(0, 3, BATCH))
    learns = rate(kinds, batches, seconds)
    found["naive_bayes"] = learns, rate(kinds.state.solve().probabilities, batches, seconds)
    return found


class _Kinds:
    """Learns vectors of three kinds."""

    def __init__(self, state: KindMoments, labels: np.ndarray) -> None:
        self.state, self._labels = state, labels

    def __call__(self, Z: Floats) -> None:
        self.state = self.state.learn(Z, self._labels)


def river(batches: list[Floats], seconds: float) -> dict[str, tuple[float, float]]:
    """Return the rates of River's half-space trees; none where it is not installed."""
    if importlib.util.find_spec("river") is None:
        return {}
    anomaly: Any = importlib.import_module("river.anomaly")
    # Its features lie between 0 and 1.
    rows = [[dict(enumerate(row)) for row in np.clip(Z / 8 + 0.5, 0, 1).tolist()] for Z in batches]
    at = {id(batch): converted for batch, converted in zip(batches, rows, strict=True)}
    trees = anomaly.HalfSpaceTrees(n_trees=25, height=8, seed=1)

    def learn(Z: Floats) -> None:
        for row in at[id(Z)]:
            trees.learn_one(row)

    def score(Z: Floats) -> None:
        for row in at[id(Z)]:
            trees.score_one(row)

    return {"river_half_space": (rate(learn, batches, seconds), rate(score, batches, seconds))}


def sklearn(batches: list[Floats], seconds: float) -> dict[str, tuple[float, float]]:
    """Return the rates of scikit-learn's calls on the same batches."""
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415
    from sklearn.linear_model import SGDRegressor  # noqa: PLC0415
    from sklearn.naive_bayes import GaussianNB  # noqa: PLC0415
    from sklearn.neural_network import MLPRegressor  # noqa: PLC0415

    rng = np.random.default_rng(3)
    hours, kinds = rng.uniform(0, 1, BATCH), rng.integers(0, 3, BATCH)
    bayes, line, network = GaussianNB(), SGDRegressor(), MLPRegressor(hidden_layer_sizes=(8,))
    centres = MiniBatchKMeans(8, batch_size=BATCH, n_init=1, random_state=1)
    every = [0, 1, 2]
    return {
        "sklearn_naive_bayes": (
            rate(lambda Z: bayes.partial_fit(Z, kinds, every), batches, seconds),
            rate(bayes.predict_proba, batches, seconds),
        ),
        "sklearn_linear": (
            rate(lambda Z: line.partial_fit(Z, hours), batches, seconds),
            rate(line.predict, batches, seconds),
        ),
        "sklearn_network": (
            rate(lambda Z: network.partial_fit(Z, Z), batches, seconds),
            rate(network.predict, batches, seconds),
        ),
        "sklearn_clusters": (
            rate(centres.partial_fit, batches, seconds),
            rate(centres.transform, batches, seconds),
        ),
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.3, help="of each of five runs")
    seconds = parser.parse_args().seconds
    rng = np.random.default_rng(1)
    batches = [rng.normal(size=(BATCH, SIZE)) for _ in range(64)]
    found = ours(batches, seconds) | river(batches, seconds) | sklearn(batches, seconds)
    print("\n| vectors of 8 a second, batches of 16 | learn | score | both |\n|---|---|---|---|")
    last: dict[str, object] = {}
    for name, (learns, scores) in found.items():
        both = 1.0 / (1.0 / learns + 1.0 / scores)
        print(f"| {name} | {learns:,.0f} | {scores:,.0f} | {both:,.0f} |")
        last |= {f"{name}_learn": round(learns), f"{name}_score": round(scores), name: round(both)}
    print(f"\nGoal for moments: {GOAL:,} a second, learn and score.\n")
    print(json.dumps(last))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What differential privacy costs in accuracy: remaining life and health, by noise and fleet.

    python -m benchmarks.privacy --data ../shared/data/cmapss_fd001

Remaining life: C-MAPSS FD001 as 10 nodes of 10 engines and as 100 of one, a linear ridge over two
statistics a channel (sums) and a small network after one round (means), through the nodes' own
local rounds and accounts and the server's own merge. Every node standardises by its own lives; what
is judged is the last cycle of each test engine, capped at 125, in the mean over up to ten nodes'
standardisations. Health: T² and SPE of correlated vectors of 8, judged by AUROC on vectors that
break the correlation. The noise of all nodes of a fleet adds up to the multiplier (``among``).
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from agent.labels import own_basis
from agent.privacy import epsilon
from benchmarks.cmapss import CAP, Fleet, last_vectors, load, rmse
from benchmarks.in_process import contribution
from contract import model_spec
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Privacy, Ridge, Sklearn
from contract.models.layers import LayersModel
from contract.models.moments import HealthModel, Moments
from contract.models.ridge import Basis, RidgeModel
from contract.privacy import moments_of, noisy_moments
from contract.update import FIT
from server.guard import Weights
from server.merge import Ledger, noisy_gram_total
from server.strategy import WeightsMerger
from simulator.recordings.cmapss import Engine

SEEDS = (1, 2, 3)
NOISES = (1e-9, 0.3, 1.0, 3.0)
"""Multipliers; the first is none to speak of: what clipping and counting devices alone cost."""
RIDGE = Ridge(random=0, basis="own", penalty=1e-3)
NETWORK = Sklearn(hidden=(4,), epochs=2, rate=1e-2, basis="own")
ROUNDS = 5
STATS = ("mean_16", "slope_16")
DELTA = 1e-5
FLEETS = (10, 100, 1000, 10_000)
"""Nodes of the synthetic fleets."""

Result = dict[str, float | None]


def worth(noise: float, nodes: int, updates: int) -> tuple[float | None, float | None]:
    """Return epsilon of some updates, for all and for the server; None: no privacy to speak of."""
    if noise < NOISES[1]:
        return None, None
    told = {repr(noise): updates}
    return epsilon(told, DELTA), epsilon(told, DELTA, among=nodes)


HEADS = f"{'epsilon':>9}{'server':>9}"


def _cells(*epsilons: float | None) -> str:
    return "".join(f"{'-':>9}" if one is None else f"{one:9.1f}" for one in epsilons)


class Turbofans:
    """A fleet whose lives are played once, and told again with other noise."""

    def __init__(self, folder: Path, deal: list[list[Engine]], test: list[Engine]) -> None:
        self.fleet = Fleet(
            folder,
            deal,
            holdout=0,
            stats=STATS,
            age=False,
            regimes=None,
            health=model_spec.Moments(),
            rul=(RIDGE, NETWORK),
        )
        self.X = last_vectors(self.fleet.devices[0], test)
        self._ledgers = folder / "ledgers"

    def errors(self, true: Floats, privacy: Privacy) -> tuple[float, float]:
        """Return the errors of sums, and of weights after ``ROUNDS``, told with noise anew."""
        fleet = self.fleet
        fleet.change(privacy=privacy)
        size = len(self.X[0])
        plain = Basis(np.zeros(size), np.ones(size))
        ledger = Ledger(self._ledgers / f"{len(list(self._ledgers.glob('*')))}")
        for device in fleet.devices:
            update = device.answer(FIT, plain.arrays(), round_=1, models=("ridge",))
            ledger.put(contribution(update, "basis"))
        total = noisy_gram_total(ledger.under("basis"), CAP, privacy)
        if total is None:
            raise SystemExit("too few nodes")
        merger = WeightsMerger("fedavg", None)  # type: ignore[arg-type]
        merged: Arrays = {}
        for round_ in range(1, ROUNDS + 1):
            weights = []
            for device in fleet.devices:
                update = device.answer(
                    FIT, plain.arrays() | merged, round_=round_, models=("sklearn",)
                )
                weights.append(Weights(update.head.node, 1.0, update.arrays))
            merged = merger.merge(round_, None, weights)
        ridge = RidgeModel(RIDGE, plain, total.solve(RIDGE.penalty), CAP)
        return self._judge(ridge, true), self._judge(_network(merged, plain), true)

    def _judge(self, model: RidgeModel | LayersModel, true: Floats) -> float:
        found = []
        for device in self.fleet.devices[:10]:
            lives = device.engine.store.training(self.fleet.spec)
            own = replace(model, basis=own_basis(RIDGE, model.basis, lives))
            found.append(rmse(own.predict(self.X), true))
        return float(np.mean(found))


def _network(arrays: Arrays, basis: Basis) -> LayersModel:
    return LayersModel.from_arrays(arrays, "sklearn/", basis, CAP)


def turbofans(data: Path) -> list[Result]:
    """Print the table of remaining life."""
    train, test, raw = load(data, "FD001")
    true = np.minimum(raw, CAP)
    rows: list[Result] = []
    print(f"{'nodes':>6}{'noise':>8}{HEADS}{'ridge':>9}{HEADS}{'network':>9}")
    for nodes in (10, 100):
        deal = [[e for e in train if (e.unit - 1) % nodes == i] for i in range(nodes)]
        with tempfile.TemporaryDirectory(prefix="runout-bench-") as folder:
            played = Turbofans(Path(folder), deal, test)
            for noise in NOISES:
                privacy = Privacy(noise=noise, among=nodes, step=2.0, epsilon=1e30, delta=DELTA)
                # Each draw is another class, or the same update would be told again.
                draws = [
                    played.errors(true, msgspec.structs.replace(privacy, norm=2.0 + seed))
                    for seed in SEEDS
                ]
                ridge, network = np.mean(draws, axis=0).tolist()
                once, often = worth(noise, nodes, 1), worth(noise, nodes, ROUNDS)
                rows.append(
                    {
                        "nodes": nodes,
                        "noise": noise,
                        "epsilon": once[0],
                        "epsilon_network": often[0],
                        "ridge": ridge,
                        "network": network,
                    }
                )
                words = f"{_cells(*once)}{ridge:9.1f}{_cells(*often)}{network:9.1f}"
                print(f"{nodes:6}{noise:8.1f}{words}", flush=True)
            played.fleet.close()
    guess = rmse(np.full(len(true), float(np.minimum(raw, CAP).mean())), true)
    print(f"always saying the mean: {guess:.1f}")
    return rows


def auroc(healthy: Floats, faulty: Floats) -> float:
    """Return the probability that a faulty score is the higher one."""
    ranks = np.argsort(np.argsort(np.concatenate([healthy, faulty]))) + 1
    above = ranks[len(healthy) :].sum() - len(faulty) * (len(faulty) + 1) / 2
    return float(above / (len(healthy) * len(faulty)))


def health() -> list[Result]:
    """Print the table of health."""
    rows: list[Result] = []
    print(f"\n{'nodes':>6}{'noise':>8}{HEADS}{'AUROC':>8}")
    for nodes in FLEETS:
        for noise in NOISES:
            found = []
            for seed in SEEDS:
                rng = np.random.default_rng(seed)
                mixing = rng.normal(size=(2, 8))

                def draw(n: int, rng: np.random.Generator = rng, mixing: Floats = mixing) -> Floats:
                    return rng.normal(size=(n, 2)) @ mixing + 0.3 * rng.normal(size=(n, 8))

                privacy = Privacy(noise=noise, among=nodes)
                total = Moments.empty(8)
                for _ in range(nodes):
                    own = noisy_moments(Moments.of(draw(60)), privacy, rng)
                    total = Moments(
                        total.n + own.n, total.mean + own.mean, total.scatter + own.scatter
                    )
                try:
                    moments = moments_of(total, nodes)
                except ContractError:  # noise alone: there is no model, and nothing is told apart
                    found.append(0.5)
                    continue
                model = HealthModel.solve(moments, variance=0.9, alarm_rate=0.001)
                faulty = draw(2000)
                faulty[:, 3] += 2.0
                found.append(auroc(model.score_rows(draw(2000)), model.score_rows(faulty)))
            once, mean = worth(noise, nodes, 1), float(np.mean(found))
            rows.append({"nodes": nodes, "noise": noise, "epsilon": once[0], "auroc": mean})
            print(f"{nodes:6}{noise:8.1f}{_cells(*once)}{mean:8.3f}", flush=True)
    return rows


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train_FD001.txt(.gz)")
    arguments = parser.parse_args()
    print(
        f"error of remaining life, cycles; epsilon of one update at delta {DELTA:g}; seeds {SEEDS}"
    )
    print("epsilon: for who sees releases; server: for the server itself\n")
    life = turbofans(arguments.data)
    print(json.dumps({"remaining_life": life, "health": health(), "seeds": SEEDS}))


if __name__ == "__main__":
    main()

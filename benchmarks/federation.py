"""Remaining life on C-MAPSS: devices alone, together, and all data in one place.

    python -m benchmarks.federation --data ../shared/data/cmapss_fd001 --task A

Task A: 10 nodes, the 100 training engines of FD001 dealt in turn. Through the agents' own pipeline
and store, the nodes' own local rounds and the server's own ledger and strategies, in one process.
RUL is capped at 125 cycles; what is judged is the last cycle of each of the 100 test engines.
Settings are those of ``configs/agent.turbofan.toml``, chosen on training engines only.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.in_process import Device, configured, contribution
from contract.arrays import Arrays, Floats
from contract.model_spec import Ridge
from contract.models.layers import LayersModel
from contract.models.ridge import Basis, RidgeModel, first_of
from contract.spec import AssetClass
from contract.update import FIT, GRADIENTS, SHAPE, STATISTICS
from server.guard import Weights
from server.merge import Contribution, Ledger, Statistics, gram_total, shape_total
from server.strategy import WeightsMerger
from simulator.recordings import cmapss

CONFIG = Path(__file__).parent.parent / "configs" / "agent.turbofan.toml"
CAP = 125.0
NODES = 10


def rmse(predicted: Floats, true: Floats) -> float:
    """Return the root mean square error."""
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def phm08(predicted: Floats, true: Floats) -> float:
    """Return the score of the PHM 2008 challenge (Saxena et al. 2008): late is worse than early."""
    d = predicted - true
    return float(np.where(d < 0, np.exp(-d / 13.0) - 1.0, np.exp(d / 10.0) - 1.0).sum())


class Fleet:
    """Devices with their lives, and what the server makes of them."""

    def __init__(
        self, folder: Path, deal: list[list[cmapss.Engine]], spec: dict[str, object]
    ) -> None:
        self._folder = folder
        self.devices = []
        for i, engines in enumerate(deal, 1):
            state = folder / f"node-{i:02d}"
            device = Device(configured(CONFIG, state, f"node-{i:02d}", **spec))
            for engine in engines:
                device.live(f"train-{engine.unit:03d}", engine.values, failed=True)
            self.devices.append(device)
        self.spec: AssetClass = self.devices[0].config.asset_class[0]

    def basis(self) -> Basis:
        """Merge the statistics phase."""
        ledger = Ledger(self._folder / "statistics")
        for device in self.devices:
            ledger.put(contribution(device.answer(STATISTICS, {}, round_=0), self.spec.digest()))
        total = Statistics.of(ledger.under(self.spec.digest()), self.spec.health)
        if total is None:
            raise SystemExit("no node answered")
        basis = Basis.of(total.basis)
        model = next(m for m in self.spec.rul if isinstance(m, Ridge))
        if not model.shaping:
            return basis
        first = first_of(model)
        told = self._answers(SHAPE, basis.arrays())
        sums = gram_total(told, "first/")
        if sums is None:
            raise SystemExit("no node answered")
        arrays = {**basis.arrays(), "first/coefficients": sums.solve(first.penalty)}
        return replace(basis, shape=shape_total(self._answers(GRADIENTS, arrays)))

    def _answers(self, phase: str, arrays: Arrays) -> list[Contribution]:
        return [contribution(one.answer(phase, arrays, round_=0), "") for one in self.devices]

    def ridge(
        self, basis: Basis, model: Ridge, *, order: list[int], twice: bool, name: str
    ) -> tuple[RidgeModel, int]:
        """Merge the sums in some order of arrival, each once or twice; bytes sent per node."""
        ledger = Ledger(self._folder / name)
        sent = 0
        for i in order:
            update = self.devices[i].answer(FIT, basis.arrays(), round_=1, models=("ridge",))
            sent = sum(array.nbytes for array in update.arrays.values())
            for _ in range(2 if twice else 1):
                ledger.put(contribution(update, "basis"))
        total = gram_total(ledger.under("basis"))
        if total is None:
            raise SystemExit("no node answered")
        return RidgeModel(model, basis, total.solve(model.penalty), CAP), sent

    def network(self, basis: Basis, rounds: int) -> LayersModel:
        """Average weights over some rounds by Flower's FedAvg."""
        # FedAvg never asks the grid: it takes the replies it is given.
        merger = WeightsMerger("fedavg", None)  # type: ignore[arg-type]
        merged: Arrays = {}
        for round_ in range(1, rounds + 1):
            weights = []
            for device in self.devices:
                update = device.answer(
                    FIT, basis.arrays() | merged, round_=round_, models=("sklearn",)
                )
                weights.append(Weights(update.head.node, update.head.rows, update.arrays))
            merged = merger.merge(round_, None, weights)
        return LayersModel.from_arrays(merged, "sklearn/", basis, CAP)

    def close(self) -> None:
        """Close all devices."""
        for device in self.devices:
            device.close()


def last_vectors(device: Device, engines: list[cmapss.Engine]) -> Floats:
    """Play test engines to a device; return each one's last feature vector ``(n, F)``."""
    last = []
    for engine in engines:
        asset = f"test-{engine.unit:03d}"
        device.live(asset, engine.values, failed=False)
        last.append(device.engine.store.last_vector(asset))
    return np.stack(last)


def run(data: Path, seed: int, rounds: int, folder: Path) -> dict[str, float]:
    """Run task A with one seed."""
    train, test = (cmapss.load(data, "FD001", split) for split in ("train", "test"))
    raw = cmapss.load_rul(data, "FD001")
    capped = np.minimum(raw, CAP)
    base = configured(CONFIG, folder, "x").asset_class[0]
    models = tuple(msgspec.structs.replace(model, seed=seed) for model in base.rul)
    spec: dict[str, object] = {"holdout": 0, "rul": models}
    ridge = next(model for model in models if isinstance(model, Ridge))
    deal = [[e for e in train if (e.unit - 1) % NODES == i] for i in range(NODES)]
    fleet = Fleet(folder / "fleet", deal, spec)
    central = Fleet(folder / "central", [train], spec)
    X = last_vectors(central.devices[0], test)

    local = [
        rmse(device.engine.pipeline.groups[base.name].rul.models["ridge"].predict(X), capped)
        for device in fleet.devices
    ]
    basis = fleet.basis()
    federated, sent = fleet.ridge(basis, ridge, order=list(range(NODES)), twice=False, name="sums")
    order = random.Random(seed).sample(range(NODES), NODES)  # noqa: S311  # an order, no secret
    again, _ = fleet.ridge(basis, ridge, order=order, twice=True, name="again")
    twin, _ = central.ridge(central.basis(), ridge, order=[0], twice=False, name="sums")
    gaps = [np.abs(other.coefficients - twin.coefficients).max() for other in (federated, again)]
    predicted = federated.predict(X)
    network = central_network = float("nan")
    if rounds:
        network = rmse(fleet.network(basis, rounds).predict(X), capped)
        central_network = rmse(central.network(central.basis(), rounds).predict(X), capped)
    fleet.close()
    central.close()
    return {
        "local_mean": float(np.mean(local)),
        "local_worst": float(np.max(local)),
        "federated": rmse(predicted, capped),
        "central": rmse(twin.predict(X), capped),
        "federated_raw": rmse(predicted, raw),
        "phm08": phm08(predicted, raw),
        "max_coefficient_gap": float(max(gaps)),
        "bytes_up_per_node": float(sent),
        "network_federated": network,
        "network_central": central_network,
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train_FD001.txt ...")
    parser.add_argument("--task", choices=["A"], default="A")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="of the random features, by commas")
    parser.add_argument("--rounds", type=int, default=6, help="of FedAvg for the network; 0: none")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    results = []
    for seed in seeds:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(arguments.data, seed, arguments.rounds, Path(folder)))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    mean = {name: float(np.mean([r[name] for r in results])) for name in results[0]}
    mean["max_coefficient_gap"] = max(r["max_coefficient_gap"] for r in results)
    print(f"\nC-MAPSS FD001, task A: {NODES} nodes of 10 engines, RMSE in cycles, seeds {seeds}\n")
    print(f"{'':34}" + "".join(f"{'seed ' + str(s):>10}" for s in seeds) + f"{'mean':>10}")
    rows = [
        ("a device alone, mean of 10", "local_mean"),
        ("a device alone, the worst", "local_worst"),
        ("federated sums", "federated"),
        ("all data in one place", "central"),
        ("federated sums, raw labels", "federated_raw"),
        ("federated sums, PHM08 score", "phm08"),
        (f"network, FedAvg of {arguments.rounds} rounds", "network_federated"),
        (f"network, all data, {arguments.rounds} rounds", "network_central"),
    ]
    for text, name in rows:
        cells = "".join(f"{r[name]:10.2f}" for r in results)
        print(f"{text:34}{cells}{mean[name]:10.2f}")
    print(f"largest gap of a coefficient, federated to central: {mean['max_coefficient_gap']:.1e}")
    print(f"sent up by a node, once: {mean['bytes_up_per_node'] / 1e6:.2f} MB\n")
    last = {"task": arguments.task, "seeds": seeds, **mean, "rounds": 1}
    print(json.dumps({k: round(v, 12) if isinstance(v, float) else v for k, v in last.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

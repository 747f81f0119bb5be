"""Remaining life on C-MAPSS: devices alone, together, and all data in one place.

    python -m benchmarks.federation --data ../shared/data/cmapss_fd001 --task A

Task A: 10 nodes, the 100 training engines of FD001 dealt in turn. A-skew: the same, sorted by how
long they lived. B: a node for each of FD001 to FD004 that is there, with its own model. Through
the agents' own pipeline and store, the nodes' own local rounds and the server's own ledger and
strategies, in one process. RUL is capped at 125 cycles; what is judged is the last cycle of each
test engine. Settings are those of ``configs/agent.turbofan.toml``, chosen on training engines only.
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

from agent.labels import own_basis
from benchmarks.cmapss import CAP, Fleet, last_vectors, load, phm08, ridge_of, rmse, subsets
from benchmarks.cmapss import CONFIG as TURBOFAN
from benchmarks.in_process import configured
from contract.model_spec import Ridge, RulModel
from contract.spec import AssetClass
from simulator.recordings.cmapss import Engine

NODES = 10
CURVE = (25, 50, 100, 300)
"""Random features of smaller updates: what accuracy costs in bytes."""

Result = dict[str, float]


def seeded(base: AssetClass, seed: int, **changes: object) -> tuple[RulModel, ...]:
    """Return a class's remaining-life models with another seed; ``changes`` of the ridge model."""
    models: list[RulModel] = []
    for model in base.rul:
        own = changes if isinstance(model, Ridge) else {}
        models.append(msgspec.structs.replace(model, seed=seed, **own))
    return tuple(models)


def deal(task: str, train: list[Engine]) -> list[list[Engine]]:
    """Return the engines of each node."""
    if task == "A":
        return [[e for e in train if (e.unit - 1) % NODES == i] for i in range(NODES)]
    ordered = sorted(train, key=lambda engine: (len(engine), engine.unit))
    share = len(ordered) / NODES
    return [ordered[round(i * share) : round((i + 1) * share)] for i in range(NODES)]


class OneSubset:
    """Tasks A and A-skew: the fleet and one device with all data, played once."""

    def __init__(self, data: Path, task: str, folder: Path) -> None:
        train, test, self.raw = load(data, "FD001")
        self.capped = np.minimum(self.raw, CAP)
        self.base = configured(TURBOFAN, folder, "x").asset_class[0]
        self.fleet = Fleet(folder / "fleet", deal(task, train), holdout=0)
        self.central = Fleet(folder / "central", [train], holdout=0)
        self.X = last_vectors(self.central.devices[0], test)

    def run(self, seed: int, rounds: int) -> Result:
        """Train and judge with one seed."""
        fleet, central, X = self.fleet, self.central, self.X
        for one in (fleet, central):
            one.change(rul=seeded(self.base, seed))
        local = []
        for device in fleet.devices:
            device.learn()
            local.append(rmse(device.group.rul.models["ridge"].predict(X), self.capped))
        basis = fleet.basis()
        together = fleet.ridge(basis, order=list(range(NODES)), twice=False, name="sums")
        order = random.Random(seed).sample(range(NODES), NODES)  # noqa: S311  # an order, no secret
        again = fleet.ridge(basis, order=order, twice=True, name="again")
        all_there = central.basis()
        twin = central.ridge(all_there, order=[0], twice=False, name="sums")
        predicted, expected = together.model.predict(X), twin.model.predict(X)
        network = central_network = float("nan")
        if rounds:
            network = rmse(fleet.network(basis, rounds).predict(X), self.capped)
            central_network = rmse(central.network(all_there, rounds).predict(X), self.capped)
        return {
            "local_mean": float(np.mean(local)),
            "local_worst": float(np.max(local)),
            "federated": rmse(predicted, self.capped),
            "central": rmse(expected, self.capped),
            "federated_raw": rmse(predicted, self.raw),
            "phm08": phm08(predicted, self.raw),
            "max_coefficient_gap": float(
                np.abs(together.model.coefficients - again.model.coefficients).max()
            ),
            "max_prediction_gap": float(np.abs(predicted - expected).max()),
            "bytes_up_per_node": float(together.up),
            "bytes_down_per_node": float(together.down),
            "network_federated": network,
            "network_central": central_network,
        }

    def curve(self, seed: int) -> list[tuple[int, float]]:
        """Return what smaller updates reach: bytes up of one node, in all rounds, and the error."""
        points = []
        for count in CURVE:
            self.fleet.change(rul=seeded(self.base, seed, random=count))
            basis = self.fleet.basis()
            order = list(range(NODES))
            total = self.fleet.ridge(basis, order=order, twice=False, name=f"curve-{count}")
            points.append((total.up, rmse(total.model.predict(self.X), self.capped)))
        return points

    def close(self) -> None:
        """Close all devices."""
        self.fleet.close()
        self.central.close()


class Subsets:
    """Task B: a node for each subset that is there."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.names = subsets(data)
        loaded = [load(data, name) for name in self.names]
        self.base = configured(TURBOFAN, folder, "x").asset_class[0]
        self.raw = [raw for _, _, raw in loaded]
        self.fleet = Fleet(folder / "fleet", [train for train, _, _ in loaded], holdout=0)
        self.X = [
            last_vectors(device, test)
            for device, (_, test, _) in zip(self.fleet.devices, loaded, strict=True)
        ]

    def run(self, seed: int) -> Result:
        """Train and judge with one seed; a node that is alone has the fleet's penalty, too."""
        fleet, raw = self.fleet, np.concatenate(self.raw)
        capped = np.minimum(raw, CAP)
        penalty = ridge_of(self.base).penalty
        # Subsets are unlike each other: each node standardises by its own lives.
        fleet.change(rul=seeded(self.base, seed, penalty_alone=penalty, basis="own"))
        alone = []
        for device, X in zip(fleet.devices, self.X, strict=True):
            device.learn()
            alone.append(device.group.rul.models["ridge"].predict(X))
        basis = fleet.basis()
        order = list(range(len(self.names)))
        totals = fleet.ridge(basis, order=order, twice=False, name="sums")
        down = fleet.hand_out(totals)
        told, pooled = [], []
        result: Result = {}
        for i, (device, X) in enumerate(zip(fleet.devices, self.X, strict=True)):
            personal = device.group.personal
            model = totals.model if personal is None else personal.model
            told.append(model.predict(X))
            lives = device.engine.store.training(device.group.spec)
            one = replace(totals.model, basis=own_basis(totals.model.spec, basis, lives))
            pooled.append(one.predict(X))
            result[f"share_{self.names[i]}"] = 1.0 if personal is None else personal.share
            result[f"federated_{self.names[i]}"] = rmse(told[i], np.minimum(self.raw[i], CAP))
            result[f"local_{self.names[i]}"] = rmse(alone[i], np.minimum(self.raw[i], CAP))
        return result | {
            "local_mean": rmse(np.concatenate(alone), capped),
            "local_worst": max(result[f"local_{name}"] for name in self.names),
            "federated": rmse(np.concatenate(told), capped),
            "federated_worst": max(result[f"federated_{name}"] for name in self.names),
            "central": rmse(np.concatenate(pooled), capped),
            "federated_raw": rmse(np.concatenate(told), raw),
            "phm08": phm08(np.concatenate(told), raw),
            "bytes_up_per_node": float(totals.up),
            "bytes_down_per_node": float(down),
        }

    def close(self) -> None:
        """Close all devices."""
        self.fleet.close()


def table(results: list[Result], rows: list[tuple[str, str]], seeds: list[int]) -> Result:
    """Print a table of all seeds; return the means."""
    mean = {name: float(np.mean([r[name] for r in results])) for name in results[0]}
    print(f"{'':44}" + "".join(f"{'seed ' + str(s):>9}" for s in seeds) + f"{'mean':>9}")
    for text, name in rows:
        cells = "".join(f"{r[name]:9.2f}" for r in results)
        print(f"{text:44}{cells}{mean[name]:9.2f}")
    return mean


def one_subset(arguments: argparse.Namespace, seeds: list[int], folder: Path) -> Result:
    """Run task A or A-skew."""
    began = time.perf_counter()
    played = OneSubset(arguments.data, arguments.task, folder)
    print(f"engines played: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    results = []
    for seed in seeds:
        results.append(played.run(seed, arguments.rounds))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    curve = played.curve(seeds[0])
    played.close()
    dealt = "dealt in turn" if arguments.task == "A" else "sorted by how long they lived"
    print(f"\nC-MAPSS FD001, {NODES} nodes of 10 engines, {dealt}: RMSE in cycles\n")
    rows = [
        ("a device alone, mean of 10", "local_mean"),
        ("a device alone, the worst", "local_worst"),
        ("federated sums", "federated"),
        ("all data in one place", "central"),
        ("federated sums, raw labels", "federated_raw"),
        ("federated sums, PHM08 score", "phm08"),
    ]
    if arguments.rounds:
        rows += [
            (f"network, FedAvg of {arguments.rounds} rounds", "network_federated"),
            (f"network, all data, {arguments.rounds} passes", "network_central"),
        ]
    mean = table(results, rows, seeds)
    for gap in ("max_coefficient_gap", "max_prediction_gap"):
        mean[gap] = max(r[gap] for r in results)
    networks = [mean["network_central"]] if arguments.rounds else []
    mean["best_central"] = min([mean["central"], *networks])
    print(f"\nother order, sent twice: coefficients differ by {mean['max_coefficient_gap']:.1e}")
    print(f"federated and all data: predictions differ by {mean['max_prediction_gap']:.1e} cycles")
    print("\nsent up by a node, in all rounds, and the error (seed 1):")
    points = [*curve, (int(mean["bytes_up_per_node"]), results[0]["federated"])]
    for up, error in points:
        print(f"  {up / 1e6:6.2f} MB   {error:6.2f}")
    enough = [up for up, error in points if error <= 11.4]
    mean["bytes_up_for_11_4"] = float(min(enough, default=float("nan")))
    print(f"sent down to a node: {mean['bytes_down_per_node'] / 1e6:.2f} MB\n")
    return mean | {"rounds": 1.0, "exchanges": 4.0}


def subset_nodes(arguments: argparse.Namespace, seeds: list[int], folder: Path) -> Result:
    """Run task B."""
    began = time.perf_counter()
    played = Subsets(arguments.data, folder)
    print(f"engines played: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    results = []
    for seed in seeds:
        results.append(played.run(seed))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    played.close()
    names = played.names
    print(
        f"\nC-MAPSS, a node for each of {', '.join(names)}: RMSE in cycles over all test engines\n"
    )
    rows = [
        ("each node alone", "local_mean"),
        ("federated, each node's own mixture", "federated"),
        ("  the worst node", "federated_worst"),
        ("one model from all sums", "central"),
        ("federated, raw labels", "federated_raw"),
        ("federated, PHM08 score", "phm08"),
    ]
    for name in names:
        rows += [(f"{name}: alone", f"local_{name}"), ("   federated", f"federated_{name}")]
        rows += [("   share of the others", f"share_{name}")]
    mean = table(results, rows, seeds)
    mean["best_central"] = min(mean["central"], mean["local_mean"])
    print(f"\nsent up by a node {mean['bytes_up_per_node'] / 1e6:.2f} MB, ", end="")
    print(f"down {mean['bytes_down_per_node'] / 1e6:.2f} MB\n")
    return mean | {"rounds": 1.0, "exchanges": 4.0}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train_FD001.txt ...")
    parser.add_argument("--task", choices=["A", "A-skew", "B"], default="A", help="see above")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="of the random features, by commas")
    parser.add_argument("--rounds", type=int, default=6, help="of FedAvg for the network; 0: none")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    run = subset_nodes if arguments.task == "B" else one_subset
    with tempfile.TemporaryDirectory() as folder:
        mean = run(arguments, seeds, Path(folder))
    last: dict[str, object] = {"task": arguments.task, "seeds": seeds}
    last |= {k: round(v, 12) for k, v in mean.items() if not np.isnan(v)}
    print(json.dumps(last))
    return 0


if __name__ == "__main__":
    sys.exit(main())

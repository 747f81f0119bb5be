"""Updates of thousands of nodes: taken in, believed and merged; memory, time, two levels, Flower.

    python -m benchmarks.fleet [--nodes 10000] [--devices 1000]

Virtual nodes tell ridge sums of their own rows (linear and 40 random features over 24). The server
takes each into its ledger as it comes, judges all by its guard and by each other, and adds them up,
reading one at a time; beside it, what holding all of them and stacking their matrices takes. Then
whole trainings: the server's own process with as many nodes, and virtual devices in Flower's
simulation engine (``runout[simulation]``: Ray). Then two levels: regional totals are contributions
to a parent. Last, what polling costs SuperLink (``benchmarks.polls``). Linux.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid

from benchmarks import polls
from benchmarks.throughput import memory_mb
from benchmarks.virtual import FEATURES, MODEL, SEED, SPEC, VirtualGrid, answer, client_app
from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.models.ridge import Basis, GramSums
from contract.update import FIT, Request, Update
from server.guard import Limits, judge
from server.merge import Contribution, Key, Ledger, gram_total
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training
from server.trust import trusted

LIMITS = Limits()
REGIONS = 20


def update_of(number: int) -> Update:
    """Return what a virtual node tells: sums of its rows, under no standardisation."""
    basis = Basis(np.zeros(FEATURES), np.ones(FEATURES)).arrays()
    return answer(number, Request(VERSION, FIT, SPEC.name, SPEC.digest(), 1, ("ridge",)), basis)


def merged(nodes: int, folder: Path) -> dict[str, object]:
    """Take in, believe and merge; return what it took. Runs in a process of its own."""
    request = Request(VERSION, FIT, SPEC.name, SPEC.digest(), 1, ("ridge",))
    ledger = Ledger(folder)
    rest = memory_mb(_own(), "VmRSS")
    taken = 0.0
    for number in range(nodes):
        update = update_of(number)  # as if it came over the wire: not the server's time
        began = time.perf_counter()
        against = judge(update, request, SPEC)
        if against:
            raise SystemExit(f"node {number}: {against}")
        head = update.head
        ledger.put(Contribution(Key(head.node, head.epoch, "basis", head.rows, 1), update.arrays))
        taken += time.perf_counter() - began
    began = time.perf_counter()
    found = trusted(ledger.under("basis"), MODEL.penalty, LIMITS)
    believed_s = time.perf_counter() - began
    began = time.perf_counter()
    total = gram_total(found.contributions)
    if total is None or found.left_out:
        raise SystemExit(f"left out: {found.left_out}")
    coefficients = total.solve(MODEL.penalty)
    added_s = time.perf_counter() - began
    return {
        "taken_s": taken,
        "believed_s": believed_s,
        "added_s": added_s,
        "rest_mb": rest,
        "peak_mb": memory_mb(_own(), "VmHWM"),
        "coefficients": coefficients.tolist(),
    }


def naive(nodes: int, _: Path) -> dict[str, object]:
    """Hold all updates, stack their matrices, add; return what it took. In a process of its own."""
    held = [GramSums.from_arrays(update_of(number).arrays, "ridge/") for number in range(nodes)]
    began = time.perf_counter()
    gram = np.stack([one.gram for one in held]).sum(axis=0)
    target = np.stack([one.target for one in held]).sum(axis=0)
    n = sum(one.n for one in held)
    total = GramSums(n, gram, target, sum(one.energy for one in held))
    coefficients = total.solve(MODEL.penalty)
    return {
        "added_s": time.perf_counter() - began,
        "peak_mb": memory_mb(_own(), "VmHWM"),
        "coefficients": coefficients.tolist(),
    }


def two_levels(nodes: int, folder: Path) -> Floats:
    """Merge regions first, each total a contribution to a parent; return the coefficients."""
    parent = Ledger(folder / "parent")
    for region in range(REGIONS):
        ledger = Ledger(folder / f"region-{region}")
        for number in range(region, nodes, REGIONS):
            head, arrays = update_of(number).head, update_of(number).arrays
            ledger.put(Contribution(Key(head.node, 1, "basis", head.rows, 1), arrays))
        told = ledger.under("basis")
        total = gram_total(told)
        if total is None:
            raise SystemExit("a region without nodes")
        rows = sum(key.rows for key in told.keys)
        own: Arrays = total.arrays("ridge/")
        parent.put(Contribution(Key(f"region-{region}", 1, "basis", rows, len(told)), own))
    whole = gram_total(parent.under("basis"))
    if whole is None:
        raise SystemExit("no regions")
    return whole.solve(MODEL.penalty)


def training_of(grid: Grid, state: Path) -> Training:
    """Return a training on such a fleet, as the server runs it."""
    settings = Settings(
        state=state,
        asset_class="",
        rounds=1,
        min_nodes=1,
        deadline_s=3600.0,
        interval_s=3600.0,
        strategy="fedavg",
        serve=False,
        guard=LIMITS,
    )
    return Training(settings, Fleet(grid), Status())


def served(nodes: int, folder: Path) -> dict[str, object]:
    """Run a whole training with nodes that answer at once; what it takes the server's process."""
    training = training_of(VirtualGrid(nodes), folder)
    rest = memory_mb(_own(), "VmRSS")
    began = time.perf_counter()
    release = training.run()
    if release is None or len(release.manifest.contributors) != nodes:
        raise SystemExit(f"the training brought nothing: {training.status.failed}")
    up = sum(training.fleet.bytes_up.values())
    return {
        "seconds": time.perf_counter() - began,
        "rest_mb": rest,
        "peak_mb": memory_mb(_own(), "VmHWM"),
        "up_mb": up / 1e6,
        "down_mb": sum(training.fleet.bytes_down.values()) / 1e6,
    }


def simulated(nodes: int, folder: Path) -> dict[str, object]:
    """Run a whole training in Flower's simulation engine; in a process of its own."""
    # Here, not above: they are an extra.
    from flwr.serverapp import ServerApp  # noqa: PLC0415
    from flwr.simulation import run_simulation  # noqa: PLC0415

    app = ServerApp()
    found: dict[str, object] = {}

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        training = training_of(grid, folder)
        pause = threading.Event()
        while len(training.fleet.online()) < nodes:
            pause.wait(0.1)
        began = time.perf_counter()
        release = training.run()
        if release is None or len(release.manifest.contributors) != nodes:
            raise SystemExit(f"the training brought nothing: {training.status.failed}")
        seconds = training.status.seconds
        found["seconds"] = time.perf_counter() - began
        # Ray starts its workers with the first question, which is left out.
        found["clients_per_s"] = 2 * nodes / (seconds["fit 1"] + seconds["evaluate"])

    run_simulation(app, client_app, nodes, backend_config={"client_resources": {"num_cpus": 1}})
    return found


def _own() -> int:
    return int(Path("/proc/self").readlink().name)


def _apart(part: str, nodes: int, folder: Path) -> dict[str, object]:
    """Run a part in a process of its own: so its peak of memory is its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.fleet", "--part", part),
            *("--nodes", str(nodes), "--folder", str(folder)),
        ],
        env=os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        stderr=subprocess.DEVNULL if part == "simulated" else None,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, object])


PARTS: dict[str, Callable[[int, Path], dict[str, object]]] = {
    "merged": merged,
    "naive": naive,
    "served": served,
    "simulated": simulated,
}


def _number(told: dict[str, object], name: str) -> float:
    value = told[name]
    return float(value) if isinstance(value, int | float) else math.nan


def _served_table(counts: list[int]) -> dict[str, object]:
    """Print what a whole training takes, by nodes."""
    print("\na whole training (statistics, sums, evaluation), nodes that answer at once")
    columns = ["nodes", "s", "peak, MB", "up, kB each", "down, kB each"]
    print("".join(f"{text:>14}" for text in columns))
    peak_mb = 0.0
    for nodes in counts:
        with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
            told = _apart("served", nodes, Path(name))
        cells = [_number(told, "seconds"), _number(told, "peak_mb")]
        cells += [_number(told, "up_mb") * 1e3 / nodes, _number(told, "down_mb") * 1e3 / nodes]
        print(f"{nodes:14,}" + "".join(f"{cell:14.1f}" for cell in cells), flush=True)
        peak_mb = round(_number(told, "peak_mb"), 1)

    return {"server_rss_mb": peak_mb}


def _simulated_line(devices: int) -> float | None:
    """Print how Flower's simulation engine does; returns clients a second."""
    if importlib.util.find_spec("ray") is None:
        print("\nFlower's simulation engine is not there: pip install 'runout[simulation]'")
        return None
    with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
        told = _apart("simulated", devices, Path(name))
    print(
        f"\n{devices:,} virtual devices in Flower's simulation engine: a training "
        f"in {_number(told, 'seconds'):.0f} s, {_number(told, 'clients_per_s'):.0f} clients/s"
    )
    return round(_number(told, "clients_per_s"), 1)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=1000, help="in Flower's simulation engine")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.nodes, arguments.folder)))
        return
    counts = sorted(
        {max(arguments.nodes // 100, 8), max(arguments.nodes // 10, 8), arguments.nodes}
    )
    update = update_of(0)
    size = sum(array.nbytes for array in update.arrays.values())
    print(f"seed {SEED}; an update has {size:,} bytes\n")
    head = ("nodes", "take in, ms", "believe, s", "add, s", "peak, MB", "all held, MB", "added, s")
    print("".join(f"{text:>14}" for text in head))
    last: dict[str, object] = {}
    flat = np.zeros(0)
    for nodes in counts:
        with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
            ours = _apart("merged", nodes, Path(name))
            held = _apart("naive", nodes, Path(name))
        flat, other = (np.asarray(one["coefficients"], dtype=np.float64) for one in (ours, held))
        if np.abs(flat - other).max() > 1e-9 * np.abs(flat).max():
            raise SystemExit("streamed and held totals differ")
        take_ms = _number(ours, "taken_s") / nodes * 1e3
        merge_s = _number(ours, "believed_s") + _number(ours, "added_s")
        cells = [take_ms, _number(ours, "believed_s"), _number(ours, "added_s")]
        cells += [_number(ours, "peak_mb"), _number(held, "peak_mb"), _number(held, "added_s")]
        print(f"{nodes:14,}" + "".join(f"{cell:14.2f}" for cell in cells), flush=True)
        last = {
            "nodes": nodes,
            "merge_s": round(merge_s, 3),
            "take_in_ms": round(take_ms, 3),
            "rss_mb": round(_number(ours, "peak_mb"), 1),
            "naive_rss_mb": round(_number(held, "peak_mb"), 1),
        }
    with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
        regional = two_levels(counts[-1], Path(name))
    gap = float(np.abs(regional - flat).max())
    print(f"\ntwo levels, {REGIONS} regions: coefficients {gap:.1e} apart from the flat total's")
    last["two_level_gap"] = gap

    last |= _served_table(counts)
    last["simulated_clients_per_s"] = _simulated_line(arguments.devices)
    print("\npolls of nodes that wait")
    found = polls.measure(seconds=10.0, registered=200)
    last["polls_per_s_at_half_core"] = found["polls_per_s_at_half_core"]
    print(json.dumps(last))


if __name__ == "__main__":
    main()

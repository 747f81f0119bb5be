"""Updates of thousands of nodes: taken in, believed and merged; memory, time, two levels.

    python -m benchmarks.fleet [--nodes 10000]

Virtual nodes tell ridge sums of their own rows (linear and 40 random features over 24). The server
takes each into its ledger as it comes, judges all by its guard and by each other, and adds them up,
reading one at a time; beside it, what holding all of them and stacking their matrices takes. Then
the same in two levels: regional totals are contributions to a parent. Linux.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.throughput import memory_mb
from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.model_spec import Ridge
from contract.models.ridge import Basis, GramSums
from contract.spec import AssetClass, Channel
from contract.update import FIT, Request, Update, UpdateHead
from server.guard import Limits, judge
from server.merge import Contribution, Key, Ledger, gram_total
from server.trust import trusted

FEATURES = 24
MODEL = Ridge(random=40)
SPEC = AssetClass(
    "pump",
    tuple(Channel(f"c{i:02d}", "1") for i in range(FEATURES)),
    stats=("last",),
    rul=(MODEL,),
)
LIMITS = Limits()
REGIONS = 20
SEED = 1


def update_of(number: int) -> Update:
    """Return what a virtual node tells: sums of 50 rows of the fleet's line, and noise."""
    rng = np.random.default_rng((SEED, number))
    Z = rng.normal(size=(50, FEATURES))
    y = np.clip(60.0 + 12.0 * Z[:, 0] - 5.0 * Z[:, 1] + 4.0 * rng.normal(size=50), 0.0, 125.0)
    basis = Basis(np.zeros(FEATURES), np.ones(FEATURES))
    sums = GramSums.of_rows(basis, MODEL, [(Z, y, np.ones(50))])
    head = UpdateHead(VERSION, FIT, SPEC, f"node-{number:05d}", 1, 50, 1, 0, 0, {})
    return Update(head, sums.arrays("ridge/"))


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


def naive(nodes: int) -> dict[str, object]:
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


def _own() -> int:
    return int(Path("/proc/self").readlink().name)


def _apart(part: str, nodes: int, folder: Path) -> dict[str, object]:
    """Run a part in a process of its own: so its peak of memory is its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.fleet", "--part", part),
            *("--nodes", str(nodes), "--folder", str(folder)),
        ],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, object])


def _number(told: dict[str, object], name: str) -> float:
    value = told[name]
    return float(value) if isinstance(value, int | float) else math.nan


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--part", choices=["merged", "naive"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        folder = arguments.folder
        found = (
            merged(arguments.nodes, folder)
            if arguments.part == "merged"
            else naive(arguments.nodes)
        )
        print(json.dumps(found))
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
    print(json.dumps({**last, "two_level_gap": gap}))


if __name__ == "__main__":
    main()

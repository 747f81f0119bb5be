"""How soon a drift is found, and how often where there is none.

    python -m benchmarks.drift

The agent's own detector (``agent.drift``), many signals at once, beside River's ADWIN and
Page-Hinkley with their defaults. Signals of standard deviation one, independent or autoregressive
(0.9): a step of one, a variance of twice, a level that rises by one in 500 rows. A delay counts
rows from the change to the row behind which it was told; where nothing was told, 2,500. Settings
were chosen on seeds 1 to 12.

The bound: a CUSUM that knows the process, the shift and its sign, with a limit for the same rate of
false alarms. No detector that has to find out these things is faster.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.drift import Watch
from contract.arrays import Floats
from contract.model_spec import Drift

ALIKE = {"iid": 0.0, "ar": 0.9}
CHANGES = "mean", "variance", "gradual"
BEFORE, AFTER, CALM = 1000, 2500, 10_000
Find = Callable[[Floats], list[list[int]]]
"""Returns the rows at which a drift was told, for each signal of rows ``(n, S)``."""


def signals(alike: float, rows: int, count: int, seed: int) -> Floats:
    """Return signals ``(rows, count)`` of standard deviation one."""
    e = np.random.default_rng(seed).normal(size=(rows, count))
    for t in range(1, rows):
        e[t] = alike * e[t - 1] + np.sqrt(1.0 - alike**2) * e[t]
    return e


def changed(X: Floats, at: int, change: str) -> Floats:
    """Return signals that change at a row."""
    X = X.copy()
    if change == "mean":
        X[at:] += 1.0
    elif change == "variance":
        X[at:] *= np.sqrt(2.0)
    elif change == "gradual":
        X[at:] += np.minimum(np.arange(len(X) - at) / 500.0, 2.0)[:, None]
    return X


def told(spec: Drift) -> Find:
    """Return the agent's detector."""

    def find(X: Floats) -> list[list[int]]:
        watch = Watch(spec, X.shape[1])
        found: list[list[int]] = [[] for _ in range(X.shape[1])]
        for i, row in enumerate(X):
            for alarm in watch.push(row):
                found[alarm.column].append(i)
        return found

    return find


def river(name: str) -> Find:
    """Return one of River's detectors."""
    drift: Any = importlib.import_module("river.drift")

    def find(X: Floats) -> list[list[int]]:
        found = []
        for signal in X.T.tolist():
            detector = getattr(drift, name)()
            rows = []
            for i, value in enumerate(signal):
                detector.update(value)
                if detector.drift_detected:
                    rows.append(i)
            found.append(rows)
        return found

    return find


def false_alarms(find: Find, alike: float, warm: int, count: int, seed: int) -> float:
    """Return false alarms in 10,000 rows behind a warm-up."""
    X = signals(alike, warm + CALM, count, seed)
    return sum(row >= warm for rows in find(X) for row in rows) / count / CALM * 10_000


def delay(find: Find, alike: float, change: str, warm: int, count: int, seed: int) -> float:
    """Return the mean delay in rows."""
    at = warm + BEFORE
    X = changed(signals(alike, at + AFTER, count, seed), at, change)
    first = [next((row - at + 1 for row in rows if row >= at), AFTER) for rows in find(X)]
    return float(np.mean(first))


def known(alike: float, per_10k: float, count: int, seed: int) -> float:
    """Return the delay to a step of one of a one-sided CUSUM that knows all but its time."""
    noise = np.sqrt(1.0 - alike**2)
    shift = (1.0 - alike) / noise

    def gains(X: Floats, mean: float) -> Floats:
        e = (X[1:] - alike * X[:-1]) / noise
        g: Floats = shift * (e + mean) - shift**2 / 2.0
        return g

    X = signals(alike, 20_001, count, seed)
    calm = gains(X, 0.0)
    low, high = 1.0, 15.0
    for _ in range(20):
        limit = (low + high) / 2.0
        sums, alarms = np.zeros(count), 0
        for g in calm:
            sums = np.maximum(sums + g, 0.0)
            over = sums > limit
            alarms += int(over.sum())
            sums[over] = 0.0
        low, high = (limit, high) if alarms / count / 2.0 > per_10k else (low, limit)
    sums, first = np.zeros(count), np.full(count, AFTER)
    for i, g in enumerate(calm):
        # The first residual bears the whole step, the others what of it is not foretold.
        step = 0.0 if i < BEFORE else 1.0 / noise if i == BEFORE else shift
        sums = np.maximum(sums + g + shift * step, 0.0)
        over = (sums > limit) & (i >= BEFORE)
        first = np.where(over, np.minimum(first, i - BEFORE + 1), first)
        sums = np.where((sums > limit) & (i < BEFORE), 0.0, sums)
        if i >= BEFORE + AFTER:
            break
    return float(first.mean())


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=300, help="of each kind")
    parser.add_argument("--peers", type=int, default=20, help="of each kind, for River's detectors")
    parser.add_argument("--seed", type=int, default=21, help="of the signals")
    arguments = parser.parse_args()
    spec = Drift()
    finders: dict[str, tuple[Find, int]] = {"Runout": (told(spec), arguments.signals)}
    if importlib.util.find_spec("river") is not None:
        finders |= {name: (river(name), arguments.peers) for name in ("ADWIN", "PageHinkley")}
    else:
        print("river is not installed: no peers", file=sys.stderr)
    print("\n| | signals | false alarms in 10,000 | delay: mean | variance | gradual |")
    print("|---|---|---|---|---|---|")
    last: dict[str, float] = {}
    for name, (find, count) in finders.items():
        for kind, alike in ALIKE.items():
            began = time.process_time()
            alarms = false_alarms(find, alike, spec.warm, count, arguments.seed)
            waits = [
                delay(find, alike, change, spec.warm, count, arguments.seed + 1)
                for change in CHANGES
            ]
            print(
                f"| {name} | {kind} | {alarms:.2f} | "
                + " | ".join(f"{w:.0f}" for w in waits)
                + " |",
                flush=True,
            )
            print(f"{name} {kind}: {time.process_time() - began:.0f} s", file=sys.stderr)
            prefix = "" if name == "Runout" else f"{name.lower()}_"
            last[f"{prefix}false_alarms_per_10k_{kind}"] = round(alarms, 3)
            for change, wait in zip(CHANGES, waits, strict=True):
                last[f"{prefix}delay_{change}_{kind}"] = round(wait, 1)
    for kind, alike in ALIKE.items():
        rate = 1.0
        last[f"bound_delay_mean_{kind}"] = round(
            known(alike, rate, arguments.signals, arguments.seed + 2), 1
        )
        wait = last[f"bound_delay_mean_{kind}"]
        print(f"| bound: all known but the time | {kind} | {rate:.2f} | {wait:.0f} | | |")
    # The keys of the contract: what is asked of a device that knows nothing of autocorrelation.
    named = {f"delay_{change}": last[f"delay_{change}_iid"] for change in CHANGES}
    print()
    print(json.dumps(last | named))
    return 0


if __name__ == "__main__":
    sys.exit(main())

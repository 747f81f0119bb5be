"""Remaining life on one subset of C-MAPSS, all data in one place, in one pass.

    python -m benchmarks.rul --data ../shared/data/cmapss_fd001 --subset FD001

Through the agent's own pipeline, store and sums. RUL is capped at 125 cycles; what is judged is the
last cycle of each test engine. Settings are those of ``configs/agent.turbofan.toml``, chosen on
training engines of FD001 only; operating regimes are found from the three settings. The interval is
calibrated on training engines, each told by a model that has not learnt it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.cmapss import CAP, CONFIG, Fleet, last_vectors, load, phm08, rmse
from benchmarks.federation import seeded, table
from benchmarks.in_process import configured

SUBSETS = ["FD001", "FD002", "FD003", "FD004"]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train_FD001.txt ...")
    parser.add_argument("--subset", choices=SUBSETS, default="FD001", help="which")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="of the random features, by commas")
    parser.add_argument("--random", type=int, help="random features, in place of the settings'")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    train, test, raw = load(arguments.data, arguments.subset)
    capped = np.minimum(raw, CAP)
    changes = {} if arguments.random is None else {"random": arguments.random}
    began = time.perf_counter()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        base = configured(CONFIG, Path(folder), "x").asset_class[0]
        fleet = Fleet(Path(folder) / "central", [train], holdout=0)
        device = fleet.devices[0]
        X = last_vectors(device, test)
        regimes = device.group.levels.regimes
        print(f"engines played: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        for seed in seeds:
            fleet.change(rul=seeded(base, seed, **changes))
            basis = fleet.basis()
            told = fleet.ridge(basis, order=[0], twice=False, name="sums").model.predict(X)
            interval = fleet.interval(basis)
            if interval is None:
                raise SystemExit("too few engines for an interval")
            ends = np.array([interval.around(float(hours)) for hours in told])
            inside = (ends[:, 0] <= capped) & (capped <= ends[:, 1])
            results.append(
                {
                    "rmse_capped": rmse(told, capped),
                    "rmse_raw": rmse(told, raw),
                    "phm08": phm08(told, raw),
                    "coverage": float(inside.mean()),
                    "width": float((ends[:, 1] - ends[:, 0]).mean()),
                    "nominal": interval.coverage,
                }
            )
            print(f"seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        fleet.close()
    print(
        f"\nC-MAPSS {arguments.subset}: {len(train)} engines learnt, {len(test)} judged; ", end=""
    )
    print(f"operating regimes found: {regimes}\n")
    rows = [
        ("RMSE in cycles, labels capped at 125", "rmse_capped"),
        ("RMSE, raw labels", "rmse_raw"),
        ("PHM08 score", "phm08"),
        ("interval: share of the truths within", "coverage"),
        ("interval: nominal", "nominal"),
        ("interval: mean width in cycles", "width"),
    ]
    mean = table(results, rows, seeds)
    print()
    last: dict[str, object] = {"subset": arguments.subset, "seeds": seeds, "regimes": regimes}
    print(json.dumps(last | {name: round(value, 6) for name, value in mean.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

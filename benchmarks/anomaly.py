"""Anomalies in recordings with labels, by the device's own pipeline.

    python -m benchmarks.anomaly --dataset skab --data ../shared/data/skab_gpl3
    python -m benchmarks.anomaly --dataset nab --data ../shared/data/nab

SKAB by its leaderboard's protocol (``benchmarks.skab``), beside a detector that always alarms and
Hotelling's T² on a 30 s mean; NAB by its published scoring rules (``benchmarks.nab``), beside a
simple detector. Settings are those of ``configs/agent.skab.toml`` and ``configs/agent.nab.toml``.
``--more`` also leaves out one setting at a time, and judges each file by settings chosen on others.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks import nab, skab


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--dataset", choices=["skab", "nab"], required=True, help="which")
    parser.add_argument("--data", type=Path, required=True, help="folder in its original layout")
    parser.add_argument("--more", action="store_true", help="ablation, and files held out")
    arguments = parser.parse_args()
    judge = {"skab": judge_skab, "nab": judge_nab}[arguments.dataset]
    print(json.dumps(judge(arguments.data, more=arguments.more)))
    return 0


def judge_skab(data: Path, *, more: bool) -> dict[str, object]:
    """Print a table; return what is to be compared."""
    began = time.perf_counter()
    files = skab.load(data)
    faulty = np.concatenate([file.judged for file in files])
    own = [skab.score(file) for file in files]
    figures = skab.Figures.of(np.concatenate(own), faulty, 1.0)
    took = time.perf_counter() - began
    lines = {
        "all rows told anomalous": skab.Figures.of(np.ones(len(faulty)), faulty, 0.5),
        "T² on a 30 s mean, limit 8": skab.Figures.of(
            np.concatenate([skab.t2_scores(file.values) for file in files]), faulty, 8.0
        ),
        "Runout": figures,
    }
    groups = [file.name.partition("-")[0] for file in files]
    for group in dict.fromkeys(groups):
        of = [i for i, name in enumerate(groups) if name == group]
        lines[f"  {group}, {len(of)} files"] = skab.Figures.of(
            np.concatenate([own[i] for i in of]),
            np.concatenate([files[i].judged for i in of]),
            1.0,
        )
    for file, scores in zip(files, own, strict=True) if more else ():
        lines[f"  {file.name}"] = skab.Figures.of(scores, file.judged, 1.0)
    if more:
        lines |= skab.ablated(files)
        if len(files) > 1:
            lines["settings chosen on the other files"] = skab.held_out(files)
    print(f"{'':44}{'F1':>8}{'FAR %':>8}{'MAR %':>8}{'AUROC':>8}")
    for name, f in lines.items():
        print(f"{name:44}{f.f1:8.3f}{f.far_percent:8.1f}{f.mar_percent:8.1f}{f.auroc:8.3f}")
    print(f"\n{len(files)} files, {len(faulty)} rows judged, {took:.1f} s")
    return {"dataset": "skab", **{k: round(v, 4) for k, v in asdict(figures).items()}}


def judge_nab(data: Path, *, more: bool) -> dict[str, object]:
    """Print a table; return what is to be compared."""
    began = time.perf_counter()
    files = nab.load(data)
    told = [nab.detections(file) for file in files]
    took = time.perf_counter() - began
    lines: dict[str, list[list[int]]] = {
        "nothing detected": [[] for _ in files],
        "4 deviations from all before": [nab.simple(file) for file in files],
        "Runout": told,
    }
    if more and len(files) > 1:
        lines["Runout, margin chosen on the other files"] = nab.held_out(files)
    print(f"{'':44}" + "".join(f"{name:>10}" for name in nab.PROFILES))
    for name, rows in lines.items():
        scores = [nab.score(files, rows, profile) for profile in nab.PROFILES.values()]
        print(f"{name:44}" + "".join(f"{score:10.1f}" for score in scores))
    for file, at in zip(files, told, strict=True) if more else ():
        print(f"  {file.name}: windows {list(file.windows)}, detections {at}")
    print(f"\n{len(files)} files, {sum(len(f.values) for f in files)} rows, {took:.0f} s")
    found = {k: round(nab.score(files, told, profile), 2) for k, profile in nab.PROFILES.items()}
    return {"dataset": "nab", **found}


if __name__ == "__main__":
    raise SystemExit(main())

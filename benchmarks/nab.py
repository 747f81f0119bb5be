"""The Numenta Anomaly Benchmark by its published rules, through the device's own pipeline.

A. Lavin and S. Ahmad, *Evaluating real-time anomaly detection algorithms: the Numenta Anomaly
Benchmark*, ICMLA 2015. In each labelled window the first detection counts, the more the earlier;
each detection outside costs, less so shortly after a window; a window without one costs. The first
15 % of a file, 750 rows at most, are for learning and are not judged. Scores of all files are added
and scaled: 0 is to detect nothing, 100 all at once.

Each file is a stream on a device of its own, and a detection is an alert that is raised.
"""

import gzip
import json
import math
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from agent.config import Report
from benchmarks.in_process import HOUR_NS, START_NS, Device, configured
from benchmarks.skab import changed
from contract.arrays import Floats
from contract.report import Alert

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "agent.nab.toml"


@dataclass(frozen=True, slots=True)
class Profile:
    """What detections are worth.

    Attributes:
        hit: a window that is detected at once.
        false: costs of a detection where there is nothing.
        miss: costs of a window without one.
    """

    hit: float
    false: float
    miss: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "low_fp": Profile(1.0, 0.22, 1.0),
    "low_fn": Profile(1.0, 0.11, 2.0),
}


@dataclass(frozen=True, slots=True)
class File:
    """A stream.

    Attributes:
        name: as in the labels.
        values: of it ``(n,)``.
        hours: of the day ``(n,)``.
        windows: first and last row of each labelled window, in order.
    """

    name: str
    values: Floats
    hours: Floats
    windows: tuple[tuple[int, int], ...]


def sigmoid(x: float) -> float:
    """Return the worth of a detection at a place relative to a window's end.

    >>> round(sigmoid(-1.0), 4), sigmoid(0.0), sigmoid(3.5)
    (0.9866, 0.0, -1.0)
    """
    return -1.0 if x > 3.0 else 2.0 / (1.0 + math.exp(5.0 * x)) - 1.0


def probation(rows: int) -> int:
    """Return how many rows of a file are for learning.

    >>> probation(1000), probation(20_000)
    (150, 750)
    """
    return min(int(0.15 * rows), int(0.15 * 5000))


def raw_score(file: File, detections: list[int], profile: Profile) -> float:
    """Return the score of the rows ``detections``, ascending, of one file."""
    best = [-profile.miss] * len(file.windows)
    total = 0.0
    for row in detections:
        if row < probation(len(file.values)):
            continue
        before = [window for window in file.windows if window[1] < row]
        inside = len(before)
        if inside < len(file.windows) and file.windows[inside][0] <= row:
            first, last = file.windows[inside]
            worth = sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0)
            best[inside] = max(best[inside], profile.hit * worth)
        elif before:
            first, last = before[-1]
            total += profile.false * sigmoid((row - last) / max(last - first, 1))
        else:
            total -= profile.false
    return total + sum(best)


def score(files: list[File], detections: list[list[int]], profile: Profile) -> float:
    """Return the score of all files: 0 detects nothing, 100 all at once and nothing else."""
    pairs = zip(files, detections, strict=True)
    raw = sum(raw_score(file, rows, profile) for file, rows in pairs)
    windows = sum(len(file.windows) for file in files)
    nothing, perfect = -profile.miss * windows, profile.hit * windows
    return 100.0 * (raw - nothing) / (perfect - nothing)


def load(data: Path) -> list[File]:
    """Return all files that the labels name and the folder holds."""
    labels = json.loads((data / "labels" / "combined_windows.json").read_text())
    found = []
    for name, spans in sorted(labels.items()):
        path = data / "data" / name
        if not path.exists():
            path = path.with_name(path.name + ".gz")
        if not path.exists():
            continue
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            next(lines)
            rows = [line.strip().split(",") for line in lines if line.strip()]
        times = [datetime.fromisoformat(row[0]) for row in rows]
        windows = []
        for begin, end in spans:
            first, last = datetime.fromisoformat(begin), datetime.fromisoformat(end)
            at = [i for i, time in enumerate(times) if first <= time <= last]
            if at:
                windows.append((at[0], at[-1]))
        values = np.array([float(row[1]) for row in rows])
        hours = np.array([float(time.hour) for time in times])
        found.append(File(name, values, hours, tuple(sorted(windows))))
    if not any(file.windows for file in found):
        raise SystemExit(f"{data} holds no file with windows in labels/combined_windows.json")
    return found


def detections(file: File, **changes: object) -> list[int]:
    """Play a stream to a device of its own; return the rows at which an alert is raised.

    ``changes``: see ``benchmarks.skab.changed``.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = configured(CONFIG, Path(folder), "bench")
        (spec,) = config.asset_class
        baseline = probation(len(file.values)) - spec.warmup + 1
        spec = changed(spec, {"health.baseline": max(baseline, 4), **changes})
        config = msgspec.structs.replace(
            config,
            asset_class=(spec,),
            functions=str(ROOT / config.functions),
            report=Report(health_every_s=1e12),
        )
        device = Device(config)
        values = np.stack([file.values, file.hours], axis=1)
        said = device.live("stream", values, failed=False)
        device.close()
    raised = [one.t for one in said if isinstance(one, Alert) and one.state == "raised"]
    return [round((t * 1e9 - START_NS) / HOUR_NS) - 1 for t in raised]


def simple(file: File, deviations: float = 4.0, pause: int = 100) -> list[int]:
    """Return the rows that lie so many deviations from the mean of all before.

    After each there is none for a while.
    """
    values = file.values
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    n = np.arange(1, len(values))
    mean = sums[:-1] / n
    sd = np.sqrt(np.maximum(squares[:-1] / n - mean**2, 1e-12))
    told: list[int] = []
    for row in (np.flatnonzero(np.abs(values[1:] - mean) > deviations * sd) + 1).tolist():
        if row >= probation(len(values)) and (not told or row >= told[-1] + pause):
            told.append(row)
    return told


MARGINS = (1.0, 1.1, 1.2, 1.3, 1.5)


def held_out(files: list[File]) -> list[list[int]]:
    """Return the detections in each file by the margin that is best on the others."""
    found = {m: [detections(file, **{"health.margin": m}) for file in files] for m in MARGINS}
    standard = PROFILES["standard"]
    told = []
    for i in range(len(files)):
        others = [j for j in range(len(files)) if j != i]
        left = [files[j] for j in others]

        def on_others(margin: float, others: list[int] = others, left: list[File] = left) -> float:
            return score(left, [found[margin][j] for j in others], standard)

        told.append(found[max(MARGINS, key=on_others)][i])
    return told

"""The Skoltech Anomaly Benchmark by its leaderboard's protocol, through the device's own pipeline.

The first 400 rows of each file are its training part, all others are judged, one setting for all
files, rows pooled. Each file is the life of a circuit on a device of its own: nothing of one is
known to another. A row counts as told anomalous if its score is over the limit.
"""

import gzip
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.config import Report
from benchmarks.in_process import Device, configured
from contract.arrays import Floats
from contract.report import Health
from contract.spec import AssetClass

CONFIG = Path(__file__).parent.parent / "configs" / "agent.skab.toml"
TRAIN = 400
CHANNELS = 8

Truth = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class File:
    """A recording.

    Attributes:
        name: group and number.
        values: rows ``(n, 8)``.
        faulty: which rows are labelled so ``(n,)``.
    """

    name: str
    values: Floats
    faulty: Truth

    @property
    def judged(self) -> Truth:
        """Return the labels of the rows that are judged."""
        return self.faulty[TRAIN:]


@dataclass(frozen=True, slots=True)
class Figures:
    """How well rows were told apart.

    Attributes:
        f1: of anomalous rows.
        far_percent: of healthy rows that were told anomalous.
        mar_percent: of anomalous rows that were not.
        auroc: of the scores, whatever the limit.
    """

    f1: float
    far_percent: float
    mar_percent: float
    auroc: float

    @classmethod
    def of(cls, scores: Floats, faulty: Truth, limit: float) -> "Figures":
        """Judge scores ``(n,)`` against labels ``(n,)``.

        >>> Figures.of(np.array([0.1, 0.2, 3.0, 4.0]), np.array([False, False, True, True]), 1.0)
        Figures(f1=1.0, far_percent=0.0, mar_percent=0.0, auroc=1.0)
        """
        told = scores > limit
        tp, fp = int((told & faulty).sum()), int((told & ~faulty).sum())
        fn, tn = int((~told & faulty).sum()), int((~told & ~faulty).sum())
        return cls(
            2 * tp / max(2 * tp + fp + fn, 1),
            100.0 * fp / max(fp + tn, 1),
            100.0 * fn / max(fn + tp, 1),
            auroc(scores, faulty),
        )


def auroc(scores: Floats, faulty: Truth) -> float:
    """Return how often an anomalous row scores higher than a healthy one; ties are half.

    >>> auroc(np.array([1.0, 1.0, 2.0]), np.array([False, True, True]))
    0.75
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    bad = int(faulty.sum())
    good = len(faulty) - bad
    if not bad or not good:
        return float("nan")
    return float((ranks[faulty].sum() - bad * (bad + 1) / 2.0) / (bad * good))


def load(data: Path) -> list[File]:
    """Return all labelled recordings below a folder, in the order of their names.

    Those without labels, as of a circuit that is healthy throughout, are not judged.
    """
    found = []
    for path in sorted(data.glob("data/*/*.csv*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            header = lines.readline().strip().split(";")
            if "anomaly" not in header:
                continue
            label = header.index("anomaly") - 1
            rows = [[float(cell) for cell in line.split(";")[1:]] for line in lines if line.strip()]
        table = np.array(rows)
        name = f"{path.parent.name}-{path.name.partition('.')[0]}"
        found.append(File(name, table[:, :CHANNELS].copy(), table[:, label] > 0.5))
    if not found:
        raise SystemExit(f"{data} holds no data/<group>/<n>.csv with a column 'anomaly'")
    return found


def score(file: File, **changes: object) -> Floats:
    """Play a recording to a device of its own; return the scores ``(n - 400,)`` of what is judged.

    ``changes``: of the class, or of its health by ``health.name``.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = configured(CONFIG, Path(folder), "bench")
        spec = changed(config.asset_class[0], changes)
        report = Report(health_every_s=0.0)
        device = Device(msgspec.structs.replace(config, asset_class=(spec,), report=report))
        said = device.live(file.name, file.values, failed=False)
        device.close()
    told = [one.score for one in said if isinstance(one, Health)]
    return np.array([0.0 if one is None else one for one in told[-(len(file.values) - TRAIN) :]])


def changed(spec: AssetClass, changes: dict[str, object]) -> AssetClass:
    """Return a class with some of its settings changed."""
    health = {k.removeprefix("health."): v for k, v in changes.items() if k.startswith("health.")}
    own = {k: v for k, v in changes.items() if not k.startswith("health.")}
    judged = msgspec.structs.replace(spec.health, **health)
    return msgspec.structs.replace(spec, health=judged, **own)


def t2_scores(values: Floats, rows: int = 30) -> Floats:
    """Return the root of Hotelling's T² of a rolling mean, its moments those of the first 400."""
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - rows, 0)
    means = (sums[ends] - sums[begins]) / (ends - begins)[:, None]
    train = means[rows:TRAIN]
    Z = (means - train.mean(axis=0)) / train.std(axis=0)
    covariance = np.cov(Z[rows:TRAIN].T) + 0.1 * np.eye(values.shape[1])
    t2 = np.einsum("ni,ij,nj->n", Z, np.linalg.inv(covariance), Z)
    return np.asarray(np.sqrt(t2)[TRAIN:])


ABLATIONS: dict[str, dict[str, object]] = {
    "no channel wanders further than it shows": {"wander": 1.0},
    "only the temperatures do (6, 4)": {"wander": 1.0, "temperature": 6.0, "thermocouple": 4.0},
    "the temperatures are not watched": {"wander": 1.0, "temperature": 1e6, "thermocouple": 1e6},
    "the own mean of all the beginning": {"health.recent": 0},
    "the own mean stays": {"health.follow": 0.0},
    "no floor of the own variance": {"health.floor": 0.0},
    "the largest deviation alone": {"health.power": 0},
    "squares in place of fourth powers": {"health.power": 2},
}
"""What is left out of the settings, one at a time; the limit stays."""
ROWS = (30, 45, 60)
RECENT = (100, 200, 400)
FOLLOW = (0.0, 800.0)
LIMITS = np.arange(0.5, 2.5, 0.05)
MOST_FAR = 12.0


def without(changes: dict[str, object], spec: AssetClass) -> dict[str, object]:
    """Return changes with those of channels' wandering as the channels that they make."""
    wander = {c.name: changes.get(c.name, changes.get("wander", c.wander)) for c in spec.channels}
    left = {k: v for k, v in changes.items() if k != "wander" and k not in wander}
    channels = tuple(msgspec.structs.replace(c, wander=wander[c.name]) for c in spec.channels)
    return {**left, "channels": channels}


def ablated(files: list[File]) -> dict[str, Figures]:
    """Return how well each setting's lack does."""
    with tempfile.TemporaryDirectory() as folder:
        spec = configured(CONFIG, Path(folder), "bench").asset_class[0]
    faulty = np.concatenate([file.judged for file in files])
    found = {}
    for name, changes in ABLATIONS.items():
        made = without(changes, spec)
        scores = np.concatenate([score(file, **made) for file in files])
        found[name] = Figures.of(scores, faulty, 1.0)
    return found


def held_out(files: list[File]) -> Figures:
    """Return how well each file is judged by settings chosen on the others.

    The rows of the mean, the recent part, the following and the limit are chosen; how far channels
    wander is not, since it was declared with all files in sight.
    """
    settings = [
        {
            "stats": (f"mean_{rows}",),
            "warmup": rows,
            "health.baseline": TRAIN - rows + 1,
            "health.learn": TRAIN - rows + 1,
            "health.recent": min(recent, TRAIN) - rows + 1,
            "health.follow": follow,
        }
        for rows in ROWS
        for recent in RECENT
        for follow in FOLLOW
    ]
    scores = [[score(file, **setting) for file in files] for setting in settings]
    told = []
    for i in range(len(files)):
        others = [j for j in range(len(files)) if j != i]
        faulty = np.concatenate([files[j].judged for j in others])
        best = (-1.0, 0, 1.0)
        for s, by in enumerate(scores):
            pooled = np.concatenate([by[j] for j in others])
            for limit in LIMITS.tolist():
                figures = Figures.of(pooled, faulty, limit)
                if figures.far_percent <= MOST_FAR and figures.f1 > best[0]:
                    best = (figures.f1, s, limit)
        told.append(scores[best[1]][i] / best[2])
    return Figures.of(np.concatenate(told), np.concatenate([f.judged for f in files]), 1.0)

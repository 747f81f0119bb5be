"""``runout-agent select``: several ways to learn remaining life, side by side, and one chosen.

Judged forwards in time: what is learnt from the lives that ended first is judged by those that
ended next; see ``contract.selection`` for which is chosen.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from agent.config import load
from agent.labels import Life
from agent.train.command import class_of, look_of
from agent.train.fit import fit
from agent.train.source import Gathered, gather
from contract.arrays import Floats
from contract.errors import ConfigError
from contract.model_spec import Ridge
from contract.selection import choose, toml_of, variations
from contract.spec import AssetClass, rul_name

BLOCKS = 5
"""Of time: each but the first is judged by a model of those before it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A class as it may be configured.

    Attributes:
        name: in the table.
        spec: with one remaining-life model.
        gathered: its lives.
    """

    name: str
    spec: AssetClass
    gathered: Gathered


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of a candidate: the five questions a person asks.

    Attributes:
        candidate: whose.
        error_h: root mean square error in hours, each life alike.
        standard_error_h: of that, over lives.
        predict_us: microseconds of one prediction.
        train_s: seconds of one training with all lives.
        memory_kb: of the model and the sums it is learnt from.
        release_kb: of what is sent to a device.
        numbers: that were learnt.
    """

    candidate: Candidate
    error_h: float
    standard_error_h: float
    predict_us: float
    train_s: float
    memory_kb: float
    release_kb: float
    numbers: int


def forwards(lives: list[Life]) -> list[tuple[list[Life], list[Life]]]:
    """Return what is learnt and what is judged, block by block of time.

    Raises:
        ConfigError: there are too few lives to do so.
    """
    blocks = min(BLOCKS, len(lives) // 2)
    if blocks < 2:
        raise ConfigError(f"{len(lives)} finished lives: at least 4 are needed to compare models")
    ends = [round(i * len(lives) / blocks) for i in range(blocks + 1)]
    return [(lives[: ends[i]], lives[ends[i] : ends[i + 1]]) for i in range(1, blocks)]


def measure(candidate: Candidate) -> Row:
    """Train and judge a candidate."""
    spec, gathered = candidate.spec, candidate.gathered
    known = {(life.asset, life.life): life for life in (*gathered.training, *gathered.heldout)}
    lives = [known[one.asset, one.life] for one in gathered.origin.lives]
    errors: list[float] = []
    for learnt, judged in forwards(lives):
        model = next(iter(fit(Gathered(spec, learnt, [])).release.rul.values()))
        errors += [float(np.mean((model.predict(life.X) - life.y) ** 2)) for life in judged]
    began = time.perf_counter()
    release = fit(Gathered(spec, lives, [])).release
    train_s = time.perf_counter() - began
    model = next(iter(release.rul.values()))
    x: Floats = lives[0].X[:1]
    began = time.perf_counter()
    for _ in range(200):
        model.predict(x)
    predict_us = (time.perf_counter() - began) / 200 * 1e6
    learnt_arrays = {n: a for n, a in release.arrays.items() if not n.startswith("health/")}
    size = sum(array.nbytes for array in learnt_arrays.values())
    numbers = sum(a.size for n, a in learnt_arrays.items() if not n.startswith("basis/"))
    sums = 8 * numbers**2 if isinstance(spec.rul[0], Ridge) else 0
    mean = float(np.mean(errors))
    error_h = float(np.sqrt(mean))
    spread = float(np.std(errors) / np.sqrt(len(errors)) / (2 * error_h)) if mean else 0.0
    content = len(release.to_bytes())
    return Row(
        candidate, error_h, spread, predict_us, train_s, (size + sums) / 1e3, content / 1e3, numbers
    )


def table(rows: list[Row], chosen: Row) -> list[str]:
    """Return lines for people."""
    head = f"{'':24}{'error':>9}{'+-':>7}{'predict':>10}{'train':>9}{'memory':>10}{'release':>10}"
    lines = [head + f"{'numbers':>10}"]
    for row in sorted(rows, key=lambda row: row.error_h):
        mark = "  <- chosen" if row is chosen else ""
        lines.append(
            f"{row.candidate.name:24}{row.error_h:7.2f} h{row.standard_error_h:7.2f}"
            f"{row.predict_us:7.0f} us{row.train_s:7.2f} s{row.memory_kb:7.0f} kB"
            f"{row.release_kb:7.0f} kB{row.numbers:10}{mark}"
        )
    return lines


def select(arguments: argparse.Namespace) -> int:
    """Compare candidates, and write the chosen one's configuration."""
    look = look_of(arguments)
    candidates: list[Candidate] = []
    for path in [arguments.config, *arguments.candidate]:
        config = load(path, arguments.set)
        spec = class_of(config, arguments.asset_class)
        gathered = gather(config, spec, arguments.files, look, sys.stderr)
        models = variations(spec) if path == arguments.config else [("", m) for m in spec.rul]
        for name, model in models:
            own = msgspec.structs.replace(spec, rul=(model,))
            label = name if path == arguments.config else f"{path.stem} {rul_name(model)}"
            candidates.append(Candidate(label, own, gathered))
    rows = []
    for number, candidate in enumerate(candidates, 1):
        print(f"{number} of {len(candidates)}: {candidate.name}", file=sys.stderr)
        rows.append(measure(candidate))
    chosen = choose(rows)
    print("\n".join(table(rows, chosen)))
    text = toml_of(chosen.candidate.spec.rul[0])
    if arguments.out is None:
        print(f"\n{text}")
    else:
        _write(arguments.out, text)
        print(f"\n{arguments.out}: the chosen model; put it in place of [[asset_class.rul]]")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror})") from error

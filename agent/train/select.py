"""``runout-agent select``: several ways to learn remaining life, side by side, and one chosen.

Judged forwards in time: what is learnt from the lives that ended first is judged by those that
ended next. Chosen is the simplest whose error is within one standard error of the least (L. Breiman
et al., *Classification and regression trees*, 1984): what is not better for sure is worth no more.
"""

import argparse
import json
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
from contract.model_spec import Ridge, RulModel
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


def variations(spec: AssetClass) -> list[tuple[str, RulModel]]:
    """Return the models of a class one by one, and sizes and kinds of ridge beside them.

    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"),), rul=(Ridge(random=100),))
    >>> [name for name, _ in variations(pump)]
    ['ridge', 'linear', 'ridge 30', 'ridge 300', 'ridge fourier', 'ridge shaped']
    """
    found: list[tuple[str, RulModel]] = [(rul_name(model), model) for model in spec.rul]
    ridge = next((model for model in spec.rul if isinstance(model, Ridge)), Ridge())
    change = msgspec.structs.replace
    others: list[tuple[str, RulModel]] = [("linear", change(ridge, random=0, shaping=0))]
    others += [(f"ridge {n}", change(ridge, random=n)) for n in (30, 300)]
    others += [("ridge fourier", change(ridge, activation="fourier", width=0.3))]
    flat = "ridge unshaped" if ridge.shaping else "ridge shaped"
    others += [(flat, change(ridge, shaping=0 if ridge.shaping else 100))]
    known = [model for _, model in found]
    return found + [(name, model) for name, model in others if model not in known]


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


def choose(rows: list[Row]) -> Row:
    """Return the simplest that is as good as the best, as far as can be told."""
    best = min(rows, key=lambda row: row.error_h)
    good = [row for row in rows if row.error_h <= best.error_h + best.standard_error_h]
    return min(good, key=lambda row: (row.numbers, row.error_h))


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


def toml_of(model: RulModel) -> str:
    """Return a model as it stands in a configuration.

    >>> print(toml_of(Ridge(random=30, seed=2)))
    [[asset_class.rul]]
    kind = "ridge"
    random = 30
    seed = 2
    """
    words: dict[str, object] = {"kind": rul_name(model)}
    plain = type(model)()
    for name in model.__struct_fields__:
        value = getattr(model, name)
        if value != getattr(plain, name):
            words[name] = list(value) if isinstance(value, tuple) else value
    lines = [f"{name} = {json.dumps(value)}" for name, value in words.items()]
    return "\n".join(["[[asset_class.rul]]", *lines])

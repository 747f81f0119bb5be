"""``runout-server select``: a fleet tries several models of remaining life, and one is chosen.

Each candidate is trained and judged as a training is, on every node's held-out lives, but in a
folder of its own: it is no version, is handed to nobody, and changes nothing that judges.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from contract import npz
from contract.errors import ConfigError
from contract.model_spec import RulModel
from contract.selection import choose
from contract.spec import AssetClass, rul_name
from server.evaluate import ROWS
from server.status import Status
from server.training import Training

ASKED = "select.request.json"
TOLD = "selection.json"
"""Files in the state folder: what a person asked for, and what came of it."""
TRIALS = "trials"


class Candidate(msgspec.Struct, frozen=True):
    """A model, and its name in the table."""

    name: str
    model: RulModel


class Asked(msgspec.Struct, frozen=True):
    """What is to be tried.

    Attributes:
        number: of the request: the answer bears it.
        candidates: in order.
        asset_class: that they are for.
    """

    number: str
    candidates: list[Candidate]
    asset_class: str = ""


class Row(msgspec.Struct, frozen=True):
    """What was measured of a candidate.

    Attributes:
        candidate: it.
        error_h: root mean square error in hours over all held-out vectors of the fleet.
        standard_error_h: of that, over nodes.
        worst_h: the worst node's error.
        nodes: that judged it.
        up_kb: from one node, in all phases.
        release_kb: to each.
        seconds: that the trial took.
        numbers: that were learnt.
    """

    candidate: Candidate
    error_h: float
    standard_error_h: float
    worst_h: float
    nodes: int
    up_kb: float
    release_kb: float
    seconds: float
    numbers: int


class Selection(msgspec.Struct, frozen=True):
    """What came of a request.

    Attributes:
        number: of it.
        rows: of the candidates that could be judged.
        failed: why others could not, by name.
        chosen: name of the one to take; empty: none could be judged.
        done: whether all were tried.
    """

    number: str
    rows: list[Row]
    failed: dict[str, str]
    chosen: str
    done: bool


def request(state: Path, asked: Asked) -> None:
    """Ask the running server for a selection."""
    npz.write(state / ASKED, msgspec.json.encode(asked))


def told(state: Path) -> Selection | None:
    """Return the newest selection, as far as it has come."""
    try:
        return msgspec.json.decode((state / TOLD).read_bytes(), type=Selection)
    except FileNotFoundError:
        return None


def pending(state: Path) -> Asked | None:
    """Return what was asked for and is not begun."""
    try:
        return msgspec.json.decode((state / ASKED).read_bytes(), type=Asked)
    except FileNotFoundError:
        return None


class _Class(msgspec.Struct):
    rul: list[RulModel] = []


class _File(msgspec.Struct):
    asset_class: _Class | list[_Class]


def candidates_of(path: Path) -> list[Candidate]:
    """Return the models of a file: an agent's configuration, or what ``select --out`` wrote.

    Raises:
        ConfigError: it cannot be read, or there is none in it.
    """
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"--candidate {path}: cannot be read ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"--candidate {path}: {error}") from error
    classes = found.asset_class if isinstance(found.asset_class, list) else [found.asset_class]
    models = [model for one in classes for model in one.rul]
    if not models:
        raise ConfigError(f"--candidate {path}: there is no [[asset_class.rul]] in it")
    return [Candidate(f"{path.stem} {rul_name(model)}", model) for model in models]


def run(training: Training, asked: Asked, spec: AssetClass, say: Callable[[str], None]) -> None:
    """Try the candidates one by one; what came of it is in the state folder after each."""
    state = training.settings.state
    (state / ASKED).unlink(missing_ok=True)
    rows: list[Row] = []
    failed: dict[str, str] = {}

    def write(*, done: bool) -> None:
        chosen = choose(rows).candidate.name if rows else ""
        content = msgspec.json.encode(Selection(asked.number, rows, failed, chosen, done))
        npz.write(state / TOLD, content)

    write(done=False)
    for number, candidate in enumerate(asked.candidates, 1):
        say(f"selection: {number} of {len(asked.candidates)}, {candidate.name}")
        tried = _try(training, candidate, msgspec.structs.replace(spec, rul=(candidate.model,)))
        if isinstance(tried, str):
            failed[candidate.name] = tried
        else:
            rows.append(tried)
        write(done=False)
    write(done=True)


class _Judged(NamedTuple):
    rows: float
    square: float


def _try(training: Training, candidate: Candidate, spec: AssetClass) -> Row | str:
    """Return what was measured of a candidate, or why nothing was."""
    folder = training.settings.state / TRIALS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    fleet = training.fleet
    began, before = fleet.clock(), dict(fleet.bytes_up)
    trial = Training(
        replace(training.settings, state=folder, asset_class=spec.name),
        fleet,
        Status(),
        now=training.now,
        trial=spec,
    )
    release = trial.run()
    seconds = fleet.clock() - began
    name = rul_name(candidate.model)
    try:
        if release is None or not release.rul:
            return "no node has finished lives to learn it from"
        judged = [
            _Judged(one[ROWS], one[f"rmse/{name}"] ** 2)
            for one in trial.measured.values()
            if one.get(ROWS, 0.0) > 0 and f"rmse/{name}" in one
        ]
        if not judged:
            return "no node has held-out lives to judge it by"
        sent = [size - before.get(n, 0) for n, size in fleet.bytes_up.items()]
        learnt = [a for n, a in release.arrays.items() if n.startswith(("ridge/", "sklearn/"))]
        square = sum(one.rows * one.square for one in judged) / sum(one.rows for one in judged)
        error_h = float(np.sqrt(square))
        spread = float(np.std([one.square for one in judged]) / np.sqrt(len(judged)))
        return Row(
            candidate,
            error_h,
            spread / (2 * error_h) if error_h else 0.0,
            float(np.sqrt(max(one.square for one in judged))),
            len(judged),
            max(sent, default=0) / 1e3,
            len(release.to_bytes()) / 1e3,
            seconds,
            sum(array.size for array in learnt),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(selection: Selection) -> list[str]:
    """Return lines for people."""
    head = f"{'':24}{'error':>9}{'+-':>7}{'worst':>9}{'nodes':>7}{'up':>10}{'release':>10}"
    lines = [f"{head}{'took':>9}{'numbers':>10}"]
    for row in sorted(selection.rows, key=lambda row: row.error_h):
        mark = "  <- chosen" if row.candidate.name == selection.chosen else ""
        lines.append(
            f"{row.candidate.name:24}{row.error_h:7.2f} h{row.standard_error_h:7.2f}"
            f"{row.worst_h:7.2f} h{row.nodes:7}{row.up_kb:7.0f} kB{row.release_kb:7.0f} kB"
            f"{row.seconds:7.1f} s{row.numbers:10}{mark}"
        )
    lines += [f"{name:24}not judged: {why}" for name, why in selection.failed.items()]
    return lines

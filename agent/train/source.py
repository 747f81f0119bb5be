"""Where finished lives come from, and what they are known by afterwards."""

import hashlib
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import msgspec

from agent.config import AgentConfig
from agent.files.chunk import Look
from agent.labels import Life
from agent.replay import Job, replay
from agent.store import open_readonly, read_checkpoint, read_lives
from contract.arrays import Arrays
from contract.errors import ConfigError, ContractError
from contract.spec import AssetClass


class FileRead(msgspec.Struct, frozen=True):
    """A file that was read: where, and its SHA-256."""

    path: str
    sha256: str


class LifeRead(msgspec.Struct, frozen=True):
    """A life that was learnt from or judged by: its vectors and labels by their SHA-256."""

    asset: str
    life: int
    rows: int
    heldout: bool
    sha256: str


class Origin(msgspec.Struct, frozen=True):
    """Where lives came from: files, read in some way, or a store.

    Attributes:
        files: in the order in which they were read; none: a store.
        look: how.
        state: folder of the store; empty: files.
    lives: that came of it, of the class that was trained, in the order in which they ended.
    """

    files: tuple[FileRead, ...]
    look: Look
    state: str
    lives: tuple[LifeRead, ...]


NOWHERE = Origin((), Look(), "", ())


@dataclass(frozen=True, slots=True)
class Gathered:
    """The lives of one class, and what its assets have learnt as healthy.

    Attributes:
        spec: of the class.
        training: lives to learn from, in the order in which they ended.
        heldout: lives to judge by.
        healthy: the cohort's state, as in a checkpoint.
        origin: of all of it.
    """

    spec: AssetClass
    training: list[Life]
    heldout: list[Life]
    healthy: Arrays = field(default_factory=dict)
    origin: Origin = NOWHERE


def gather(
    config: AgentConfig, spec: AssetClass, files: list[Path], look: Look, stream: TextIO | None
) -> Gathered:
    """Return the lives of a class: of recorded files, or of the agent's own store where none are.

    Raises:
        ConfigError: a file is not there, or a class that no life has ended of.
        DataError: a file leaves its format.
        ContractError: there is no store.
    """
    if not files:
        return _of_store(config.state, spec, Origin((), look, str(config.state), ()))
    read = tuple(FileRead(str(path), digest_of(path)) for path in files)
    with tempfile.TemporaryDirectory(prefix="runout-train-") as folder:
        state = Path(folder) / "state"
        done = replay(config, Job(files, look, state=state), threading.Event(), stream)
        if not done.whole:
            raise ConfigError("stopped before all files were read")
        return _of_store(state, spec, Origin(read, look, "", ()))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file; raises ``ConfigError`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def _of_store(state: Path, spec: AssetClass, origin: Origin) -> Gathered:
    db = open_readonly(state)
    try:
        training = read_lives(db, spec, heldout=False)
        heldout = read_lives(db, spec, heldout=True)
        ended = db.execute(
            "SELECT asset, life FROM life WHERE asset_class = ? ORDER BY id", (spec.name,)
        ).fetchall()
    finally:
        db.close()
    if not training and spec.rul:
        raise ConfigError(
            f"asset_class {spec.name}: no life of it has ended in a failure: nothing to learn from"
        )
    told = {(life.asset, life.life): (life, False) for life in training}
    told |= {(life.asset, life.life): (life, True) for life in heldout}
    lives = tuple(
        LifeRead(life.asset, life.life, len(life.y), held, _digest(life))
        for life, held in (told[key] for key in ended if key in told)
    )
    origin = msgspec.structs.replace(origin, lives=lives)
    return Gathered(spec, training, heldout, _healthy(state, spec), origin)


def _healthy(state: Path, spec: AssetClass) -> Arrays:
    try:
        head, arrays = read_checkpoint(state / "checkpoint.npz")
    except ContractError:
        return {}  # none yet
    digests = head.get("digests")
    if not isinstance(digests, dict) or digests.get(spec.name) != spec.digest():
        return {}
    prefix = f"class/{spec.name}/cohort/"
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _digest(life: Life) -> str:
    h = hashlib.sha256()
    for array in life.rows:
        h.update(array.tobytes())
    return h.hexdigest()

"""Stored telemetry, scored ahead: by the agents' own pipeline and the version that is handed out.

Each file is replayed once by each version, in a process of its own (``runout-agent replay``), and
what was said of its machines becomes rows of a table, all of a file at once or none: after a kill
the file is scored anew, and nothing stands there twice. Asked with SQL, or REST
(``server.scores_rest``).
"""

import hashlib
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from contract.errors import ConfigError, RunoutError
from contract.release import Release
from contract.report import Health
from server.config import Scores, ServerConfig
from server.registry import Registry, cohorts
from server.superlink import program

BATCH = 1000
LOOK_S = 0.5
"""A replay that runs is looked after so often, whether it is to end."""
_PIECE = 1 << 20

metadata = MetaData()
scores = Table(
    "scores",
    metadata,
    Column("file", String, primary_key=True),
    Column("asset", String, primary_key=True),
    Column("t", Float, primary_key=True, doc="seconds since 1970 UTC, of the data"),
    Column("digest", String, primary_key=True, doc="of the release that judged"),
    Column("asset_class", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("health", Float, doc="1 healthy, 0 failed"),
    Column("score", Float, doc="1 is the limit of healthy; higher is worse"),
    Column("remaining_life_h", Float),
    Column("remaining_life_low_h", Float),
    Column("remaining_life_high_h", Float),
    Column("model", String, nullable=False, doc="of remaining life"),
    Index("scores_by_asset", "asset", "t"),
)
scored = Table(
    "scored",
    metadata,
    Column("file", String, primary_key=True),
    Column("digest", String, primary_key=True, doc="of the release that judged"),
    Column("content", String, nullable=False, doc="SHA-256 of the file"),
    Column("rows", Integer, nullable=False),
)


class _Reported(msgspec.Struct, tag_field="type", tag="alert"):
    """An alert: it is told in the rows' states already."""


@dataclass(frozen=True, slots=True)
class Done:
    """What one look brought.

    Attributes:
        files: scored now.
        rows: of them.
        known: files that all versions have scored before.
        failed: files that could not be replayed, and why.
    """

    files: int
    rows: int
    known: int
    failed: dict[str, str]


def open_engine(config: ServerConfig) -> Engine:
    """Connect to the table's database, and make the table; raises ``ConfigError``."""
    own = config.scores
    url = own.database if own is not None and own.database else ""
    try:
        if not url:
            config.folder.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{config.folder / 'scores.db'}"
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        metadata.create_all(engine)
    except (ArgumentError, NoSuchModuleError, ImportError, SQLAlchemyError) as error:
        words = str(error).partition("\n")[0]
        raise ConfigError(f"scores.database: it cannot be used: {words}") from error
    return engine


def run_once(
    config: ServerConfig,
    engine: Engine,
    say: Callable[[str], None],
    stop: threading.Event | None = None,
) -> Done:
    """Score what the versions that are handed out have not scored yet.

    Once ``stop`` is set it ends early: the file at hand is left for another time.

    Raises:
        ConfigError: nothing is configured, no file is there, or no version.
    """
    own = config.scores
    if own is None:
        raise ConfigError("there is no [scores] in the configuration: say which files of whom")
    paths = sorted({Path(name) for pattern in own.files for name in glob(pattern)})  # noqa: PTH207  # a pattern may be absolute
    if not paths:
        raise ConfigError(f"scores.files: no file is called {' or '.join(own.files)}")
    releases = _handed_out(config)
    if not releases:
        raise ConfigError(f"{config.folder}: no version is handed out yet: nothing can judge")
    stop = threading.Event() if stop is None else stop
    files = rows = known = 0
    failed: dict[str, str] = {}
    for path in paths:
        if stop.is_set():
            break
        try:
            content = _digest_of(path)
            new = [
                (judge, release)
                for judge, release in releases
                if not _is_known(engine, path, release.digest, content)
            ]
            if not new:
                known += 1
                continue
            count = sum(
                _score(own, engine, path, judge, release, content, stop) for judge, release in new
            )
        except (_ReplayError, OSError) as error:
            if stop.is_set():
                break
            failed[str(path)] = str(error)
            say(f"{path}: {error}")
            continue
        files += 1
        rows += count
        say(f"{path}: {count:,} rows")
    return Done(files, rows, known, failed)


class _ReplayError(RunoutError):
    """A file was not replayed to its end, and why."""


def _handed_out(config: ServerConfig) -> list[tuple[Path, Release]]:
    names = [n for n in cohorts(config.folder) if config.asset_class in {"", n}]
    found = []
    for registry in (Registry(config.folder, name) for name in names):
        release = registry.current()
        if release is not None:
            found.append((registry.path(release.version), release))
    return found


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _is_known(engine: Engine, path: Path, digest: str, content: str) -> bool:
    asked = select(scored.c.content).where(scored.c.file == str(path), scored.c.digest == digest)
    with engine.connect() as db:
        return db.execute(asked).scalar() == content


def _score(
    own: Scores,
    engine: Engine,
    path: Path,
    judge: Path,
    release: Release,
    content: str,
    stop: threading.Event,
) -> int:
    """Replay a file by one release and write its rows; returns how many.

    By one alone: reports tell a version's number, which releases of two classes may share.
    """
    with tempfile.TemporaryDirectory(prefix="runout-score-") as folder:
        out = Path(folder) / "said.jsonl"
        _replay(
            [
                *(program("runout-agent"), "replay", str(path), "--config", own.agent),
                *("--out", str(out), "--quiet", "--release", str(judge)),
            ],
            stop,
        )
        count = 0
        with engine.begin() as db:
            for table in (scores, scored):
                db.execute(
                    delete(table).where(table.c.file == str(path), table.c.digest == release.digest)
                )
            rows = _rows(out, path, release)
            while batch := list(islice(rows, BATCH)):
                db.execute(insert(scores), batch)
                count += len(batch)
            told = {"file": str(path), "digest": release.digest, "content": content, "rows": count}
            db.execute(insert(scored).values(told))
    return count


def _replay(line: list[str], stop: threading.Event) -> None:
    """Run a replay to its end; raises ``_ReplayError`` with what it said."""
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        told = False
        while True:
            try:
                out, err = process.communicate(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                if stop.is_set() and not told:
                    process.terminate()  # it tidies up behind itself
                    told = True
                continue
            break
    if process.returncode:
        said = (err or out).strip().splitlines()
        raise _ReplayError(said[-1] if said else f"exit code {process.returncode}")


def _rows(out: Path, path: Path, release: Release) -> Iterator[dict[str, Any]]:
    """Yield rows of the table from what a replay wrote; what it did not judge is left out."""
    decoder = msgspec.json.Decoder(Health | _Reported)
    newest: tuple[str, float] | None = None
    with out.open("rb") as lines:
        for line in lines:
            said = decoder.decode(line)
            if not isinstance(said, Health) or said.judged_by != release.version:
                continue
            if (said.asset, said.t) == newest:
                continue  # the end of a life is said at the time of its last vector
            newest = (said.asset, said.t)
            yield {
                "file": str(path),
                "asset": said.asset,
                "t": said.t,
                "digest": release.digest,
                "asset_class": release.manifest.asset_class.name,
                "version": release.version,
                "state": said.state,
                "health": said.health,
                "score": said.score,
                "remaining_life_h": said.rul_h,
                "remaining_life_low_h": said.rul_low_h,
                "remaining_life_high_h": said.rul_high_h,
                "model": said.rul_model,
            }

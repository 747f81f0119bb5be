"""Recorded files through the very pipeline of the live agent: batch scoring and back-testing.

What a row says here it would have said live: the same engine takes the same rows in the same order,
and how they are cut into batches makes no difference (``agent.pipeline``). The store is that of
the engine, too, in a folder of its own; it is written without waiting for the disk, since what
is lost can be replayed again.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import msgspec

from agent.app import Engine
from agent.batch import Swap
from agent.config import AgentConfig, load
from agent.facts import FactsFile
from agent.files import bursts, results
from agent.files.chunk import EVER, Look
from agent.files.pace import Pace
from agent.files.player import Done, Player
from agent.files.recording import Recording
from agent.files.score import RulScore, rul_score
from agent.files.times import moment_ns
from agent.files.truth import Windows, read_rul
from agent.rollout import file_name, folders
from contract.errors import ConfigError, ContractError, DataError
from contract.release import load_model
from contract.report import NodeStatus


@dataclass(frozen=True, slots=True)
class Job:
    """What to replay, and how.

    Attributes:
        files: in this order.
        look: how they are read.
        state: folder for the store; None: one that is removed again.
        speed: times the data's own pace; 0: as fast as it goes.
        out: file for the outcomes, or None.
        releases: of the fleet, that judge from the first row on.
        labels: JSON file of windows in which recordings are faulty, or None.
        rul: file of true remaining lives, in rows, or None.
    """

    files: Sequence[Path]
    look: Look = field(default_factory=Look)
    state: Path | None = None
    speed: float = 0.0
    out: Path | None = None
    labels: Path | None = None
    rul: Path | None = None
    releases: Sequence[Path] = ()


def replay(
    config: AgentConfig,
    job: Job,
    stopping: threading.Event,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Done:
    """Replay files until they end, or ``stopping`` is set; says how it goes on ``stream``.

    Raises:
        DataError: a file leaves its format: names file, line and column.
        ConfigError: configuration, options and files do not go together.
    """
    _check(job)
    progress = results.Progress(stream, clock)
    with ExitStack() as opened:
        opened.callback(progress.clear)
        files = _Files(config, job, progress.say)
        left = None if job.rul is None else read_rul(job.rul)
        engine = _engine(config, job, opened)
        of_bursts = [path for path in job.files if bursts.is_one(path)]
        tables = [path for path in job.files if path not in of_bursts]
        beside = bursts.Bursts(of_bursts, config, job.look, progress.say)
        player = Player(engine, beside, progress.say)
        for path in tables:  # all of them, before the first of perhaps many hours
            with files.open(path) as recording:
                player.begin(recording)
                progress.say(f"{path}: {recording.format or 'a table'}")
        if job.out is not None:
            player.out = opened.enter_context(results.Out(job.out))
        before = engine.status(online=False)
        pace = Pace(job.speed, clock, stopping.wait) if job.speed else None
        try:
            cut = _play(files, tables, player, pace, stopping, progress)
            for _ in () if stopping.is_set() else player.play_bursts():
                progress.tell(player.done.rows, 1.0)
                if stopping.is_set():
                    break
        except (DataError, ConfigError):
            player.checkpoint()  # a state that is kept is whole, as far as it goes
            raise
        done = player.finish(whole=not stopping.is_set())
        done.notes += _notes(before, engine.status(online=False), done)
        if left is not None and done.whole:
            try:
                done.rul = _rul(done, cut, left)
            except DataError as error:  # only now known, and no reason to lose all the rest
                done.problem = str(error)
    return done


def _play(
    files: "_Files",
    tables: list[Path],
    player: Player,
    pace: Pace | None,
    stopping: threading.Event,
    progress: results.Progress,
) -> dict[str, float | None]:
    """Play all files; return the assets that did not fail, with the seconds between rows."""
    cut: dict[str, float | None] = {}
    for number, path in enumerate(tables):
        with files.open(path) as recording:
            player.begin(recording)
            for chunk in recording.chunks():
                if not recording.failing:
                    cut |= dict.fromkeys(chunk.assets, recording.table.time.step_s)
                whole = [(0, len(chunk.t_ns))]
                for start, end in whole if pace is None else pace.pieces(chunk):
                    player.play(chunk, start, end)
                    share = (number + recording.done) / len(tables)
                    progress.tell(player.done.rows, share)
                if stopping.is_set():
                    return cut
    return cut


class _Files:
    """Opens the files of a job, one at a time."""

    def __init__(self, config: AgentConfig, job: Job, say: Callable[[str], None]) -> None:
        self._look = job.look
        self._say = say
        self._most_assets = config.limits.assets
        self._known = {c.name for spec in config.asset_class for c in spec.columns}
        self._windows = None if job.labels is None else Windows(job.labels)
        self._counted: dict[str, int] = {}

    def open(self, path: Path) -> Recording:
        return Recording(
            path,
            self._look,
            self._known,
            self._counted,
            most_assets=self._most_assets,
            windows=None if self._windows is None else self._windows.of(path),
            say=self._say,
        )


def _check(job: Job) -> None:
    if not job.files:
        raise ConfigError("name the files to replay")
    if not 0 <= job.speed < float("inf"):
        raise ConfigError(f"--speed {job.speed:g}: 0 is as fast as it goes, 1 the data's own pace")
    if job.look.from_ns >= job.look.until_ns:
        raise ConfigError("--from is not before --until: nothing would be left")
    inputs = {path.resolve() for path in (*job.files, job.labels, job.rul) if path is not None}
    if job.out is not None and job.out.suffix not in results.ENDINGS:
        raise ConfigError(f"--out {job.out}: call it {' or '.join(results.ENDINGS)}")
    if job.out is not None and job.out.resolve() in inputs:
        raise ConfigError(f"--out {job.out} is one of the files that are read")


def _engine(config: AgentConfig, job: Job, opened: ExitStack) -> Engine:
    keep = msgspec.structs.replace(config.keep, power_loss_safe=False)
    folder = job.state
    if folder is None:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="runout-replay-")))
        # What is said is told here, and nobody looks into a folder that is removed again.
        keep = msgspec.structs.replace(keep, journal_mb=1.0, results=1000)
    node = msgspec.structs.replace(config.node, state=str(folder))
    engine = Engine(msgspec.structs.replace(config, node=node, keep=keep), opened)
    waiting = engine.store.last_result - int(engine.store.meta("sent", "0"))
    if waiting:
        raise ConfigError(
            f"--state {folder}: it is an agent's own, with {waiting} reports that are not "
            "published yet: let it publish them, or give another folder"
        )
    if (facts := FactsFile(config).changed()) is not None:
        engine.take_facts(facts)
    for path in job.releases:
        _judge_by(engine, path)
    return engine


def _judge_by(engine: Engine, path: Path) -> None:
    """Let a release judge; raises ``ConfigError`` where it is for something else."""
    try:
        release = load_model(path)
    except ContractError as error:
        raise ConfigError(f"--release {error}") from error
    spec = release.manifest.asset_class
    group = engine.pipeline.groups.get(spec.name)
    if group is None or group.spec.digest() != spec.digest():
        raise ConfigError(
            f"--release {path}: it is for asset class {spec.name!r} of spec {spec.digest()}, "
            "which the configuration does not have so"
        )
    _, releases, _ = folders(engine.config.state)
    release.save(releases / file_name(spec.name, release.version))
    engine.swap(Swap(spec.name, release.version, release.digest))


def _notes(before: NodeStatus, after: NodeStatus, done: Done) -> list[str]:
    notes = []
    again, late = after.repeated - before.repeated, after.late - before.late
    if again:
        notes.append(f"{again} rows came again (asset and time known already), and changed nothing")
    if late:
        notes.append(f"{late} rows were older than what was there, and changed nothing")
    if done.bad:
        notes.append(f"{done.bad} lines could not be read, and were passed over")
    return notes


def _rul(done: Done, cut: dict[str, float | None], left: list[float]) -> RulScore:
    assets = [name for name in cut if name in done.seen]
    if len(assets) != len(left):
        raise DataError(
            f"--rul: {len(left)} remaining lives for {len(assets)} assets that did not end in a "
            "failure; give the lives of the files that are replayed"
        )
    told: list[float | None] = []
    true: list[float] = []
    for asset, rows in zip(assets, left, strict=True):
        step_s, seen = cut[asset], done.seen[asset]
        if step_s is None:
            raise DataError(f"--rul is in rows: asset {asset!r} has no step_s of its rows")
        known = None if seen.last is None else seen.last.rul_h
        told.append(None if known is None else known * 3600 / step_s)
        # The newest report may be some rows old.
        age_s = 0.0 if seen.last is None else seen.last_ns / 1e9 - seen.last.t
        true.append(rows + age_s / step_s)
    return rul_score(told, true)


def command(arguments: argparse.Namespace) -> int:
    """Run ``runout-agent replay``; returns 0, or 1 where a signal ended it early."""
    begin, end = (_moment(text, arguments.offset) for text in (arguments.begin, arguments.until))
    job = Job(
        files=arguments.files,
        look=Look(
            format=arguments.format,
            columns=tuple(name for name in arguments.columns.split(",") if arguments.columns),
            asset=arguments.asset,
            step_s=arguments.step,
            offset=arguments.offset,
            skip_bad=arguments.skip_bad,
            from_ns=-EVER if begin is None else begin,
            until_ns=EVER if end is None else end,
        ),
        state=arguments.state,
        speed=arguments.speed,
        out=arguments.out,
        labels=arguments.labels,
        rul=arguments.rul,
        releases=arguments.release,
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    config = load(arguments.config, arguments.set)
    done = replay(config, job, stopping, None if arguments.quiet else sys.stderr)
    print("\n".join(done.in_words()))
    if done.problem:
        raise DataError(done.problem)
    return 0 if done.whole else 1


def _moment(text: str, offset: str) -> int | None:
    try:
        return moment_ns(text, offset or "Z") if text else None
    except ValueError as error:
        raise ConfigError(f"--from, --until: {error}") from error

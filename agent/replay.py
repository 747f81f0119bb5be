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
import numpy as np

from agent.app import Engine
from agent.assemble import Columns
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig, load
from agent.files import results
from agent.files.chunk import EVER, Chunk, Look
from agent.files.pace import Pace
from agent.files.recording import Recording
from agent.files.score import Judge, RulScore, Tally, rul_score
from agent.files.times import moment_ns
from agent.files.truth import Windows, read_rul
from contract.errors import ConfigError, DataError, DecodeError
from contract.report import NodeStatus
from contract.spec import AssetClass

CHECKPOINT_ROWS = 200_000
"""After so many the store is checkpointed, and what it need not keep is dropped."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to replay, and how.

    Attributes:
        files: in this order.
        look: how they are read.
        state: folder for the store; None: one that is removed again.
        speed: times the data's own pace; 0: as fast as it goes.
        out: file for the outcomes, or None.
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


@dataclass(slots=True)
class Done:
    """What came of it.

    Attributes:
        rows: replayed.
        bad: lines passed over.
        whole: whether everything was replayed, or it was stopped before.
        seen: per asset, in the order in which they were met.
        truth: what the alerts were worth, or None: no file bears labels.
        rul: what the remaining lives were worth, or None: the true ones are not known.
        notes: what a person should know of the input.
    """

    rows: int = 0
    bad: int = 0
    whole: bool = True
    seen: dict[str, results.Seen] = field(default_factory=dict)
    truth: Tally | None = None
    rul: RulScore | None = None
    notes: list[str] = field(default_factory=list)

    def in_words(self) -> list[str]:
        """Return lines for people."""
        lines = results.table(list(self.seen.values())) if self.seen else []
        failures = sum(one.failures for one in self.seen.values())
        alerts = sum(one.alerts for one in self.seen.values())
        sum_up = (
            f"{self.rows} rows of {len(self.seen)} assets, {failures} failures, {alerts} alerts"
        )
        lines += ["", sum_up]
        if not self.whole:
            lines.append("stopped before the end: this is what was done so far")
        lines += self.notes
        if self.truth is not None:
            lines += self.truth.in_words()
        if self.rul is not None:
            lines += self.rul.in_words()
        return lines


class Player:
    """Puts the rows of recordings through an engine, and keeps what comes of them.

    Args:
        engine: takes them.
        say: told what a person should know.

    Attributes:
        out: takes the outcomes, or None.
    """

    def __init__(self, engine: Engine, say: Callable[[str], None]) -> None:
        self._engine = engine
        self.out: results.Out | None = None
        self._say = say
        self._classes: dict[str, AssetClass] = {}
        self._columns: dict[str, Columns] = {}
        self._judges: dict[str, Judge] = {}
        self._named: set[str] = set()
        self._since_checkpoint = 0
        self.done = Done()

    def begin(self, recording: Recording) -> None:
        """Match the columns of a file to the channels of the classes.

        Raises:
            ConfigError: no class has all its channels in it; names both lists.
        """
        self._columns = {}
        layout = recording.layout
        channels, units = tuple(layout.channels), tuple(layout.units)
        missing: list[str] = []
        unused: set[str] = set(channels)
        for spec in self._engine.config.asset_class:
            if spec.waveforms:
                missing.append(f"class {spec.name!r} has waveforms, which no table holds")
                continue
            lacking = [c.name for c in spec.channels if c.name not in channels]
            if lacking:
                missing.append(f"class {spec.name!r} lacks {', '.join(lacking)}")
                continue
            try:
                columns = Columns(spec, channels, units)
            except DecodeError as error:
                raise ConfigError(f"{recording.path}: {error}") from error
            self._columns[spec.name] = columns
            unused &= set(columns.unknown)
        if not self._columns:
            raise ConfigError(
                f"{recording.path}: {'; '.join(missing)}; the file's columns bear "
                f"{', '.join(channels) or 'no channel'}: name them with --columns, or describe "
                "the file with --format FILE.toml"
            )
        fresh = sorted({*unused, *layout.unused} - self._named)
        if fresh:
            self._named |= set(fresh)
            self._say(f"{recording.path}: no channel, left out: {', '.join(fresh)}")

    def play(self, chunk: Chunk, start: int, end: int) -> None:
        """Take the rows of a chunk from ``start`` to ``end``, and the ends of lives among them."""
        batch = self._batch(chunk, start, end)
        if not (batch.rows or batch.events or batch.rejected):
            return
        labelled = chunk.label is not None
        for outcome in self._engine.process(batch):
            self._seen(outcome.asset).hear(outcome)
            if labelled:
                self._judge(outcome.asset).hear(outcome)
            if self.out is not None:
                self.out.write(outcome)
        for rows in batch.rows:
            self._count(rows, chunk, start)
        self.done.rows += end - start
        self.done.bad += batch.rejected
        self._since_checkpoint += end - start
        if self._since_checkpoint >= CHECKPOINT_ROWS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the engine's state; what was said is told here, and waits for no broker."""
        self._since_checkpoint = 0
        self._engine.store.set_meta("sent", str(self._engine.store.last_result))
        self._engine.checkpoint()

    def finish(self, *, whole: bool) -> Done:
        """Sum up; ``whole``: nothing is left."""
        self.checkpoint()
        self.done.whole = whole
        if self._judges:
            self.done.truth = Tally()
            for judge in self._judges.values():
                self.done.truth.add(judge.finish())
        return self.done

    def _batch(self, chunk: Chunk, start: int, end: int) -> Batch:
        which = chunk.which[start:end]
        present = [0] if len(chunk.assets) == 1 else np.unique(which).tolist()
        rows = []
        for k in present if end > start else ():
            asset = chunk.assets[k]
            spec = self._class_of(asset)
            at = np.flatnonzero(which == k)
            picked = slice(start, end) if len(at) == end - start else at + start
            values = self._columns[spec.name].rows(chunk.values[picked], len(spec.columns))
            whole = np.ones(len(at), dtype=np.bool_)
            rows.append(Rows(asset, chunk.t_ns[picked], values, at, whole))
        # An end before the first row is one of the piece before, but of a new chunk.
        ended = [e for e in chunk.ended if start < e.at <= end or e.at == start == 0]
        events = [Event(e.at - start, e.asset, e.t_ns, "failed") for e in ended]
        for event in events:
            self._seen(event.asset).failures += 1
        return Batch(rows, events, chunk.bad if start == 0 else 0)

    def _class_of(self, asset: str) -> AssetClass:
        spec = self._classes.get(asset)
        if spec is None:
            config = self._engine.config
            spec = config.class_of(asset)
            if spec is None:
                raise ConfigError(f"asset {asset!r} matches no pattern of [assets] in the config")
            if len(self._classes) >= config.limits.assets:
                raise ConfigError(f"asset {asset!r}: over limits.assets = {config.limits.assets}")
            self._classes[asset] = spec
        if spec.name not in self._columns:
            names = ", ".join(channel.name for channel in spec.channels)
            raise ConfigError(
                f"asset {asset!r} is of class {spec.name!r}, whose channels are not all among the "
                f"file's columns: {names}"
            )
        return spec

    def _seen(self, asset: str) -> results.Seen:
        seen = self.done.seen.get(asset)
        if seen is None:
            seen = self.done.seen[asset] = results.Seen(asset)
        return seen

    def _count(self, rows: Rows, chunk: Chunk, start: int) -> None:
        seen = self._seen(rows.asset)
        first, last = int(rows.t_ns.min()), int(rows.t_ns.max())
        if not seen.rows:
            seen.first_ns, seen.last_ns = first, last
        seen.first_ns, seen.last_ns = min(seen.first_ns, first), max(seen.last_ns, last)
        seen.rows += len(rows.t_ns)
        if chunk.label is not None:
            self._judge(rows.asset).push(rows.t_ns, chunk.label[rows.pos + start])

    def _judge(self, asset: str) -> Judge:
        judge = self._judges.get(asset)
        if judge is None:
            spec = self._class_of(asset)
            judge = self._judges[asset] = Judge(round((spec.every_s + spec.wait_s) * 1e9))
        return judge


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
        player = Player(engine, progress.say)
        for path in job.files:  # all of them, before the first of perhaps many hours
            with files.open(path) as recording:
                player.begin(recording)
                progress.say(f"{path}: {recording.format or 'a table'}")
        if job.out is not None:
            player.out = opened.enter_context(results.Out(job.out))
        before = engine.status(online=False)
        pace = Pace(job.speed, clock, stopping.wait) if job.speed else None
        cut: dict[str, float | None] = {}
        for number, path in enumerate(job.files):
            with files.open(path) as recording:
                player.begin(recording)
                for chunk in recording.chunks():
                    if not recording.failing:
                        cut |= dict.fromkeys(chunk.assets, recording.table.time.step_s)
                    whole = [(0, len(chunk.t_ns))]
                    for start, end in whole if pace is None else pace.pieces(chunk):
                        player.play(chunk, start, end)
                        share = (number + recording.done) / len(job.files)
                        progress.tell(player.done.rows, share)
                    if stopping.is_set():
                        break
            if stopping.is_set():
                break
        done = player.finish(whole=not stopping.is_set())
        done.notes += _notes(before, engine.status(online=False), done)
        if left is not None and done.whole:
            done.rul = _rul(done, cut, left)
    return done


class _Files:
    """Opens the files of a job, one at a time."""

    def __init__(self, config: AgentConfig, job: Job, say: Callable[[str], None]) -> None:
        self._look = job.look
        self._say = say
        self._most_assets = config.limits.assets
        self._known = {c.name for spec in config.asset_class for c in spec.channels}
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
    return Engine(msgspec.structs.replace(config, node=node, keep=keep), opened)


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
            raise ConfigError(f"--rul is in rows: asset {asset!r} has no step_s of its rows")
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
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    config = load(arguments.config, arguments.set)
    done = replay(config, job, stopping, None if arguments.quiet else sys.stderr)
    print("\n".join(done.in_words()))
    return 0 if done.whole else 1


def _moment(text: str, offset: str) -> int | None:
    try:
        return moment_ns(text, offset or "Z") if text else None
    except ValueError as error:
        raise ConfigError(f"--from, --until: {error}") from error

"""Rows of files on their way through an engine, and what comes of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from agent.app import Engine
from agent.assemble import Columns
from agent.batch import Batch, Event, Rows, Shot
from agent.files import results
from agent.files.bursts import Bursts
from agent.files.chunk import Chunk
from agent.files.recording import Recording
from agent.files.score import Judge, RulScore, Tally
from contract.errors import ConfigError, DecodeError
from contract.spec import AssetClass, Waveform

BURSTS = 64
"""In a batch where there are no rows."""
CHECKPOINT_ROWS = 200_000
"""After so many the store is checkpointed, and what it need not keep is dropped."""


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
        problem: why something asked for could not be told at the end, "" where all was.
    """

    rows: int = 0
    bad: int = 0
    whole: bool = True
    seen: dict[str, results.Seen] = field(default_factory=dict)
    truth: Tally | None = None
    rul: RulScore | None = None
    notes: list[str] = field(default_factory=list)
    problem: str = ""

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
        bursts: that stand beside the rows; each is taken before the first row that is not before.
        say: told what a person should know.

    Attributes:
        out: takes the outcomes, or None.
    """

    def __init__(self, engine: Engine, bursts: Bursts, say: Callable[[str], None]) -> None:
        self._engine = engine
        self._bursts = bursts
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
            lacking = _lacking(spec, set(channels))
            if lacking:
                missing.append(f"class {spec.name!r} lacks {', '.join(lacking)}")
                continue
            try:
                columns = Columns(spec, channels, units, bursts=True)
            except DecodeError as error:
                raise ConfigError(f"{recording.path}: {error}") from error
            self._columns[spec.name] = columns
            unused &= set(columns.unknown)
            silent = [w.name for w in spec.waveforms if not _features(w) & set(channels)]
            if silent and not len(self._bursts) and spec.name not in self._named:
                self._named.add(spec.name)
                self._say(f"{recording.path}: nothing of the bursts of {', '.join(silent)} in it")
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
        while True:
            to = self._cut(chunk, start, end)
            self._play(chunk, start, to)
            if to == end:
                return
            start = to

    def _cut(self, chunk: Chunk, start: int, end: int) -> int:
        """Return how far to go so that few bursts stand among the rows."""
        while end - start > 1 and self._due(chunk, start, end) > BURSTS:
            end = start + (end - start) // 2
        if end - start == 1 and (due := self._due(chunk, start, end)) > BURSTS:
            asset, t = chunk.assets[chunk.which[start]], int(chunk.t_ns[start])
            for _ in range(due // BURSTS):
                self._take_bursts(self._bursts.take(asset, t, BURSTS))
        return end

    def _due(self, chunk: Chunk, start: int, end: int) -> int:
        if not len(self._bursts):
            return 0
        t_ns, which = chunk.t_ns[start:end], chunk.which[start:end]
        return sum(
            self._bursts.due(asset, int(t_ns[which == k].max()))
            for k, asset in enumerate(chunk.assets)
            if asset in self._bursts and (which == k).any()
        )

    def _play(self, chunk: Chunk, start: int, end: int) -> None:
        batch = self._batch(chunk, start, end)
        if not (batch.rows or batch.events or batch.rejected):
            return
        self._process(batch, labelled=chunk.label is not None)
        for rows in batch.rows:
            self._count(rows, chunk, start)
        self._count_rows(end - start)

    def play_bursts(self) -> Iterator[int]:
        """Take the bursts that no row came behind, in the order of time; yield how many."""
        left = self._bursts.rest()
        while shots := list(islice(left, BURSTS)):
            self._take_bursts(shots)
            yield len(shots)

    def _take_bursts(self, shots: list[Shot]) -> None:
        for shot in shots:
            self._class_of(shot.asset, rows=False)
        shots = [shot._replace(pos=i) for i, shot in enumerate(shots)]
        self._process(Batch([], [], shots=shots), labelled=False)
        self._count_rows(0)

    def _process(self, batch: Batch, *, labelled: bool) -> None:
        for outcome in self._engine.process(batch):
            self._seen(outcome.asset).hear(outcome)
            if labelled:
                self._judge(outcome.asset).hear(outcome)
            if self.out is not None:
                self.out.write(outcome)
        for shot in batch.shots:
            self._seen(shot.asset).take(1, shot.t_ns, shot.t_ns)
        self.done.rows += len(batch.shots)
        self.done.bad += batch.rejected
        self._since_checkpoint += len(batch.shots)

    def _count_rows(self, rows: int) -> None:
        self.done.rows += rows
        self._since_checkpoint += rows
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
        self.done.bad += self._bursts.bad
        if self._judges:
            self.done.truth = Tally()
            for judge in self._judges.values():
                self.done.truth.add(judge.finish())
        return self.done

    def _batch(self, chunk: Chunk, start: int, end: int) -> Batch:
        which = chunk.which[start:end]
        present = [0] if len(chunk.assets) == 1 else np.unique(which).tolist()
        rows: list[Rows] = []
        shots: list[Shot] = []
        for k in present if end > start else ():
            asset = chunk.assets[k]
            spec = self._class_of(asset)
            at = np.flatnonzero(which == k)
            picked = slice(start, end) if len(at) == end - start else at + start
            values = self._columns[spec.name].rows(chunk.values[picked], len(spec.columns))
            whole = np.ones(len(at), dtype=np.bool_)
            t_ns = chunk.t_ns[picked]
            # Odd positions are those of rows: between them is room for bursts.
            rows.append(Rows(asset, t_ns, values, 2 * at + 1, whole))
            if asset in self._bursts:
                newest = np.maximum.accumulate(t_ns)
                for shot in self._bursts.take(asset, int(newest[-1]), BURSTS):
                    behind = int(at[np.searchsorted(newest, shot.t_ns)])
                    shots.append(shot._replace(pos=2 * behind))
        # An end before the first row is one of the piece before, but of a new chunk.
        ended = [e for e in chunk.ended if start < e.at <= end or e.at == start == 0]
        events = [Event(2 * (e.at - start), e.asset, e.t_ns, "failed") for e in ended]
        for event in events:
            self._seen(event.asset).failures += 1
        return Batch(rows, events, chunk.bad if start == 0 else 0, shots=shots)

    def _class_of(self, asset: str, *, rows: bool = True) -> AssetClass:
        spec = self._classes.get(asset)
        if spec is None:
            config = self._engine.config
            spec = config.class_of(asset)
            if spec is None:
                raise ConfigError(f"asset {asset!r} matches no pattern of [assets] in the config")
            if len(self._classes) >= config.limits.assets:
                raise ConfigError(f"asset {asset!r}: over limits.assets = {config.limits.assets}")
            self._classes[asset] = spec
        if rows and spec.name not in self._columns:
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
        seen.take(len(rows.t_ns), int(rows.t_ns.min()), int(rows.t_ns.max()))
        if chunk.label is not None:
            self._judge(rows.asset).push(rows.t_ns, chunk.label[rows.pos // 2 + start])

    def _judge(self, asset: str) -> Judge:
        judge = self._judges.get(asset)
        if judge is None:
            spec = self._class_of(asset)
            judge = self._judges[asset] = Judge(round((spec.every_s + spec.wait_s) * 1e9))
        return judge


def _features(wave: Waveform) -> set[str]:
    """Return the names of the columns that a burst becomes."""
    return {f"{wave.name}.{feature}" for feature in wave.features}


def _lacking(spec: AssetClass, there: set[str]) -> list[str]:
    """Return what a table lacks: it needs all channels, and all features of a burst or none."""
    wanted = {channel.name for channel in spec.channels}
    for wave in spec.waveforms:
        if _features(wave) & there or not spec.channels:
            wanted |= _features(wave)
    return [column.name for column in spec.columns if column.name in wanted - there]

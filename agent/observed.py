"""What came, against what was declared: the configuration as a data contract."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.assemble import Assembler
from agent.batch import GONE, Batch, Rejected, Rows, Shot
from agent.block import Block, Burst
from agent.clean import Cleaner, Reason, judge_burst
from agent.config import AgentConfig
from agent.conformity import Line, Looked, Refused, Verdict, complaint
from agent.frame import Frame, Joined
from agent.resample import Grid
from agent.routes import Target
from agent.sources import Http, Modbus, SourceConfig
from contract.arrays import Floats
from contract.spec import AssetClass, Channel, Waveform

TIMES = 65
"""Newest times kept of a channel: its spacing is the median between them."""
MOST_REJECTED, MOST_UNKNOWN, MOST_UNITS = 100, 1000, 8


class _Tally:
    """What came of one channel or waveform so far."""

    def __init__(self) -> None:
        self.seen = self.lacked = 0
        self.least, self.most = np.inf, -np.inf
        self.marks: Counter[str] = Counter()
        self.given: set[str] = set()
        self.heard_at = 0.0
        self._times = np.empty(0, dtype=np.int64)

    def add(self, t_ns: NDArray[np.int64], values: NDArray[np.floating], at: float) -> None:
        """Take the readings of some times; more values than times are the samples of a burst."""
        self.seen += len(t_ns)
        self.heard_at = at
        self._times = np.concatenate([self._times, t_ns])[-TIMES:]
        finite = values[np.isfinite(values)]
        if len(finite):
            self.least = min(self.least, float(finite.min()))
            self.most = max(self.most, float(finite.max()))

    def mark(self, reasons: NDArray[np.uint8]) -> None:
        """Count the reasons of some readings."""
        for reason, count in zip(*np.unique(reasons, return_counts=True), strict=True):
            if reason:
                self.marks[Reason(reason).name.lower()] += int(count)

    @property
    def spacing_s(self) -> float | None:
        """Return the median spacing."""
        times = np.unique(self._times)
        return float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else None

    def age_s(self, now_ns: int) -> float | None:
        """Return how old the newest reading is."""
        return (now_ns - int(self._times.max())) / 1e9 if len(self._times) else None


class Contract(Assembler):
    """An agent's assembler that takes note of what it sees; memory bounded by ``limits.assets``.

    Args:
        config: of the agent.
        opened: names of the sources that are looked at.
    """

    def __init__(self, config: AgentConfig, opened: Iterable[str] = ()) -> None:
        super().__init__(config)
        self._limit = config.limits.assets
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._cleaners: dict[str, Cleaner] = {}
        self._frames: dict[str, Frame] = {}
        self._grids: dict[str, Grid] = {}
        self._unknown: dict[tuple[str, str], int] = {}
        self._rejected: dict[tuple[str, str], Refused] = {}
        self._messages = self._events = 0
        self._shut = [one for one in config.source if one.name not in set(opened)]
        expected = [*config.expect, *(s.asset for s in config.mqtt.subscribe if s.asset)]
        for source in config.source:
            if source not in self._shut:
                expected += _assets_of(source)
        self._expected = dict.fromkeys(expected)

    def _ready(
        self, found: Block | Burst, target: Target, at_ns: int, pos: int
    ) -> Shot | tuple[str, NDArray[np.int64], Floats]:
        ready = super()._ready(found, target, at_ns, pos)
        asset = ready.asset if isinstance(ready, Shot) else ready[0]
        self._take_on((asset,))  # before anything is noted of it: what is noted is bounded, too
        spec = self.class_of(asset)
        known = {c.name for c in spec.channels} | {wave.name for wave in spec.waveforms}
        names, units = _told(found, target.leaf)
        for name, unit in zip(names, units, strict=True):
            if name in known:
                self._note_unit(asset, name, unit or target.units.get(name, ""))
        return ready

    def _note_unit(self, asset: str, channel: str, unit: str) -> None:
        given = self._tally(asset, channel).given
        if unit and len(given) < MOST_UNITS:
            given.add(unit)

    def _note_unknown(self, asset: str, names: Sequence[str], times: int) -> None:
        super()._note_unknown(asset, names, times)
        for name in names:
            key = asset, name
            if key in self._unknown or len(self._unknown) < MOST_UNKNOWN:
                self._unknown[key] = self._unknown.get(key, 0) + times

    def _tally(self, asset: str, channel: str) -> _Tally:
        return self._tallies.setdefault((asset, channel), _Tally())

    def take(self, batch: Batch, rejected: list[Rejected], at: float) -> None:
        """Note what a batch brought, at a time of ``time.monotonic``."""
        self._events += sum(event.event != GONE for event in batch.events)
        for part in batch.rows:
            self._rows(part, at)
        for shot in batch.shots:
            wave = self.class_of(shot.asset).waveforms[shot.wave]
            tally = self._tally(shot.asset, wave.name)
            tally.add(np.array([shot.t_ns]), shot.samples, at)
            tally.mark(np.array([judge_burst(wave, shot.samples)], dtype=np.uint8))
        for message in rejected:
            key = message.reason, message.arrival.topic
            if key not in self._rejected and len(self._rejected) >= MOST_REJECTED:
                key = message.reason, ""
            refused = self._rejected.setdefault(key, Refused(*key, 0, message.text[:500]))
            refused.count += 1

    def count(self, messages: int) -> None:
        """Note that so many messages came."""
        self._messages += messages

    def _rows(self, part: Rows, at: float) -> None:
        spec = self.class_of(part.asset)
        cleaner = self._cleaners.get(part.asset)
        if cleaner is None:
            cleaner = self._cleaners[part.asset] = Cleaner(spec.channels)
        values = part.values[:, : len(spec.channels)]  # behind them stand features of waveforms
        marks = cleaner.judge(part.t_ns, values, part.whole)
        joined = self._joined(part._replace(values=values), spec)
        for c, channel in enumerate(spec.channels):
            there = ~np.isnan(values[:, c])
            tally = self._tally(part.asset, channel.name)
            if there.any():
                tally.add(part.t_ns[there], values[there, c], at)
            if marks is not None:
                tally.mark(marks[:, c])
            if joined.odd:
                tally.mark(np.array([reasons[c] for _, reasons in joined.odd], dtype=np.uint8))
            if not spec.every_s:
                apart = ~np.isin(joined.t_ns, part.t_ns[part.whole])
                tally.lacked += int(np.isnan(joined.values[apart, c]).sum())

    def _joined(self, part: Rows, spec: AssetClass) -> Joined:
        """Return the rows that the agent would make of readings, before it judges them."""
        if spec.every_s:
            grid = self._grids.setdefault(
                part.asset, Grid(spec.channels, spec.every_s, spec.wait_s)
            )
            return grid.push(part.t_ns, part.values, part.pos)
        frame = self._frames.setdefault(part.asset, Frame(len(spec.channels)))
        return frame.push(part.t_ns, part.values, part.pos, part.whole)

    def looked(self, begin: float, end: float, now_ns: int) -> Looked:
        """Return what was found between two times of ``time.monotonic``; the last is ``now_ns``."""
        lines = []
        for asset in sorted({asset for asset, _ in self._tallies} | set(self._expected)):
            spec = self._config.class_of(asset)
            if spec is None:
                mend = "matches no pattern of [assets]"
                lines.append(Line(asset=asset, channel="", verdict="not ok", mend=mend))
                continue
            declared: tuple[Channel | Waveform, ...] = (*spec.channels, *spec.waveforms)
            lines += [self._line(asset, one, begin, end, now_ns) for one in declared]
        for (asset, name), count in sorted(self._unknown.items()):
            spec = self.class_of(asset)
            mend = f"class {spec.name!r} has no such channel: add it there, or leave it"
            lines.append(Line(asset=asset, channel=name, seen=count, verdict="ignored", mend=mend))
        rejected = sorted(self._rejected.values(), key=lambda r: -r.count)
        notes = [
            f"source {one.name!r} was not looked at: stop the agent, and say --sources"
            for one in self._shut
        ]
        if not any(line.seen for line in lines):
            wanted = ", ".join(topic for topic, _ in self.filters)
            notes.append(f"nothing came that could be used; subscribed to {wanted}")
        holds = any(line.seen for line in lines) or bool(self._shut)
        ok = holds and not rejected and all(line.verdict != "not ok" for line in lines)
        return Looked(ok, end - begin, self._messages, self._events, lines, rejected, notes)

    def _line(
        self, asset: str, declared: Channel | Waveform, begin: float, end: float, now_ns: int
    ) -> Line:
        name = declared.name
        tally = self._tallies.get((asset, name), _Tally())
        every_s = declared.every_s if isinstance(declared, Channel) else None
        marks = +tally.marks
        if tally.seen and tally.lacked:  # it comes, but not with the others
            marks["missing"] += tally.lacked
        line = Line(
            asset=asset,
            channel=name,
            seen=tally.seen,
            spacing_s=tally.spacing_s,
            every_s=every_s,
            least=None if tally.least > tally.most else tally.least,
            most=None if tally.least > tally.most else tally.most,
            low=declared.low,
            high=declared.high,
            marks=dict(marks.most_common()),
            unit=declared.unit,
            given=tuple(sorted(tally.given)),
            age_s=tally.age_s(now_ns),
        )
        if tally.seen:
            line.mend = complaint(line, declared, end - tally.heard_at)
            line.verdict = "not ok" if line.mend else "ok"
        else:
            line.verdict, line.mend = self._silent(line, end - begin)
        return line

    def _silent(self, line: Line, seconds: float) -> tuple[Verdict, str]:
        others = [name for asset, name in self._unknown if asset == line.asset]
        near = difflib.get_close_matches(line.channel, others, n=1, cutoff=0.5)
        if near:
            return "not ok", f"silent, but {near[0]!r} came, which is unknown: is it this one?"
        missing = line.marks.get("missing", 0)
        if missing:
            return "not ok", (
                f"null or left out in {missing} messages: send its value, or take it from the class"
            )
        for source in self._shut:
            if _may_say(source, line.asset, line.channel):
                return "not looked at", f"may come from source {source.name!r}"
        if line.every_s is not None and line.every_s > seconds:
            longer = f"--seconds {2.5 * line.every_s:g}"
            return "not ok", f"one is due every {line.every_s:g} s: look longer, {longer}"
        return "not ok", "silent: does its sender run, and publish it under this name?"


def _told(found: Block | Burst, leaf: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which channels a payload speaks of, in which units."""
    if isinstance(found, Burst):
        return (found.channel or leaf,), (found.unit,)
    names = (leaf,) if found.channels == ("",) else found.channels
    return names, found.units or ("",) * len(names)


def _assets_of(source: SourceConfig) -> list[str]:
    """Return the assets that a source is configured to speak of."""
    if isinstance(source, Http):
        return []
    polled = source.poll if isinstance(source, Modbus) else ()
    return [name for name in (source.asset, *(poll.asset for poll in polled)) if name]


def _may_say(source: SourceConfig, asset: str, channel: str) -> bool:
    if isinstance(source, Modbus):
        return any((source.asset_of(p), p.channel) == (asset, channel) for p in source.poll)
    if isinstance(source, Http):
        return True
    return source.asset in {"", asset} and (not source.columns or channel in source.columns)

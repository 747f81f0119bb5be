"""One machine's state over its present life: from readings to feature vectors."""

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent import health
from agent.alerts import AssetAlert
from agent.batch import Clock, Rows, Shot
from agent.clean import QUALITY, Cleaner, Quality, Reason
from agent.drift import KINDS, Watch
from agent.features.levels import Kept, Past
from agent.features.window import Window
from agent.frame import Frame, Joined
from agent.group import Group
from agent.record import Record
from agent.resample import Grid
from agent.speed import Speed
from agent.timebase import TimeBase
from contract.arrays import Floats
from contract.report import Drifted
from contract.spec import AssetClass, Channel

NEVER = int(np.iinfo(np.int64).min)
_LONG = 2**40
_BAD = frozenset(r.name.lower() for r in Reason if QUALITY[r] == Quality.BAD)
_NO_ROWS = np.empty(0, dtype=np.int64)

DOUBT = np.zeros(len(Reason), dtype=np.uint8)
"""1 where a reading's time is uncertain, 2 where its value is: ``DOUBT[reasons]``.

A value that came at an odd time was measured all the same: nothing is learnt from the vector that
it completes. One that may be untrue is not learnt from for as long as a vector looks back on it.
"""
DOUBT[[Reason.GAP, Reason.JITTER, Reason.CLOCK]] = 1
DOUBT[[Reason.FLAT, Reason.CLIPPED]] = 2

MOST_MARKED = 10_000
"""Assets of which what was marked is counted."""
EVENTS = 32
"""Events kept per asset to tell a repeated one."""


@dataclass(slots=True)
class Counts:
    """What came in, over the life of the store."""

    readings: int = 0
    late: int = 0
    repeated: int = 0
    rejected: int = 0
    vectors: int = 0
    events: int = 0
    lives: int = 0
    clock_steps: int = 0
    """How often time began anew for an asset, where a clock was set back."""
    marked: dict[str, int] = field(default_factory=dict)
    """By channel and reason: ``flow.high``."""
    marked_of: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same of each asset that has any, and of those beyond the bound together: ``other``."""

    def mark(self, asset: str, channel: str, reason: str, count: int) -> None:
        """Count values of an asset's channel that were marked."""
        if asset not in self.marked_of and len(self.marked_of) >= MOST_MARKED:
            asset = "other"
        key = f"{channel}.{reason}"
        for marked in (self.marked, self.marked_of.setdefault(asset, {})):
            marked[key] = marked.get(key, 0) + count

    def most_marked(self, most: int) -> dict[str, dict[str, int]]:
        """Return what was marked of the assets that have the most of it, those first."""

        def total(asset: str) -> int:
            return sum(self.marked_of[asset].values())

        worst = heapq.nlargest(most, self.marked_of, key=total)
        return {asset: dict(self.marked_of[asset]) for asset in worst}

    @property
    def bad(self) -> int:
        """Return how many values were bad."""
        return sum(n for key, n in self.marked.items() if key.rpartition(".")[2] in _BAD)


class Run:
    """Feature vectors of one asset, in the order of time.

    Attributes:
        asset: which.
        pos: position in the batch of the message that completed each ``(k,)``.
        t_ns: k times.
        X: ``(k, F)``.
        rows: the newest row of each ``(k, C)``.
        levelled: the same within its regime, where the class asks for it.
        doubtful: which of them must not be learnt from, or None: none.
        whole: whether each lacks nothing.
        anew_ns: where time began anew before them; None: it went on.
    """

    __slots__ = (
        "X", "anew_ns", "asset", "doubtful", "levelled", "pos", "rows", "t_ns", "whole",
    )  # fmt: skip

    def __init__(
        self,
        asset: "Asset",
        pos: NDArray[np.int64],
        t_ns: NDArray[np.int64],
        X: Floats,
        rows: Floats,
        levelled: Floats,
        doubtful: NDArray[np.bool_] | None,
        anew_ns: int | None,
    ) -> None:
        self.asset = asset
        self.anew_ns = anew_ns
        self.pos: list[int] = pos.tolist()
        self.t_ns: list[int] = t_ns.tolist()
        self.X = X
        self.rows = rows
        self.levelled = levelled
        self.doubtful = doubtful
        self.whole: list[bool] = np.logical_and.reduce(np.isfinite(X), axis=1).tolist()

    def settled(self) -> bool:
        """Return whether nothing can be learnt from any of them."""
        return not self.asset.group.levels.ready or self.asset.health.settled(
            self.asset.group.watched_of(self.X)
        )

    def judged(self) -> list[health.Judged]:
        """Judge all of an asset that learns nothing any more."""
        asset, group = self.asset, self.asset.group
        if not group.levels.ready:
            return [health.Judged(None)] * len(self.X)
        X = group.watched_of(self.X)
        return asset.health.judge_settled(X, self.rows, group.judge(), self.doubtful)

    def judge_one(self, k: int) -> health.Judged:
        """Judge one vector, and learn from it."""
        asset, group = self.asset, self.asset.group
        if not group.levels.ready:
            return health.Judged(None)
        x = group.watched_of(self.X[k : k + 1])[0]
        sure = self.sure(k)
        # A class that is not guarded learns what it alarms on, too.
        learn = sure and not (group.spec.health.guarded and asset.alert.suspects)
        judge = group.judge()
        return asset.health.push(x, self.rows[k], group.cohort, judge, learn=learn, sure=sure)

    def sure(self, k: int) -> bool:
        """Return whether there is nothing in a vector that must not be learnt from."""
        return self.doubtful is None or not self.doubtful[k]


class Asset:
    """One machine's state over its present life.

    Attributes:
        name: of it.
        group: its class on this device.
        life: number of the life.
        health: how far it is from its own beginning.
        alert: of it.
        record: of this life, until it is known what came.
        told_ns: time of the newest health report in this life.
        present: whether readings came since it was last said that none will.
    """

    def __init__(self, name: str, group: Group) -> None:
        spec = group.spec
        channels = len(spec.columns)
        self.name = name
        self.group = group
        self.life = 0
        self._scalars = len(spec.channels)
        self._frame = Frame(channels)
        self._unsure = [c for c, one in enumerate(spec.columns) if _may_be_uncertain(one)]
        self._grid: Grid | None = None
        if spec.every_s:
            self._grid = _grid_of(spec, self._unsure)
        self._time = TimeBase(round(spec.wait_s * 1e9) if spec.every_s else 0)
        self._anew = False
        """Time has begun anew, and no row has been closed since."""
        self._anew_ns: int | None = None
        """Where it has, while no vector was completed since."""
        self._cleaner = Cleaner(spec.columns)
        self._window = Window(
            channels, spec.stats, hop=spec.hop, warmup=spec.warmup, keep=group.functions.rows
        )
        self.health = health.AssetHealth(spec)
        self.alert = AssetAlert(spec)
        self._drift = Watch(spec.drift, channels + 1) if spec.drift else None
        self.record = Record(self.health.size)
        self.told_ns = NEVER
        self.present = False
        self._born_ns = NEVER
        self._fresh: list[tuple[int, NDArray[np.uint8]]] = []
        """Marks of this batch that no report has told: position, reasons ``(C,)``."""
        self._fresh_bursts: list[tuple[int, int, int]] = []
        """The same of bursts: position, waveform, reason."""
        self._untold = np.zeros((channels + len(spec.waveforms), len(Reason)), dtype=np.bool_)
        self._look_back = spec.hop, max(spec.hop, health.look_back(spec, spec.stats))
        self._since = [_LONG, _LONG]
        """Rows since the last with any doubt, and since the last with a doubtful value."""
        self._speeds = {
            w: Speed(spec, wave.speed) for w, wave in enumerate(spec.waveforms) if wave.speed
        }
        self._events: deque[tuple[int, int]] = deque(maxlen=EVENTS)
        self._facts = np.full((1, len(spec.fact_names)), np.nan)
        self._facts_from = np.empty(0, dtype=np.int64)
        self._past = Past(channels)

    def is_new(self, key: tuple[int, int] | None) -> bool:
        """Remember an event by its ``agent.commands.key``; False if it came before.

        An older event that is new is not late: people report a failure after the fact.
        """
        if key is None:
            return True
        if key in self._events:
            return False
        self._events.append(key)
        return True

    def know(self, facts: list[tuple[int, dict[str, float]]]) -> None:
        """Take the slow facts of this asset, each from when on; what is not in them is unknown."""
        names = self.group.spec.fact_names
        self._facts_from = np.array([from_ns for from_ns, _ in facts], dtype=np.int64)
        rows = [{}, *(known for _, known in facts)]
        self._facts = np.array([[row.get(name, np.nan) for name in names] for row in rows])

    def begin_life(self) -> None:
        """Forget the last life; time goes on.

        A life without a row is none: a start that follows the failure before it is the same one's.
        """
        self.life += self._born_ns != NEVER
        self._window.reset()
        self.health.reset()
        self.record.reset()
        self.told_ns = self._born_ns = NEVER
        self._past.reset()
        self._since = [_LONG, _LONG]
        if self._drift is not None:
            self._drift.reset()

    @property
    def begun(self) -> bool:
        """Return whether this life has a row."""
        return self._born_ns != NEVER

    # -- drift ----------------------------------------------------------------------------------

    def watch_drift(self, row: Floats, judged: health.Judged) -> None:
        """Take a vector's newest row, and its score once health learns no more."""
        if self._drift is None:
            return
        told = judged.z is not None and judged.score is not None and self.health.full
        score = judged.score if told and judged.score is not None else np.nan
        self._drift.push(np.append(row, score))

    def judged_by_another(self) -> None:
        """Take note that scores are another model's from here on."""
        if self._drift is not None:
            self._drift.forget(len(self.group.spec.columns))

    @property
    def drifted(self) -> tuple[Drifted, ...]:
        """Return which channels drift; one without a name is the score."""
        if self._drift is None:
            return ()
        watch, names = self._drift, (*self.group.spec.channel_names, "")
        return tuple(
            Drifted(names[c], KINDS[kind], _known(watch.psi[c]), _known(watch.ks[c]))
            for c, kind in watch.standing
        )

    def begin_time(self, t_ns: int) -> None:
        """Let what is told go on from here, where the time was set back to."""
        self.told_ns = NEVER
        self.alert.begin_anew(t_ns)

    # -- readings -------------------------------------------------------------------------------

    @property
    def newest_ns(self) -> int:
        """Return the time of the newest reading."""
        return self._time.newest_ns

    def take(self, part: Rows, counts: Counts, clock: Clock | None = None) -> list[Run]:
        """Take readings; return the feature vectors they complete, in their order.

        ``clock``: of the batch that they are of.
        """
        self.present = True
        if self._time.plain(part.t_ns, part.pos, clock):
            run = self._take(part, counts)
            return [] if run is None else [run]
        runs: list[Run | None] = []
        start = 0
        ahead = frozenset() if clock is None else clock.ahead
        for i, (t, pos) in enumerate(zip(part.t_ns.tolist(), part.pos.tolist(), strict=True)):
            self._time.step(pos, clock)
            if t <= self._time.newest_ns and start < i:
                # Whether it came again is known once those before it are there.
                runs.append(self._take(part.piece(start, i), counts))
                start = i
            if self._time.meet(t, ahead=pos in ahead, known=self._knows):
                runs.append(self._begin_time(t, pos, part.values[i], counts))
        runs.append(self._take(part.piece(start, len(part.t_ns)), counts))
        return [run for run in runs if run is not None]

    def _knows(self, t_ns: int) -> bool:
        return self._frame.knows(t_ns) if self._grid is None else self._grid.knows(t_ns)

    def _begin_time(self, t_ns: int, pos: int, row: Floats, counts: Counts) -> Run | None:
        """Let time begin anew with a reading; return the vector that is closed before, if one is.

        Rows, models and the life go on: it is the clock that was wrong, not the machine.
        """
        closed = self.flush(pos, counts)
        counts.clock_steps += 1
        (self._frame if self._grid is None else self._grid).begin_anew(t_ns)
        self._cleaner.begin_anew(t_ns)
        self._anew, self._anew_ns = True, t_ns
        marks = np.where(np.isnan(row), Reason.GOOD, Reason.CLOCK).astype(np.uint8)
        if self._scalars:
            marks[self._scalars :] = Reason.GOOD  # features of a burst are no channels
        self._note(marks[None], np.array([pos]), counts)
        return closed

    def _take(self, part: Rows, counts: Counts) -> Run | None:
        """Take readings among which time goes on."""
        values = part.values
        if self._grid is None:
            joined = self._frame.push(part.t_ns, values, part.pos, part.whole)
        else:
            # Channels at their own rates: judged as they come, then brought to one.
            marks = self._judge(part.t_ns, values, part.whole)
            if marks is not None:
                self._note(marks, part.pos, counts)
                values = np.where(QUALITY[marks] == Quality.BAD, np.nan, values)
            if self._unsure:
                values = np.concatenate([values, self._doubts(values, marks)], axis=1)
            joined = self._grid.push(part.t_ns, values, part.pos)
        counts.late += joined.late
        counts.repeated += joined.repeated
        counts.readings += len(part.t_ns) - joined.repeated
        if joined.odd:
            pos, reasons = zip(*joined.odd, strict=True)
            marks = np.stack(reasons)[:, : part.values.shape[1]]  # behind them stand doubts
            self._note(marks, np.array(pos), counts)
        return self._vectors(joined, counts) if len(joined.t_ns) else None

    def flush(self, pos: int, counts: Counts) -> Run | None:
        """Close what is open, as a life event does; return the vector it completes, if it does."""
        if self._grid is not None:
            t_ns, values = self._grid.flush()
            closed = Joined(t_ns, values, np.full(len(t_ns), pos))
        else:
            open_row = self._frame.flush()
            if open_row is None:
                return None
            at_ns, row = open_row
            closed = Joined(np.array([at_ns]), row[None, :], np.array([pos]))
        return self._vectors(closed, counts) if len(closed.t_ns) else None

    def _doubts(self, values: Floats, marks: NDArray[np.uint8] | None) -> Floats:
        """Return what stands on the grid beside channels that may be uncertain: see ``DOUBT``."""
        said = np.isnan(values[:, self._unsure])
        doubt = 0 if marks is None else DOUBT[marks[:, self._unsure]]
        return np.where(said, np.nan, doubt)

    def _judge(
        self, t_ns: NDArray[np.int64], values: Floats, whole: NDArray[np.bool_] | None
    ) -> NDArray[np.uint8] | None:
        """Return the marks ``(n, C)`` of rows, or None: all good."""
        marks = self._cleaner.judge(t_ns, values, whole)
        if marks is None or not self.group.spec.waveforms:
            return marks
        # Where there was no burst none is missing, and no channel where there was a burst alone.
        missing = marks == Reason.MISSING
        alone = np.isnan(values[:, : self._scalars]).all(axis=1, keepdims=True)
        missing[:, : self._scalars] &= alone
        marks[missing] = Reason.GOOD
        return marks if marks.any() else None

    def _vectors(self, joined: Joined, counts: Counts) -> Run | None:
        """Take rows into the window; return the feature vectors they complete, if they do."""
        values = joined.values
        doubt: NDArray[np.uint8] | None = None
        if self._grid is None:
            marks = self._judge(joined.t_ns, values, None)
            if marks is not None:
                self._note(marks, joined.pos, counts)
                values = np.where(QUALITY[marks] == Quality.BAD, np.nan, values)
                doubt = DOUBT[marks].max(axis=1)
        elif self._unsure:
            at = len(self.group.spec.columns)
            doubt = np.nan_to_num(values[:, at:]).max(axis=1).astype(np.uint8)
            values = values[:, :at]
        if self._anew:
            self._anew = False
            doubt = np.zeros(len(values), dtype=np.uint8) if doubt is None else doubt
            doubt[0] = max(doubt[0], DOUBT[Reason.CLOCK])
        levelled = self._levelled(joined.t_ns, values)
        rows, X = self._features(levelled)
        if len(rows):
            X = self._with_more(X, joined.t_ns[rows], self._born_ns)
        doubtful = self._doubtful(doubt, rows, len(values))
        if not len(rows):
            return None
        t_ns = joined.t_ns[rows]
        anew_ns, self._anew_ns = self._anew_ns, None
        return Run(self, joined.pos[rows], t_ns, X, values[rows], levelled[rows], doubtful, anew_ns)

    def _levelled(self, t_ns: NDArray[np.int64], values: Floats) -> Floats:
        """Return values as statistics are to see them: within their regime, if the class asks."""
        if self._born_ns == NEVER and len(t_ns):
            self._born_ns = int(t_ns[0])
        levels = self.group.levels
        if levels.learning:
            self._past.add(t_ns, values)
        return levels.apply(values) if levels.ready else values

    def past(self) -> Kept:
        """Return the rows of this life that are kept to learn levels from."""
        t_ns, rows = self._past.all()
        whole = self._past.total == len(rows)
        return Kept(self.name, self.life, self._born_ns, t_ns, rows, whole=whole)

    def live_again(self, life: Kept) -> tuple[NDArray[np.int64], Floats]:
        """Take the rows of a life of this asset into the window anew, by the levels of now.

        Returns:
            times ``(k,)`` and vectors ``(k, F)``: those of the life so far.
        """
        self._window.reset()
        rows, X = self._features(self.group.levels.apply(life.rows))
        return life.t_ns[rows], self._with_more(X, life.t_ns[rows], life.born_ns)

    def _with_more(self, X: Floats, t_ns: NDArray[np.int64], born_ns: int) -> Floats:
        """Return vectors with what is known of an asset beside its readings."""
        more = [X]
        if self._facts.shape[1]:
            more.append(self._facts[self._facts_from.searchsorted(t_ns, side="right")])
        if self.group.spec.age:
            # Where a clock was set back behind the beginning, it is not known: 0.
            age_h = np.maximum(t_ns - born_ns, 0) / 3.6e12
            more.append(np.stack([age_h, np.log1p(age_h)], axis=1))
        return X if len(more) == 1 else np.concatenate(more, axis=1)

    def _features(self, values: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Take clean rows into the window; return the vectors they complete, with functions."""
        functions = self.group.functions
        if not functions.names:
            return self._window.push(values)
        # Functions see whole windows of rows: taken in up to each hop.
        rows: list[NDArray[np.int64]] = []
        found: list[Floats] = []
        at = 0
        while at < len(values):
            take = self._window.until_hop()
            part, X = self._window.push(values[at : at + take])
            if len(part):
                own = functions.compute(self._window.last_rows())
                rows.append(part + at)
                found.append(np.concatenate([X, own[None, :]], axis=1))
            at += take
        if not rows:
            return _NO_ROWS, np.empty((0, len(self._window) + len(functions.names)))
        return np.concatenate(rows), np.concatenate(found)

    def _doubtful(
        self, doubt: NDArray[np.uint8] | None, rows: NDArray[np.int64], n: int
    ) -> NDArray[np.bool_] | None:
        """Return which of the vectors completed at ``rows`` of n must not be learnt from."""
        hop, look_back = self._look_back
        if (
            self._since[0] >= hop
            and self._since[1] >= look_back
            and (doubt is None or not doubt.any())
        ):
            self._since = [min(since + n, _LONG) for since in self._since]
            return None
        out = np.zeros(len(rows), dtype=np.bool_)
        for i, reach in enumerate(self._look_back):
            before = -1 - self._since[i]
            newest = np.full(n, before)
            if doubt is not None:
                newest = np.maximum.accumulate(np.where(doubt > i, np.arange(n), before))
            self._since[i] = min(n - 1 - int(newest[-1]), _LONG)
            out |= newest[rows] > rows - reach
        return out

    # -- bursts ---------------------------------------------------------------------------------

    def take_speeds(self, part: Rows) -> dict[int, tuple[NDArray[np.int64], Floats]]:
        """Take the speeds among readings.

        Returns:
            per waveform that goes by a channel the positions ``(n,)`` of the readings, and the
            newest speed before the first and after each of them ``(n + 1,)``.
        """
        return {w: (part.pos, speed.take(part)) for w, speed in self._speeds.items()}

    def speed_at(
        self, shot: Shot, taken: dict[int, tuple[NDArray[np.int64], Floats]] | None
    ) -> float:
        """Return the newest speed in rpm that had come when a burst did; NaN: none.

        ``taken``: what ``take_speeds`` returned of this batch, if there were readings.
        """
        speed = self._speeds.get(shot.wave)
        if speed is None:
            rpm = self.group.spec.waveforms[shot.wave].speed_rpm
            return np.nan if rpm is None else rpm
        if taken is None:
            return speed.value
        pos, newest = taken[shot.wave]
        return float(newest[np.searchsorted(pos, shot.pos)])

    def note_burst(self, shot: Shot) -> None:
        """Keep for the next report why a burst was bad."""
        self._fresh_bursts.append((shot.pos, shot.wave, shot.reason))

    # -- marks ----------------------------------------------------------------------------------

    def _note(self, marks: NDArray[np.uint8], pos: NDArray[np.int64], counts: Counts) -> None:
        """Count what was marked, and keep it for the next report."""
        names = self.group.spec.channel_names
        for r in np.unique(marks[marks > 0]).tolist():
            found = marks == r
            word = Reason(r).name.lower()
            for c in np.flatnonzero(found.any(axis=0)).tolist():
                counts.mark(self.name, names[c], word, int(found[:, c].sum()))
        told = np.where(QUALITY[marks] == Quality.GOOD, Reason.GOOD, marks)
        rows = np.flatnonzero(told.any(axis=1))
        if len(rows):
            self._fresh += zip(pos[rows].tolist(), told[rows], strict=True)
            self._fresh.sort(key=lambda one: one[0])

    def marks(self, pos: int) -> tuple[str, ...]:
        """Return what was marked since the last report, up to a position: ``channel.reason``."""
        self._forget_fresh(pos)
        if not self._untold[:, 1:].any():
            return ()
        spec = self.group.spec
        names = (*spec.channel_names, *(wave.name for wave in spec.waveforms))
        found = np.argwhere(self._untold[:, 1:]).tolist()
        self._untold[:] = False
        return tuple(f"{names[c]}.{Reason(r + 1).name.lower()}" for c, r in found)

    def end_batch(self, clock: Clock | None = None) -> None:
        """Keep what was marked and not told, whatever its position was."""
        self._forget_fresh(None)
        if clock is not None and clock.back:
            self._time.end_batch(clock)

    def leave(self) -> tuple[str, ...]:
        """Take it that no readings come; return what is not known from now on, as marks are."""
        self.present = False
        self.told_ns = NEVER  # the next report is due at once
        spec = self.group.spec
        names = [channel.name for channel in spec.channels]
        names += [wave.name for wave in spec.waveforms]
        return tuple(f"{name}.stale" for name in names)

    def _forget_fresh(self, upto: int | None) -> None:
        if not self._fresh and not self._fresh_bursts:
            return
        columns = np.arange(len(self.group.spec.columns))
        told = 0
        for at, reasons in self._fresh:
            if upto is not None and at > upto:
                break
            self._untold[columns, reasons] = True
            told += 1
        del self._fresh[:told]
        told = 0
        for at, wave, reason in self._fresh_bursts:
            if upto is not None and at > upto:
                break
            self._untold[len(columns) + wave, reason] = True
            told += 1
        del self._fresh_bursts[:told]

    # -- state ----------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        speeds = {
            f"speed/{w}/{name}": array
            for w, speed in self._speeds.items()
            for name, array in speed.arrays().items()
        }
        return {
            **self._frame.arrays(),
            **self._window.arrays(),
            **self.health.arrays(),
            **self.alert.arrays(),
            **self.record.arrays(),
            **self._cleaner.arrays(),
            **self._time.arrays(),
            "anew": np.array([self._anew, NEVER if self._anew_ns is None else self._anew_ns]),
            **({} if self._grid is None else self._grid.arrays()),
            **speeds,
            **(self._past.arrays() if self.group.levels.learning else {}),
            **({} if self._drift is None else self._drift.arrays()),
            "untold": self._untold.copy(),
            "present": np.array([self.present]),
            "asset": np.array(
                [self.life, self.told_ns, self._born_ns, len(self._events), *self._since]
            ),
            "events": np.array([*self._events] + [(0, 0)] * (EVENTS - len(self._events))),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned; a check or ``wait_s`` may be another since."""
        self._frame.restore(arrays)
        self._window.restore(arrays)
        self.health.restore(arrays)
        self.alert.restore(arrays)
        if "record" in arrays:
            self.record.restore(arrays)
        self._cleaner.restore(arrays)
        if self.group.levels.learning:
            self._past.restore(arrays)
        if self._grid is not None:
            self._grid.restore(_fitting(self._grid, arrays))
        self._time.restore(arrays, (self._frame if self._grid is None else self._grid).newest_ns)
        anew, anew_ns = (int(v) for v in arrays.get("anew", (0, NEVER)))
        self._anew, self._anew_ns = bool(anew), None if anew_ns == NEVER else anew_ns
        for w, speed in self._speeds.items():
            prefix = f"speed/{w}/"
            speed.restore(
                {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            )
        if self._drift is not None and self._drift.fits(arrays):  # or it was asked for since
            self._drift.restore(arrays)
        self._untold = np.array(arrays["untold"])
        self.present = bool(arrays["present"][0])
        self.life, self.told_ns, self._born_ns, events, *self._since = (
            int(v) for v in arrays["asset"]
        )
        self._events.extend((int(t), int(name)) for t, name in arrays["events"][:events])


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _may_be_uncertain(channel: Channel) -> bool:
    checks = channel.flat_s, channel.clip_low, channel.clip_high, channel.every_s
    return any(check is not None for check in checks)


def _grid_of(spec: AssetClass, unsure: list[int]) -> Grid:
    """Return a grid with, behind the columns, one that stands as long for each unsure one."""
    doubts = [
        Channel(f"{spec.columns[c].name}?", "1", resample="max", hold_s=spec.columns[c].hold_s)
        for c in unsure
    ]
    return Grid((*spec.columns, *doubts), spec.every_s, spec.wait_s)


def _fitting(grid: Grid, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a grid; of one that was laid out otherwise, how far it had come."""
    own = grid.arrays()
    if all(arrays[name].shape == array.shape for name, array in own.items()):
        return arrays
    newest = arrays["grid/times"][0]
    return own | {"grid/times": np.array([newest, newest])}

"""A batch in, outcomes out: join, clean, features, health, remaining life, alerts.

Pure but for its own state and the lives it keeps: no clock, no chance, no network. What arrives is
met in the order of arrival, and how it was cut into batches makes no difference, so that a replay
of the journal gives the same models and the same outcomes as the first time.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent import health
from agent.alerts import AssetAlert
from agent.batch import Batch, Event, Rows, Shot, Swap
from agent.clean import QUALITY, Cleaner, Quality, Reason, judge_burst
from agent.config import AgentConfig
from agent.features.burst import BurstFeatures
from agent.features.functions import UserFeatures, load
from agent.features.window import Window
from agent.frame import Frame, Joined
from agent.labels import Life
from agent.prognosis import LocalRul, error_h, predict_one
from agent.resample import Grid
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.features import FeatureSpec
from contract.models.histogram import BINS
from contract.release import Predictor, Release
from contract.report import Alert, Health, LifeEvent
from contract.spec import AssetClass, Channel, Waveform

_NEVER = int(np.iinfo(np.int64).min)
_LONG = 2**40
_DOUBT = Channel("doubt", "1", resample="max", hold_s=0.0)
"""A column of its own on the grid: 1 in a row whose readings must not be learnt from."""
_BAD = frozenset(r.name.lower() for r in Reason if QUALITY[r] == Quality.BAD)
NO_ROWS = np.empty(0, dtype=np.int64)

EVENTS = 32
"""Life events kept per asset to tell a repeated one."""
EVENT_NAMES = get_args(LifeEvent.__annotations__["event"])


class Lives(Protocol):
    """Where the feature vectors of lives are kept, and found again when a life has ended."""

    def add(self, asset: str, life: int, t_ns: int, x: Floats) -> None:
        """Keep one feature vector of a life that goes on."""

    def finish(self, spec: AssetClass, asset: str, life: int, end_ns: int) -> bool:
        """Label a life that ended in a failure; False if it has no vectors or is known already."""

    def forget(self, asset: str, life: int) -> None:
        """Drop the vectors of a life whose end tells nothing."""

    def training(self, spec: AssetClass, until: tuple[str, int] | None = None) -> list[Life]:
        """Return the finished lives that may be learnt from, in the order in which they ended.

        ``until``: an asset and its life, the last to be returned; a replay must not learn what
        it has not come to yet.
        """

    def heldout(self, spec: AssetClass) -> list[Life]:
        """Return the finished lives kept aside to judge by."""


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
    marked: dict[str, int] = field(default_factory=dict)
    """By channel and reason: ``flow.high``."""

    def mark(self, channel: str, reason: str, count: int) -> None:
        """Count values of a channel that were marked."""
        key = f"{channel}.{reason}"
        self.marked[key] = self.marked.get(key, 0) + count

    @property
    def bad(self) -> int:
        """Return how many values were bad."""
        return sum(n for key, n in self.marked.items() if key.rpartition(".")[2] in _BAD)


class Group:
    """An asset class on this device: its models, learnt here or released to it.

    Attributes:
        spec: of the class.
        cohort: healthy behaviour, as learnt here.
        rul: remaining life, as learnt here.
        parts: channel and statistic of each column that health watches.
        release: what judges in their place, or None.
    """

    def __init__(self, spec: AssetClass, functions: UserFeatures, *, sklearn: bool) -> None:
        self.spec = spec
        features = FeatureSpec.of(spec)
        watched = features.columns(spec.health_stats)
        self._watched = None if watched == list(range(len(features))) else np.array(watched)
        self.parts = tuple(features.parts[i] for i in watched)
        self.functions = functions
        self.bursts = [BurstFeatures(wave) for wave in spec.waveforms]
        self.cohort = health.Cohort(spec)
        self.rul = LocalRul(spec, sklearn=sklearn)
        self.release: Release | None = None
        self.error_h: float | None = None
        self._released_judge: health.Judge | None = None

    def swap(self, release: Release | None) -> None:
        """Let a release judge from here on; None: the device's own models."""
        self.release = release
        self._released_judge = None
        if release is not None and release.health is not None:
            scores = release.arrays.get("health/histogram", np.zeros(BINS, dtype=np.int64))
            limit = health.limit_of(scores.astype(np.int64), self.spec.health.alarm_rate)
            self._released_judge = health.Judge(release.health, limit)

    def watched_of(self, X: Floats) -> Floats:
        """Return the columns ``(n, F)`` of vectors that the health model watches."""
        return X if self._watched is None else X[:, self._watched]

    def judge(self) -> health.Judge | None:
        """Return what judges health."""
        if self._released_judge is not None:
            return self._released_judge
        return self.cohort.judge()

    def local_predictor(self) -> tuple[str, Predictor] | None:
        """Return the first remaining-life model learnt here."""
        return next(iter(self.rul.models.items()), None)

    def predictor(self) -> tuple[str, Predictor, float | None] | None:
        """Return the remaining-life model that judges: name, model, error on held-out lives."""
        if self.release is not None and self.release.rul:
            name = self.release.manifest.rul_model
            if name in self.release.rul:
                error = self.release.manifest.metrics.get(f"rmse/{name}")
                return name, self.release.rul[name], error
        local = self.local_predictor()
        return None if local is None else (*local, self.error_h)


class Asset:
    """One machine's state over its present life."""

    def __init__(self, name: str, group: Group) -> None:
        spec = group.spec
        channels = len(spec.columns)
        self.name = name
        self.group = group
        self.life = 0
        self.frame = Frame(channels)
        self.grid: Grid | None = None
        if spec.every_s:
            self.grid = Grid((*spec.columns, _DOUBT), spec.every_s, spec.wait_s)
        self.cleaner = Cleaner(spec.columns)
        self.window = Window(
            channels, spec.stats, hop=spec.hop, warmup=spec.warmup, keep=group.functions.rows
        )
        self.health = health.AssetHealth(spec)
        self.alert = AssetAlert(spec)
        self.told_ns = _NEVER
        self.fresh: list[tuple[int, NDArray[np.uint8]]] = []
        """Marks of this batch that no report has told: position, reasons ``(C,)``."""
        self._untold = np.zeros((channels, len(Reason)), dtype=np.bool_)
        self._since_doubt = _LONG
        """Rows since the last that must not be learnt from."""
        self.speeds = np.full((len(spec.waveforms), 2), np.nan)
        """Per waveform the time, in seconds, and value of the newest speed."""
        self._events: deque[tuple[int, int]] = deque(maxlen=EVENTS)

    def is_new(self, event: Event) -> bool:
        """Remember an event; False if it came before: the broker repeats what was not acknowledged.

        An older event that is new is not late: people report a failure after the fact.
        """
        key = event.t_ns, EVENT_NAMES.index(event.event)
        if key in self._events:
            return False
        self._events.append(key)
        return True

    def begin_life(self) -> None:
        """Forget the last life; time goes on."""
        self.life += 1
        self.window.reset()
        self.health.reset()
        self.told_ns = _NEVER

    def push(self, values: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Take clean rows into the window; return the vectors they complete, with functions."""
        functions = self.group.functions
        if not functions.names:
            return self.window.push(values)
        # Functions see whole windows of rows: taken in up to each hop.
        rows: list[NDArray[np.int64]] = []
        found: list[Floats] = []
        at = 0
        while at < len(values):
            take = self.window.until_hop()
            part, X = self.window.push(values[at : at + take])
            if len(part):
                own = functions.compute(self.window.last_rows())
                rows.append(part + at)
                found.append(np.concatenate([X, own[None, :]], axis=1))
            at += take
        width = len(self.window) + len(functions.names)
        if not rows:
            return NO_ROWS, np.empty((0, width))
        return np.concatenate(rows), np.concatenate(found)

    def doubtful(
        self, doubt: NDArray[np.bool_] | None, rows: NDArray[np.int64], n: int
    ) -> NDArray[np.bool_] | None:
        """Return which of the vectors completed at ``rows`` of n have doubt in their last hop."""
        hop = self.group.spec.hop
        if self._since_doubt >= hop and (doubt is None or not doubt.any()):
            self._since_doubt = min(self._since_doubt + n, _LONG)
            return None
        before = -1 - self._since_doubt
        newest = np.full(n, before)
        if doubt is not None:
            newest = np.maximum.accumulate(np.where(doubt, np.arange(n), before))
        self._since_doubt = min(n - 1 - int(newest[-1]), _LONG)
        return newest[rows] > rows - hop

    def marks(self, pos: int) -> tuple[str, ...]:
        """Return what was marked since the last report, up to a position: ``channel.reason``."""
        told = 0
        for at, reasons in self.fresh:
            if at > pos:
                break
            self._untold[np.arange(len(reasons)), reasons] = True
            told += 1
        del self.fresh[:told]
        if not self._untold[:, 1:].any():
            return ()
        names = self.group.spec.channel_names
        found = np.argwhere(self._untold[:, 1:]).tolist()
        self._untold[:] = False
        return tuple(f"{names[c]}.{Reason(r + 1).name.lower()}" for c, r in found)

    def end_batch(self) -> None:
        """Keep what was marked and not told, whatever its position was."""
        for _, reasons in self.fresh:
            self._untold[np.arange(len(reasons)), reasons] = True
        self.fresh.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        return {
            **self.frame.arrays(),
            **self.window.arrays(),
            **self.health.arrays(),
            **self.alert.arrays(),
            **self.cleaner.arrays(),
            **({} if self.grid is None else self.grid.arrays()),
            "untold": self._untold.copy(),
            "speeds": self.speeds.copy(),
            "asset": np.array([self.life, self.told_ns, len(self._events), self._since_doubt]),
            "events": np.array([*self._events] + [(0, 0)] * (EVENTS - len(self._events))),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        self.frame.restore(arrays)
        self.window.restore(arrays)
        self.health.restore(arrays)
        self.alert.restore(arrays)
        self.cleaner.restore(arrays)
        if self.grid is not None:
            self.grid.restore(arrays)
        self._untold = np.array(arrays["untold"])
        self.speeds = np.array(arrays["speeds"])
        self.life, self.told_ns, events, self._since_doubt = (int(v) for v in arrays["asset"])
        self._events.extend((int(t), int(name)) for t, name in arrays["events"][:events])


Outcome = Health | Alert


class _Run:
    """Feature vectors of one asset, in the order of time.

    Attributes:
        asset: which.
        pos: position in the batch of the message that completed each ``(k,)``.
        t_ns: k times.
        X: ``(k, F)``.
        rows: the newest row of each ``(k, C)``.
        doubtful: which of them must not be learnt from, or None: none.
    """

    __slots__ = ("X", "asset", "doubtful", "pos", "rows", "t_ns")

    def __init__(
        self,
        asset: Asset,
        pos: NDArray[np.int64],
        t_ns: NDArray[np.int64],
        X: Floats,
        rows: Floats,
        doubtful: NDArray[np.bool_] | None = None,
    ) -> None:
        self.asset = asset
        self.pos = pos
        self.t_ns: list[int] = t_ns.tolist()
        self.X = X
        self.rows = rows
        self.doubtful = doubtful

    def judged(self) -> list[health.Judged]:
        """Judge all of an asset that learns nothing any more."""
        asset, group = self.asset, self.asset.group
        X = group.watched_of(self.X)
        return asset.health.judge_settled(X, self.rows, group.judge())

    def judge_one(self, k: int) -> health.Judged:
        """Judge one vector, and learn from it."""
        asset, group = self.asset, self.asset.group
        x = group.watched_of(self.X[k : k + 1])[0]
        learn = self.doubtful is None or not self.doubtful[k]
        return asset.health.push(x, self.rows[k], group.cohort, group.judge(), learn=learn)


class Pipeline:
    """All assets of a device.

    Args:
        config: of the agent.
        lives: where feature vectors are kept.
        find_release: returns the release of a digest, for swaps met in the journal.
    """

    def __init__(
        self, config: AgentConfig, lives: Lives, find_release: Callable[[Swap], Release]
    ) -> None:
        self._config = config
        self._lives = lives
        self._find_release = find_release
        self._every_ns = round(config.report.health_every_s * 1e9)
        self.groups = {
            spec.name: Group(
                spec,
                load(spec.functions, Path(config.functions), spec.channel_names),
                sklearn=config.learning.sklearn,
            )
            for spec in config.asset_class
        }
        self.assets: dict[str, Asset] = {}
        self.first_life: dict[str, int] = {}
        """Number of the first life of an asset that was known before; others begin at 0."""
        self.counts = Counts()

    def process(self, batch: Batch) -> list[Outcome]:
        """Take a batch; return what is to be said, in order."""
        self.counts.rejected += batch.rejected
        outcomes: list[Outcome] = []
        if batch.swap is not None:
            group = self.groups[batch.swap.asset_class]
            group.swap(self._find_release(batch.swap) if batch.swap.version else None)
        rows = self._with_bursts(batch) if batch.shots else batch.rows
        done = np.zeros(len(rows), dtype=np.int64)
        for event in batch.events:
            # What came before the event is processed before it.
            self._rows(rows, done, event.pos, outcomes)
            self._event(event, outcomes)
        self._rows(rows, done, None, outcomes)
        for part in rows:
            self.assets[part.asset].end_batch()
        self._note_speeds(batch.rows)
        return outcomes

    def _with_bursts(self, batch: Batch) -> list[Rows]:
        """Compute the features of bursts, and put them among the rows at their places."""
        by_asset: dict[str, list[Rows]] = {}
        for part in batch.rows:
            by_asset.setdefault(part.asset, []).append(part)
        alike: dict[tuple[str, int], list[int]] = {}
        for i, shot in enumerate(batch.shots):
            group = self.asset(shot.asset).group
            alike.setdefault((group.spec.name, shot.wave), []).append(i)
        for (name, wave), found in alike.items():
            group = self.groups[name]
            shots = [batch.shots[i] for i in found]
            features = self._features(group, wave, shots, by_asset)
            for i, shot, row in zip(found, shots, features, strict=True):
                batch.shots[i] = shot._replace(features=row)
        for shot in batch.shots:
            spec = self.asset(shot.asset).group.spec
            at = len(spec.channels) + sum(len(w.features) for w in spec.waveforms[: shot.wave])
            values = np.full((1, len(spec.columns)), np.nan)
            values[0, at : at + len(spec.waveforms[shot.wave].features)] = shot.features
            whole = np.array([not spec.channels and len(spec.waveforms) == 1])
            one = Rows(shot.asset, np.array([shot.t_ns]), values, np.array([shot.pos]), whole)
            by_asset.setdefault(shot.asset, []).append(one)
        return [_in_order(asset, parts) for asset, parts in by_asset.items()]

    def _features(
        self, group: Group, wave: int, shots: list[Shot], rows: dict[str, list[Rows]]
    ) -> list[Floats]:
        """Return the features of bursts of one waveform; NaN, and marked, where one is bad."""
        spec = group.spec.waveforms[wave]
        known = [shot.features for shot in shots if shot.features is not None]
        if len(known) == len(shots):  # a journal that kept no waveforms
            return known
        good: list[int] = []
        found = [np.full(len(spec.features), np.nan) for _ in shots]
        for i, shot in enumerate(shots):
            reason = judge_burst(spec, shot.samples)
            if reason:
                self.counts.mark(spec.name, reason.name.lower(), 1)
            if QUALITY[reason] != Quality.BAD:
                good.append(i)
        if good:
            speeds = None
            if spec.bearing is not None:
                speeds = np.array([self._speed(spec, wave, shots[i], rows) for i in good])
            samples = np.stack([shots[i].samples for i in good])
            for i, row in zip(good, group.bursts[wave].compute(samples, speeds), strict=True):
                found[i] = row
        return found

    def _speed(self, spec: Waveform, wave: int, shot: Shot, rows: dict[str, list[Rows]]) -> float:
        """Return the newest speed in rpm that had come when a burst did; NaN: none."""
        if not spec.speed:
            return spec.speed_rpm or np.nan
        asset = self.asset(shot.asset)
        newest_s, speed = asset.speeds[wave].tolist()
        for part in rows.get(shot.asset, ()):
            upto = int(np.searchsorted(part.pos, shot.pos))
            found = _newest_speed(asset.group.spec, spec, part.t_ns[:upto], part.values[:upto])
            if found is not None and not found[0] <= newest_s:
                newest_s, speed = found
        return float(speed)

    def _note_speeds(self, rows: list[Rows]) -> None:
        for part in rows:
            asset = self.assets[part.asset]
            for wave, spec in enumerate(asset.group.spec.waveforms):
                if spec.speed:
                    found = _newest_speed(asset.group.spec, spec, part.t_ns, part.values)
                    if found is not None and not found[0] <= asset.speeds[wave, 0]:
                        asset.speeds[wave] = found

    def asset(self, name: str) -> Asset:
        """Return an asset's state, made when it is first heard of."""
        found = self.assets.get(name)
        if found is None:
            spec = self._config.class_of(name)
            if spec is None:  # the config changed since this was journalled
                raise ContractError(f"asset {name!r} matches no pattern of [assets] any more")
            found = self.assets[name] = Asset(name, self.groups[spec.name])
            found.life = self.first_life.get(name, 0)
        return found

    def _rows(
        self, rows: list[Rows], done: np.ndarray, before: int | None, outcomes: list[Outcome]
    ) -> None:
        runs: list[_Run] = []
        for i, part in enumerate(rows):
            start = int(done[i])
            end = len(part.t_ns)
            if before is not None:
                end = int(np.searchsorted(part.pos, before))
            if start < end:
                done[i] = end
                asset = self.asset(part.asset)
                whole = not start and end == len(part.t_ns)
                self._push(asset, part if whole else part.piece(start, end), runs)
        self._judge(runs, outcomes)

    def _push(self, asset: Asset, part: Rows, runs: list[_Run]) -> None:
        values = part.values
        if asset.grid is None:
            joined = asset.frame.push(part.t_ns, values, part.pos, part.whole)
        else:
            # Channels at their own rates: judged as they come, then brought to one.
            marks = asset.cleaner.judge(part.t_ns, values, part.whole)
            doubt = np.full((len(values), 1), np.nan)
            if marks is not None:
                values = self._mark(asset, marks, values, part.pos)
                doubt[(QUALITY[marks] == Quality.UNCERTAIN).any(axis=1)] = 1.0
            joined = asset.grid.push(part.t_ns, np.concatenate([values, doubt], axis=1), part.pos)
        self.counts.late += joined.late
        self.counts.repeated += joined.repeated
        self.counts.readings += len(part.t_ns) - joined.repeated
        if len(joined.t_ns):
            self._take(asset, joined, runs)

    def _take(self, asset: Asset, joined: Joined, runs: list[_Run]) -> None:
        """Clean rows and take them into the window; collect the feature vectors they complete."""
        values = joined.values
        doubt: NDArray[np.bool_] | None = None
        if asset.grid is None:
            marks = asset.cleaner.judge(joined.t_ns, values)
            if marks is not None:
                values = self._mark(asset, marks, values, joined.pos)
                doubt = (QUALITY[marks] == Quality.UNCERTAIN).any(axis=1)
        else:
            doubt = values[:, -1] == 1.0
            values = values[:, :-1]
        rows, X = asset.push(values)
        doubtful = asset.doubtful(doubt, rows, len(values))
        if len(rows):
            runs.append(_Run(asset, joined.pos[rows], joined.t_ns[rows], X, values[rows], doubtful))

    def _mark(
        self, asset: Asset, marks: NDArray[np.uint8], values: Floats, pos: NDArray[np.int64]
    ) -> Floats:
        """Count what was marked, keep it for the next report, and leave out what is bad."""
        names = asset.group.spec.channel_names
        for r in np.unique(marks[marks > 0]).tolist():
            found = marks == r
            word = Reason(r).name.lower()
            for c in np.flatnonzero(found.any(axis=0)).tolist():
                self.counts.mark(names[c], word, int(found[:, c].sum()))
        rows = np.flatnonzero(marks.any(axis=1))
        asset.fresh += zip(pos[rows].tolist(), marks[rows], strict=True)
        return np.where(QUALITY[marks] == Quality.BAD, np.nan, values)

    def _judge(self, runs: list[_Run], outcomes: list[Outcome]) -> None:
        """Judge the vectors of all runs, and speak of them in the order of their completion."""
        if all(run.asset.health.settled() for run in runs):
            # Nothing is learnt, so that it makes no difference which asset comes first.
            said: list[tuple[int, Outcome]] = []
            for run in runs:
                for k, judged in enumerate(run.judged()):
                    pos = int(run.pos[k])
                    said += [(pos, outcome) for outcome in self._vector(run, k, judged)]
            if len(runs) > 1:
                said.sort(key=lambda pair: pair[0])
            outcomes += [outcome for _, outcome in said]
            return
        # What one asset teaches, the next is judged by: strictly one after the other.
        order = [(int(pos), run, k) for run in runs for k, pos in enumerate(run.pos)]
        if len(runs) > 1:
            order.sort(key=lambda one: one[0])
        for _, run, k in order:
            outcomes += self._vector(run, k, run.judge_one(k))

    def _vector(self, run: _Run, k: int, judged: health.Judged) -> list[Outcome]:
        asset, group, t_ns = run.asset, run.asset.group, run.t_ns[k]
        self.counts.vectors += 1
        spec = group.spec
        sure = run.doubtful is None or not run.doubtful[k]
        if spec.rul and sure and np.isfinite(run.X[k]).all():
            self._lives.add(asset.name, asset.life, t_ns, run.X[k])
        due = t_ns - asset.told_ns >= self._every_ns
        rul_h: float | None = None
        predictor = group.predictor()
        if predictor is not None and (due or spec.alert_rul_h):
            rul_h = predict_one(predictor[1], run.X[k])
        change: Literal["raised", "returned", ""] = ""
        if judged.score is not None:
            change = asset.alert.push(t_ns, judged.score, rul_h)
        if not due and not change:
            return []
        if predictor is not None and not due and not spec.alert_rul_h:
            rul_h = predict_one(predictor[1], run.X[k])
        marks = asset.marks(int(run.pos[k])) if due else ()
        report = self._health(asset, t_ns, run.X[k], judged, predictor, rul_h, marks)
        outcomes: list[Outcome] = []
        if due:
            asset.told_ns = t_ns
            outcomes.append(report)
        if change:
            outcomes.append(
                asset.alert.report(
                    asset.name,
                    asset.life,
                    change,
                    t_ns,
                    score=judged.score or 0.0,
                    rul_h=report.rul_h,
                    judged_by=report.judged_by,
                    reasons=health.why(judged, group.parts),
                )
            )
        return outcomes

    def _health(
        self,
        asset: Asset,
        t_ns: int,
        x: Floats,
        judged: health.Judged,
        predictor: tuple[str, Predictor, float | None] | None,
        rul_h: float | None,
        marks: tuple[str, ...],
    ) -> Health:
        group = asset.group
        local = group.local_predictor()
        local_h = rul_h
        if local is not None and (predictor is None or local[1] is not predictor[1]):
            local_h = predict_one(local[1], x)
        elif local is None:
            local_h = None
        score = judged.score
        index = None if score is None else health.index(score, rul_h, group.spec.cap_h)
        return Health(
            asset=asset.name,
            t=t_ns / 1e9,
            state=_state(asset.alert.active, index),
            health=_rounded(index),
            score=_rounded(score),
            rul_h=_rounded(rul_h),
            rul_error_h=_rounded(predictor[2]) if predictor else None,
            rul_local_h=_rounded(local_h),
            judged_by=group.release.version if group.release else 0,
            rul_model=predictor[0] if predictor else "",
            life=asset.life,
            marks=marks,
            why=health.why(judged, group.parts) if score is not None and score > 0.7 else (),
        )

    def _event(self, event: Event, outcomes: list[Outcome]) -> None:
        asset = self.asset(event.asset)
        if not asset.is_new(event):
            self.counts.repeated += 1
            return
        self.counts.events += 1
        closed = _flush(asset, event.pos)
        if closed is not None:
            runs: list[_Run] = []
            self._take(asset, closed, runs)
            self._judge(runs, outcomes)
        if asset.alert.end():
            outcomes.append(
                asset.alert.report(
                    asset.name,
                    asset.life,
                    "returned",
                    event.t_ns,
                    score=0.0,
                    rul_h=None,
                    judged_by=asset.group.release.version if asset.group.release else 0,
                    reasons=(),
                )
            )
        group = asset.group
        if event.event != "failed":
            self._lives.forget(asset.name, asset.life)
        elif self._lives.finish(group.spec, asset.name, asset.life, event.t_ns):
            self.counts.lives += 1
            group.rul.learn(self._lives.training(group.spec, (asset.name, asset.life)))
            self._judge_own(group)
        asset.begin_life()

    def _judge_own(self, group: Group) -> None:
        local = group.local_predictor()
        group.error_h = (
            None if local is None else error_h(local[1], self._lives.heldout(group.spec))
        )

    def arrays(self) -> tuple[dict[str, object], Arrays]:
        """Return the state of everything: words and numbers, and arrays by name."""
        arrays: Arrays = {}
        released = {}
        for name, group in self.groups.items():
            for key, array in group.cohort.arrays().items():
                arrays[f"class/{name}/cohort/{key}"] = array
            for key, array in group.rul.arrays().items():
                arrays[f"class/{name}/rul/{key}"] = array
            if group.release is not None:
                released[name] = (group.release.version, group.release.digest)
        members = {
            name: [asset for asset in self.assets.values() if asset.group is group]
            for name, group in self.groups.items()
        }
        for name, assets in members.items():
            states = [asset.arrays() for asset in assets]
            for key in states[0] if states else ():
                arrays[f"class/{name}/asset/{key}"] = np.stack([state[key] for state in states])
        head = {
            "assets": {name: [asset.name for asset in found] for name, found in members.items()},
            "digests": {name: group.spec.digest() for name, group in self.groups.items()},
            "released": released,
            "counts": msgspec.to_builtins(self.counts),
        }
        return head, arrays

    def restore(self, head: dict[str, object], arrays: Arrays) -> None:
        """Take back what ``arrays`` returned.

        Raises:
            ContractError: the state belongs to another configuration.
        """
        state = msgspec.convert(head, _Head)
        for name, group in self.groups.items():
            if state.digests.get(name) != group.spec.digest():
                raise ContractError(f"asset class {name!r} was configured otherwise")
            prefix = f"class/{name}/"
            group.cohort.restore(_below(arrays, prefix + "cohort/"))
            group.rul.restore(_below(arrays, prefix + "rul/"), self._lives.training(group.spec))
            self._judge_own(group)
            stacked = _below(arrays, prefix + "asset/")
            for i, asset_name in enumerate(state.assets.get(name, [])):
                asset = self.assets[asset_name] = Asset(asset_name, group)
                asset.restore({key: array[i] for key, array in stacked.items()})
            if name in state.released:
                group.swap(self._find_release(Swap(name, *state.released[name])))
        self.counts = state.counts


def _flush(asset: Asset, pos: int) -> Joined | None:
    """Close what is open of an asset."""
    if asset.grid is not None:
        t_ns, values = asset.grid.flush()
        return Joined(t_ns, values, np.full(len(t_ns), pos), 0, 0) if len(t_ns) else None
    open_row = asset.frame.flush()
    if open_row is None:
        return None
    at_ns, row = open_row
    return Joined(np.array([at_ns]), row[None, :], np.array([pos]), 0, 0)


def _newest_speed(
    spec: AssetClass, wave: Waveform, t_ns: NDArray[np.int64], values: Floats
) -> tuple[float, float] | None:
    """Return time in seconds and value of the newest plausible speed, if there is one."""
    column = spec.channel_names.index(wave.speed)
    speeds = values[:, column]
    channel = spec.channels[column]
    low = 0.0 if channel.low is None else channel.low
    high = np.inf if channel.high is None else channel.high
    good = np.flatnonzero((speeds >= low) & (speeds <= high) & np.isfinite(speeds))
    if not len(good):
        return None
    at = good[int(np.argmax(t_ns[good]))]
    return float(t_ns[at]) / 1e9, float(speeds[at])


def _in_order(asset: str, parts: list[Rows]) -> Rows:
    """Join rows of an asset, in the order of the messages they came with."""
    if len(parts) == 1:
        return parts[0]
    pos = np.concatenate([part.pos for part in parts])
    order = np.argsort(pos, kind="stable")
    return Rows(
        asset,
        np.concatenate([part.t_ns for part in parts])[order],
        np.concatenate([part.values for part in parts])[order],
        pos[order],
        np.concatenate([part.whole for part in parts])[order],
    )


class _Head(msgspec.Struct):
    assets: dict[str, list[str]]
    digests: dict[str, str]
    released: dict[str, tuple[int, str]]
    counts: Counts


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _state(
    active: bool, index: float | None
) -> Literal["learning", "healthy", "degraded", "failing"]:
    if index is None:
        return "learning"
    if not active:
        return "healthy"
    return "failing" if index < 0.25 else "degraded"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

"""A batch in, outcomes out: join, clean, features, health, remaining life, alerts.

Pure but for its own state and the lives it keeps: no clock, no chance, no network. What arrives is
met in the order of arrival, and how it was cut into batches makes no difference, so that a replay
of the journal gives the same models and the same outcomes as the first time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from agent import commands, health
from agent.alerts import FAILING, Span
from agent.asset import Asset, Counts, Run
from agent.batch import GONE, Batch, Clock, Event, Rows, Swap
from agent.bursts import among_rows
from agent.config import AgentConfig
from agent.facts import Facts
from agent.features.levels import Kept
from agent.group import Group
from agent.labels import Life
from agent.personal import own_model, personal, restored
from agent.prognosis import Interval, error_h, predict_one
from agent.record import Ended
from contract.arrays import Arrays, Floats
from contract.errors import ConfigError, ContractError
from contract.release import Predictor, Release
from contract.report import (
    Acknowledge,
    Alert,
    AlertWord,
    Health,
    LifeEvent,
    Likely,
    Shelve,
    Unshelve,
    Verdict,
    drift_of,
)
from contract.spec import AssetClass


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


Outcome = Health | Alert


class Finding(NamedTuple):
    """A verdict, and the alert that it is on.

    Attributes:
        asset_class: of the asset.
        asset: which.
        t_ns: of the verdict.
        said: the verdict.
        alert: its id; empty: none was raised.
        span: when that stood; None: it is not known any more, or there was none.
    """

    asset_class: str
    asset: str
    t_ns: int
    said: Verdict
    alert: str
    span: Span | None


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
        functions = Path(config.functions)
        self.groups = {
            spec.name: Group(spec, functions, sklearn=config.learning.sklearn)
            for spec in config.asset_class
        }
        for name, group in self.groups.items():
            try:
                # One on trial: what no asset could be made of is said now, not when one speaks.
                Asset("", group)
            except ValueError as error:
                raise ConfigError(f"asset_class {name}: {error}") from error
        self.assets: dict[str, Asset] = {}
        self.first_life: dict[str, int] = {}
        """Number of the first life of an asset that was known before; others begin at 0."""
        self._ended: dict[str, tuple[str, int]] = {}
        """Per class the newest life that ended in a failure: asset and number."""
        self.counts = Counts()
        self.facts: Facts = {}
        """Slow facts by asset, and from when on."""
        self.clock_ns = 0
        """This device's clock, when the newest message came."""
        self.lookers: list[Callable[[Run, int], None]] = []
        """Called with each vector that is reported, by its place in a run; they change nothing."""
        self.beside: Callable[[Asset, health.Judged, int, Floats, float | None], None] | None = None
        """Called with each vector that was judged, its time and hours left; it changes nothing."""
        self.findings: list[Finding | Ended] = []
        """Verdicts and ends of lives of the newest batch, to be kept with it."""

    def process(self, batch: Batch) -> list[Outcome]:
        """Take a batch; return what is to be said, in order.

        Raises:
            ContractError: it was journalled under another configuration; nothing was taken of it.
        """
        self._check(batch)
        self.findings = []
        self.counts.rejected += batch.rejected
        outcomes: list[Outcome] = []
        if batch.swap is not None:
            group = self.groups[batch.swap.asset_class]
            group.swap(self._find_release(batch.swap) if batch.swap.version else None)
            if group.release is not None and group.release.health is not None:
                group.cohort.adopt(group.release.health)
            self._personalise(group)
            self._judge_own(group)
            for one in self.assets.values():
                if one.group is group:
                    one.judged_by_another()
        if batch.facts is not None:
            self.facts = batch.facts
            for name, known in self.assets.items():
                known.know(self.facts.get(name, []))
        if batch.shots:
            rows = among_rows(batch, self.asset, self.counts)
        else:
            rows = batch.rows
            for part in rows:
                self.asset(part.asset).take_speeds(part)
        done = [0] * len(rows)
        for event in batch.events:
            # What came before the event is processed before it.
            self._rows(rows, done, event.pos, outcomes, batch.clock)
            self._event(event, outcomes)
        self._rows(rows, done, None, outcomes, batch.clock)
        ended = {part.asset for part in rows} | {event.asset for event in batch.events}
        if batch.clock is not None:
            self.clock_ns = batch.clock.at_ns
            if batch.clock.back:
                ended.update(self.assets)
        for name in ended:
            if name in self.assets:  # an asset that is gone may never have said anything
                self.assets[name].end_batch(batch.clock)
        return outcomes

    def _check(self, batch: Batch) -> None:
        """Raise ``ContractError`` where a batch does not fit the configuration."""
        for part in batch.rows:
            width = len(self.asset(part.asset).group.spec.columns)
            if part.values.shape != (len(part.t_ns), width):
                shape = part.values.shape
                raise ContractError(f"rows {shape} of {part.asset!r}, which has {width} columns")
        for shot in batch.shots:
            waves = self.asset(shot.asset).group.spec.waveforms
            if shot.wave >= len(waves):
                raise ContractError(f"a burst of a waveform that {shot.asset!r} has not")
            found = waves[shot.wave]
            size = len(shot.samples) if shot.features is None else len(shot.features)
            if size != (found.samples if shot.features is None else len(found.features)):
                raise ContractError(f"a burst of another length of {shot.asset!r}, {found.name!r}")
        for event in batch.events:
            if event.event != GONE:
                self.asset(event.asset)
                commands.read(event)
        if batch.swap is not None and batch.swap.asset_class not in self.groups:
            raise ContractError(f"a release for an asset class {batch.swap.asset_class!r}")

    def asset(self, name: str) -> Asset:
        """Return an asset's state, made when it is first heard of."""
        found = self.assets.get(name)
        if found is None:
            spec = self._config.class_of(name)
            if spec is None:  # the config changed since this was journalled
                raise ContractError(f"asset {name!r} matches no pattern of [assets] any more")
            found = self.assets[name] = Asset(name, self.groups[spec.name])
            found.life = self.first_life.get(name, 0)
            found.know(self.facts.get(name, []))
        return found

    def _rows(
        self,
        rows: list[Rows],
        done: list[int],
        before: int | None,
        outcomes: list[Outcome],
        clock: Clock | None,
    ) -> None:
        runs: list[Run] = []
        for i, part in enumerate(rows):
            start = done[i]
            end = len(part.t_ns)
            if before is not None:
                end = int(np.searchsorted(part.pos, before))
            if start < end:
                done[i] = end
                whole = not start and end == len(part.t_ns)
                piece = part if whole else part.piece(start, end)
                runs += self.assets[part.asset].take(piece, self.counts, clock)
        self._judge(runs, outcomes)

    def _judge(self, runs: list[Run], outcomes: list[Outcome]) -> None:
        """Judge the vectors of all runs, and speak of them in the order of their completion.

        Those that one message completed come in the order of the assets' names: in which order the
        assets stand in a batch depends on how it was cut.
        """
        if len(runs) > 1:
            runs.sort(key=lambda run: run.asset.name)
        if all(run.settled() for run in runs):
            # Nothing is learnt, so that it makes no difference which asset comes first.
            said: list[tuple[int, Outcome]] = []
            for run in runs:
                for k, judged in enumerate(run.judged()):
                    pos = run.pos[k]
                    said += [(pos, outcome) for outcome in self._vector(run, k, judged)]
            if len(runs) > 1:
                said.sort(key=lambda pair: pair[0])
            outcomes += [outcome for _, outcome in said]
            return
        # What one asset teaches, the next is judged by: strictly one after the other.
        order = [(pos, run, k) for run in runs for k, pos in enumerate(run.pos)]
        if len(runs) > 1:
            order.sort(key=lambda one: one[0])
        for _, run, k in order:
            outcomes += self._vector(run, k, run.judge_one(k))

    def _vector(self, run: Run, k: int, judged: health.Judged) -> list[Outcome]:
        asset, group, t_ns = run.asset, run.asset.group, run.t_ns[k]
        self.counts.vectors += 1
        if run.anew_ns is not None and k == 0:
            asset.begin_time(run.anew_ns)
        asset.watch_drift(run.levelled[k], judged)
        spec = group.spec
        if spec.rul and run.whole[k] and run.sure(k) and group.levels.ready:
            self._lives.add(asset.name, asset.life, t_ns, run.X[k])
        due = t_ns - asset.told_ns >= self._every_ns
        rul_h: float | None = None
        predictor = group.predictor()
        known = due or bool(spec.alert_rul_h) or asset.alert.active
        if predictor is not None and known:
            rul_h = predict_one(predictor[1], run.X[k])
        if judged.z is not None and judged.score is not None:
            # By what was judged now alone: an old score, told again, is no evidence.
            change = asset.alert.push(t_ns, judged.score, rul_h, asset.life)
            self._record(asset, judged, judged.score, t_ns, change)
            if self.beside is not None:
                self.beside(asset, judged, t_ns, run.X[k], rul_h)
        else:
            change = asset.alert.expire(t_ns)
        if not due and not change:
            return []
        if predictor is not None and not known:
            rul_h = predict_one(predictor[1], run.X[k])
        marks = asset.marks(run.pos[k]) if due else ()
        report = self._health(run, k, judged, predictor, rul_h, marks)
        outcomes: list[Outcome] = []
        if due:
            if report.rul_h is not None:
                asset.record.tell(t_ns, report.rul_h)
            asset.told_ns = t_ns
            outcomes.append(report)
            for look in self.lookers:
                look(run, k)
        if change:
            outcomes.append(
                asset.alert.report(
                    asset.name,
                    change,
                    t_ns,
                    newest=(judged.score or 0.0, report.rul_h),
                    interval=group.interval,
                    judged_by=report.judged_by,
                    reasons=health.why(judged, group.parts),
                    faults=_likely(asset),
                )
            )
        return outcomes

    def _record(
        self, asset: Asset, judged: health.Judged, score: float, t_ns: int, change: str
    ) -> None:
        """Count a judged vector; keep it, if an alert stands, until it is known what it was."""
        tally = asset.group.tally
        tally.watched_ns += asset.record.watched_ns(t_ns)
        tally.judged += 1
        tally.over += score >= 1.0
        tally.raised += change == "raised"
        if asset.alert.active and judged.z is not None:
            asset.record.suspect(asset.alert.number, judged.z, judged.raw)

    def _health(
        self,
        run: Run,
        k: int,
        judged: health.Judged,
        predictor: tuple[str, Predictor, float | None] | None,
        rul_h: float | None,
        marks: tuple[str, ...],
    ) -> Health:
        asset, group, x = run.asset, run.asset.group, run.X[k]
        local = group.local_predictor()
        local_h = rul_h
        if local is not None and (predictor is None or local[1] is not predictor[1]):
            local_h = predict_one(local[1], x)
        elif local is None:
            local_h = None
        low_h = high_h = coverage = None
        if rul_h is not None and group.interval is not None:
            low_h, high_h = group.interval.around(rul_h)
            coverage = group.interval.coverage
        score = judged.score
        drifted = asset.drifted
        index = None if score is None else health.index(score, rul_h, group.spec.cap_h)
        return Health(
            asset=asset.name,
            t=run.t_ns[k] / 1e9,
            state=_state(asset.alert.active, index),
            health=_rounded(index),
            score=_rounded(score),
            rul_h=_rounded(rul_h),
            rul_error_h=_rounded(predictor[2]) if predictor else None,
            rul_low_h=_rounded(low_h),
            rul_high_h=_rounded(high_h),
            rul_coverage=_rounded(coverage),
            rul_local_h=_rounded(local_h),
            judged_by=group.version,
            rul_model=predictor[0] if predictor else "",
            life=asset.life,
            marks=marks,
            lacks=(
                () if run.whole[k] and judged.absent is None else group.lacking(x, judged.absent)
            ),
            why=health.why(judged, group.parts) if score is not None and score > 0.7 else (),
            drift=drifted,
            drift_of=drift_of(drifted, group.sensors),
            faults=_likely(asset),
        )

    def _gone(self, event: Event, outcomes: list[Outcome]) -> None:
        """Say of an asset that nothing is known of it any more, unless that was said."""
        asset = self.assets.get(event.asset)
        if asset is None or not asset.present:
            return
        marks = asset.leave()
        for mark in marks:
            self.counts.mark(asset.name, mark.removesuffix(".stale"), "stale", 1)
        outcomes.append(
            Health(
                asset=asset.name,
                t=event.t_ns / 1e9,
                state="stale",
                health=None,
                score=None,
                rul_h=None,
                rul_error_h=None,
                rul_local_h=None,
                judged_by=asset.group.version,
                rul_model="",
                life=asset.life,
                why=(),
                marks=marks,
            )
        )

    def _event(self, event: Event, outcomes: list[Outcome]) -> None:
        if event.event == GONE:
            self._gone(event, outcomes)
            return
        asset = self.asset(event.asset)
        said = commands.read(event)
        if not asset.is_new(commands.key(event, said, asset.alert.id_of(asset.name))):
            self.counts.repeated += 1
            return
        if isinstance(said, LifeEvent):
            self._life_event(asset, event, said, outcomes)
        else:
            outcomes.append(self._command(asset, event.t_ns, said))

    def _command(
        self, asset: Asset, t_ns: int, said: Acknowledge | Shelve | Unshelve | Verdict
    ) -> Alert:
        """Do what a person says to an alert; return the answer."""
        alert, remark = asset.alert, ""
        word: AlertWord
        if isinstance(said, Shelve):
            word = alert.shelve(t_ns + round(said.hours * 3.6e12))
        elif isinstance(said, Unshelve):
            word = alert.unshelve()
        else:
            newest = alert.id_of(asset.name)
            meant = said.alert or newest
            word = alert.state
            if isinstance(said, Verdict):
                finding = self._finding(asset, t_ns, said)
                self.findings.append(finding)
                if said.verdict == "false_alarm" and finding.span is not None:
                    found = asset.record.acquitted(finding.span.number)
                    asset.group.acquit(*found)
                elif said.verdict == "confirmed" and said.fault:
                    remark = _learn_kind(asset, finding)
            if meant != newest:
                remark = f"{meant} is not the newest alert"
            elif isinstance(said, Verdict):
                word = alert.judge(said.verdict)
            else:
                word = alert.acknowledge()
        return alert.report(
            asset.name,
            word,
            t_ns,
            interval=asset.group.interval,
            judged_by=asset.group.version,
            remark=remark,
            ref=said.ref,
            faults=_likely(asset),
        )

    def _finding(self, asset: Asset, t_ns: int, said: Verdict) -> Finding:
        span = asset.alert.find(asset.name, said.alert)
        return Finding(
            asset.group.spec.name,
            asset.name,
            t_ns,
            said,
            asset.alert.id_of(asset.name, span) if span else said.alert,
            span,
        )

    def _life_event(
        self, asset: Asset, event: Event, said: LifeEvent, outcomes: list[Outcome]
    ) -> None:
        self.counts.events += 1
        run = asset.flush(event.pos, self.counts)
        if run is not None:
            self._judge([run], outcomes)
        group, newest = asset.group, asset.alert.newest
        if event.event != "started" and asset.begun:
            self.findings.append(_ended(asset, event))
        closed = asset.alert.end(event.t_ns)
        if closed or said.ref:
            outcomes.append(
                asset.alert.report(
                    asset.name,
                    "normal",
                    event.t_ns,
                    newest=newest,
                    interval=group.interval,
                    judged_by=group.version,
                    event=said.event if closed else "",
                    remark="" if closed else f"{said.event}: noted",
                    ref=said.ref,
                )
            )
        if group.levels.learning:
            self._learn_levels(asset, failed=event.event == "failed")
        if event.event != "failed":
            self._lives.forget(asset.name, asset.life)
        elif self._lives.finish(group.spec, asset.name, asset.life, event.t_ns):
            self.counts.lives += 1
            self._ended[group.spec.name] = asset.name, asset.life
            group.rul.learn(self._lives.training(group.spec, (asset.name, asset.life)))
            self._personalise(group)
            self._judge_own(group)
        asset.begin_life()

    def _personalise(self, group: Group) -> None:
        """Weigh this device's own lives anew against those of the fleet that judge beside them."""
        if group.release is not None and own_model(group.release) is not None:
            lives = self._lives.training(group.spec, self._ended.get(group.spec.name))
            group.personal = personal(group.release, self._config.name, lives)

    def _learn_levels(self, ended: Asset, *, failed: bool) -> None:
        """Learn the levels of a life that has ended.

        While they are still learnt, each life's vectors are made anew by what is known now: those
        of the first would else be of levels that hardly anything was known of.
        """
        group = ended.group
        first = not group.levels.ready
        if group.levels.learn(ended.past(), failed=failed):
            for life in group.levels.kept:
                if life.whole:
                    # In a window of its own: the asset's may be in its next life.
                    self._live_again(Asset(life.asset, group), life)
            for _, asset in sorted(self.assets.items()):
                if asset.group is group and asset is not ended:
                    self._live_again(asset, asset.past())
                    if first:
                        asset.health.reset()
            group.rul.forget()
        group.levels.settle()

    def _live_again(self, asset: Asset, life: Kept) -> None:
        asset.know(self.facts.get(asset.name, []))
        t_ns, X = asset.live_again(life)
        if life.whole:
            self._lives.forget(life.asset, life.life)
            for at_ns, x in zip(t_ns.tolist(), X, strict=True):
                if np.isfinite(x).all():
                    self._lives.add(life.asset, life.life, at_ns, x)

    def _judge_own(self, group: Group) -> None:
        """Judge the models of remaining life by the lives that were held out."""
        judging = group.predictor()
        lives = self._lives.heldout(group.spec) if judging is not None else []
        group.error_h = None if judging is None else error_h(judging[1], lives)
        group.interval = (
            None if judging is None else Interval.of(judging[1], lives, group.spec.cap_h)
        )
        if judging is not None and judging[1] is group.rul.models.get("ridge"):
            group.interval = group.interval or group.rul.interval

    def arrays(self) -> tuple[dict[str, object], Arrays]:
        """Return the state of everything: words and numbers, and arrays by name."""
        arrays: Arrays = {}
        released = {}
        for name, group in self.groups.items():
            for key, array in group.cohort.arrays().items():
                arrays[f"class/{name}/cohort/{key}"] = array
            for key, array in group.rul.arrays().items():
                arrays[f"class/{name}/rul/{key}"] = array
            if group.personal is not None:
                for key, array in group.personal.arrays().items():
                    arrays[f"class/{name}/{key}"] = array
            if group.kinds is not None:
                for key, array in group.kinds.arrays().items():
                    arrays[f"class/{name}/kinds/{key}"] = array
            for key, array in group.record().items():
                arrays[f"class/{name}/{key}"] = array
            for key, array in group.levels.arrays().items():
                arrays[f"class/{name}/levels/{key}"] = array
            if group.release is not None:
                released[name] = (group.release.version, group.release.digest)
        # By name: in which order assets are met in a batch depends on how it was cut.
        members: dict[str, list[Asset]] = {name: [] for name in self.groups}
        for _, asset in sorted(self.assets.items()):
            members[asset.group.spec.name].append(asset)
        for name, assets in members.items():
            states = [asset.arrays() for asset in assets]
            for key in states[0] if states else ():
                arrays[f"class/{name}/asset/{key}"] = np.stack([state[key] for state in states])
        head = {
            "assets": {name: [asset.name for asset in found] for name, found in members.items()},
            "digests": {name: group.spec.digest() for name, group in self.groups.items()},
            "released": released,
            "ended": self._ended,
            "facts": self.facts,
            "clock_ns": self.clock_ns,
            "first_life": {
                name: life
                for name, life in sorted(self.first_life.items())
                if name not in self.assets
            },
            "counts": msgspec.to_builtins(self.counts, order="sorted"),
        }
        return head, arrays

    def restore(self, head: dict[str, object], arrays: Arrays) -> None:
        """Take back what ``arrays`` returned, of the classes that are configured as they were then.

        Raises:
            ContractError: that is none, or the state is not whole.
        """
        try:
            state = msgspec.convert(head, _Head)
        except msgspec.ValidationError as error:
            raise ContractError(f"its head cannot be read: {error}") from error
        self.first_life = state.first_life
        for name, members in state.assets.items():
            # An asset that does not go on must not take an old life's number for a new one.
            numbers = arrays.get(f"class/{name}/asset/asset", ())
            for member, row in zip(members, numbers, strict=False):
                self.first_life[member] = int(row[0]) + 1
        alike = [
            group
            for name, group in self.groups.items()
            if state.digests.get(name) == group.spec.digest()
        ]
        if not alike:
            raise ContractError("each asset class was configured otherwise")
        for group in alike:
            try:
                self._restore(group, state, _below(arrays, f"class/{group.spec.name}/"))
            except (KeyError, IndexError, ValueError) as error:
                name = group.spec.name
                raise ContractError(f"the state of asset class {name!r} is not whole") from error
        self.counts = state.counts
        self.facts = state.facts
        self.clock_ns = state.clock_ns
        for name, asset in self.assets.items():
            asset.know(self.facts.get(name, []))
            self.first_life.pop(name, None)

    def _restore(self, group: Group, state: "_Head", arrays: Arrays) -> None:
        name = group.spec.name
        group.cohort.restore(_below(arrays, "cohort/"))
        group.levels.restore(_below(arrays, "levels/"))
        if group.kinds is not None:
            group.kinds.restore(_below(arrays, "kinds/"))
        if name in state.ended:
            self._ended[name] = state.ended[name]
        # The lives of then: a journal that is to be replayed may have ended more.
        lives = self._lives.training(group.spec, state.ended.get(name))
        group.rul.restore(_below(arrays, "rul/"), lives)
        self._judge_own(group)
        stacked = _below(arrays, "asset/")
        for i, asset_name in enumerate(state.assets.get(name, [])):
            if self._config.class_of(asset_name) is group.spec:  # else [assets] says otherwise now
                asset = self.assets[asset_name] = Asset(asset_name, group)
                asset.restore({key: array[i] for key, array in stacked.items()})
        if name in state.released:
            group.swap(self._find_release(Swap(name, *state.released[name])))
            if group.release is not None:
                group.personal = restored(group.release, arrays)
            self._judge_own(group)
        if "tally" in arrays:
            group.restore_record(arrays)


def _ended(asset: Asset, event: Event) -> Ended:
    span = asset.alert.span()
    own = span is not None and span.life == asset.life
    told, error = asset.record.error_h(event.t_ns, asset.group.spec.cap_h)
    return Ended(
        asset.group.spec.name,
        asset.name,
        asset.life,
        event.t_ns,
        event.event,
        asset.alert.id_of(asset.name, span) if own else "",
        own and asset.alert.active,
        told,
        error,
    )


class _Head(msgspec.Struct):
    assets: dict[str, list[str]]
    digests: dict[str, str]
    released: dict[str, tuple[int, str]]
    counts: Counts
    ended: dict[str, tuple[str, int]] = {}
    facts: Facts = {}
    clock_ns: int = 0
    first_life: dict[str, int] = {}


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _likely(asset: Asset) -> tuple[Likely, ...]:
    """Return the kinds of faults that the alert of an asset looks like, while it stands."""
    kinds, alert = asset.group.kinds, asset.alert
    if kinds is None or not alert.active:
        return ()
    return kinds.tell(asset.record.suspects(alert.number))


def _learn_kind(asset: Asset, finding: Finding) -> str:
    """Learn what kind of fault an alert was; return what is to be remarked."""
    kinds, fault = asset.group.kinds, finding.said.fault
    if kinds is None:
        return ""
    if fault not in kinds.spec.kinds:
        return f"{fault!r} is none of the kinds that are learnt: {', '.join(kinds.spec.kinds)}"
    Z = asset.record.suspects(finding.span.number) if finding.span is not None else None
    if Z is None or not len(Z):
        return f"of that alert nothing is kept any more to learn {fault!r} from"
    kinds.learn(Z.copy(), fault)
    asset.record.acquitted(finding.span.number if finding.span else 0)
    return ""


def _state(
    active: bool, index: float | None
) -> Literal["learning", "healthy", "degraded", "failing"]:
    if index is None:
        return "learning"
    if not active:
        return "healthy"
    return "failing" if index < FAILING else "degraded"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

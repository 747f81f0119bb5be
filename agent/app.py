"""The loop: take what there is, journal it, judge it, commit, acknowledge, publish."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from agent import resources
from agent.advisory import Advisory
from agent.assemble import Assembler
from agent.batch import GONE, Batch, Rejected, Swap
from agent.clock import DeviceClock
from agent.config import AgentConfig
from agent.database import RETRY_S
from agent.deployment import Deployment
from agent.evidence.custody import Custody
from agent.facts import Facts, FactsFile
from agent.intake import Arrival, Intake
from agent.layout import Layout
from agent.mqtt import Link
from agent.picture import Pictures
from agent.pipeline import Outcome, Pipeline
from agent.publish import Publisher
from agent.record import Ended
from agent.rollout import Rollout, Verdict
from agent.sources import Source
from agent.sources.source import loud
from agent.store import Result, Store
from agent.verdicts import quality
from agent.watchdog import Watchdog
from contract import VERSION, topics
from contract.errors import BrokenError, ContractError, DataError
from contract.features import FeatureSpec
from contract.report import (
    Alert,
    ClassConfig,
    Measured,
    NodeConfig,
    NodeStatus,
    Quality,
    Resources,
)
from contract.settings import Standing

if TYPE_CHECKING:
    from agent.page.logbook import Logbook
    from agent.page.server import Page
    from agent.plant import EdgeLink, HostLink
    from agent.remote import Remote

log = logging.getLogger("runout.agent")

RESOURCES_S = 30.0
"""Between two looks at what the machine has left."""
MOST_STORED, MOST_TOLD = 100, 20
"""Assets whose marked values are in the store, for who looks, and in the status."""

_json = msgspec.json.Encoder()


class Engine:
    """Store and pipeline: what a batch does to them, and how they come back after a kill.

    Args:
        config: of the agent.
        opened: closes what is opened here.
        while_stuck: see ``agent.database.Database``; None: it is waited, for as long as it takes.

    Attributes:
        rejected: messages that could not be used, by reason, since this process began.
        left_out: values that nothing was made of, by reason, as the assembler counts them.
        commit_s: seconds that the newest commit took.
        quality: of the alerts, per asset class.
    """

    def __init__(
        self,
        config: AgentConfig,
        opened: ExitStack,
        while_stuck: Callable[[], None] | None = None,
    ) -> None:
        self.config = config
        self.store = Store(config.state, config.keep)
        opened.callback(self.store.close)
        if while_stuck is not None:
            self.store.database.while_stuck = while_stuck
        self.rollout = Rollout(config)
        self.pipeline = Pipeline(config, self.store, self.rollout.find)
        self.rejected: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.commit_s = 0.0
        self._marked = b""
        self._steps = 0
        self.quality: dict[str, Quality] = msgspec.json.decode(
            self.store.meta("quality", "{}"), type=dict[str, Quality]
        )
        self.custody = Custody(self.store, config, evidence_mb=config.keep.evidence_mb)
        since, empty = self._recover()
        self.custody.begin(self.pipeline, since, empty=empty)
        self.store.begin()
        self.store.set_meta("layout", Layout.of(config).text(self._layout()))
        self.store.set_meta("node", config.name)
        for spec in config.asset_class:
            self.store.set_meta(f"class/{spec.name}", msgspec.json.encode(spec).decode())
            release = self.pipeline.groups[spec.name].release
            live = f"{release.version} {release.digest}" if release else "0"
            self.store.set_meta(f"live/{spec.name}", live)  # the store or the state may be new
        self.store.set_meta("site", config.node.site)
        self.store.commit()
        self.deployment = Deployment(config, self.store, self.pipeline, self.rollout, self.swap)

    def _layout(self) -> Layout | None:
        return Layout.read(self.store.meta("layout", ""))

    def _recover(self) -> tuple[int, bool]:
        """Take the newest whole checkpoint, and replay the journal behind it.

        Of what was configured otherwise then, nothing goes on: it is said, and begins anew.

        Returns:
            number of the batch behind which the state follows from the journal, and whether it was
            empty there.
        """
        now, before = Layout.of(self.config), self._layout()
        changed = before if before is not None and not before.agrees(now) else None
        if changed is not None:
            self.custody.gather(None)  # what it needs is forgotten below
            self._say(changed, now)
            for name in changed.other_features(now):
                self.store.forget_class(name)
        seq = 0
        for head, arrays in self.store.checkpoints():
            try:
                self.pipeline.restore(head, arrays)
            except (ContractError, KeyError, ValueError) as error:
                log.warning("a checkpoint was not used", extra={"error": str(error)})
                numbers = self.pipeline.first_life
                self.pipeline = Pipeline(self.config, self.store, self.rollout.find)
                self.pipeline.first_life = numbers
                continue
            seq = int(str(head["seq"]))
            break
        first = self.store.first_seq()
        if self.store.seq > seq and not 0 < first <= seq + 1:
            log.error("the journal does not reach back to a checkpoint: windows begin anew")
            self.custody.gather(None)
            for name, asset in self.pipeline.assets.items():
                self.pipeline.first_life[name] = asset.life + 1
            self.pipeline.assets.clear()
            # Numbers of lives must not: they tell the lives in the store apart.
            self._number(self.store.forget_unfinished())
            self._seal()
            return self.store.seq, False
        if changed is not None:
            self._number(self.store.forget_unfinished(lambda asset: changed.goes_on(now, asset)))
        else:
            self.custody.begin(self.pipeline, seq, empty=seq == 0)
        torn = self.store.seq > max(seq, self.store.last_seq())
        self.store.seq = max(self.store.seq, seq)
        self._replay(seq, changed, now)
        if torn:
            log.critical(
                "the journal ends before what was said: the state goes on without its last batches",
                extra={"batches": self.store.seq - max(seq, self.store.last_seq())},
            )
        if torn or changed is not None:
            self.custody.gather(self.pipeline)
            self._seal()
            return self.store.seq, False
        return seq, seq == 0

    def _number(self, lives: dict[str, int]) -> None:
        """Let the next lives of assets that begin anew have numbers that none had before."""
        known = self.pipeline.first_life
        for asset, number in lives.items():
            if asset not in self.pipeline.assets:
                known[asset] = max(known.get(asset, 0), number)

    def _replay(self, seq: int, changed: Layout | None, now: Layout) -> None:
        """Process the journal behind a batch again; of another configuration's what goes on."""
        replayed = 0
        for number, body in self.store.replay(seq):
            try:
                batch = Batch.decode(body)
                if changed is not None:
                    batch = self._what_goes_on(batch, changed, now)
                outcomes = self.pipeline.process(batch)
                if number > self.store.done:
                    # The end came between its commit and that of what came of it.
                    self._keep(batch, outcomes, noted=changed is None)
            except ContractError as error:
                log.warning(
                    "a journalled batch was skipped", extra={"seq": number, "error": str(error)}
                )
            replayed += 1
        if seq or replayed:
            log.info("state restored", extra={"checkpoint": seq, "batches_replayed": replayed})

    def _what_goes_on(self, batch: Batch, before: Layout, now: Layout) -> Batch:
        """Return what a batch says of assets that go on; count the lives of the others."""
        known = self.pipeline.first_life
        for part in batch.rows:
            if not before.goes_on(now, part.asset):
                known.setdefault(part.asset, 1)
        for event in batch.events:
            if event.event != GONE and not before.goes_on(now, event.asset):
                known[event.asset] = known.get(event.asset, 0) + 1
        return batch.only(lambda asset: before.goes_on(now, asset), before.alike(now))

    def _say(self, before: Layout, now: Layout) -> None:
        """Say what begins anew because it was configured otherwise."""
        features, alike = before.other_features(now), before.alike(now)
        for name in now.digests:
            if name in features:
                log.warning(
                    "the asset class was configured with other channels or features: "
                    "its lives and windows begin anew",
                    extra={"asset_class": name},
                )
            elif name not in alike and name in before.digests:
                log.warning(
                    "the asset class was configured with other models or regimes: its windows and "
                    "what it learnt of health begin anew; its finished lives are kept",
                    extra={"asset_class": name},
                )
        if before.assets != now.assets:
            log.warning("[assets] was another: assets of another class than then begin anew")

    def _seal(self) -> None:
        """Let restarts begin with this state: what was journalled before means something else."""
        before = self.store.seq
        self.store.cut_journal()
        for _ in range(2):  # the checkpoint before the newest, too
            self.store.begin()
            self.store.journal(Batch([], []).encode())
            self.store.commit()
            self.store.checkpoint(*self.pipeline.arrays())
        if self.store.meta("checkpointed", "0") == str(self.store.seq):
            self.store.forget_journal(before)

    def process(self, batch: Batch, rejected: list[Rejected] | None = None) -> list[Outcome]:
        """Journal, judge and commit one batch; after this it may be acknowledged."""
        self.store.begin()
        steps = self.pipeline.counts.clock_steps
        outcomes = self.pipeline.process(batch)
        self._note_steps(self.pipeline.counts.clock_steps - steps)
        # Behind the processing, which finds the features of bursts; one transaction all the same.
        self.store.journal(batch.encode(waveforms=self.config.keep.waveforms))
        self._keep(batch, outcomes)
        if rejected:
            self.store.quarantine(rejected, self.config.limits.quarantine)
            for message in rejected:
                self._count(message)
        if batch.swap:
            live = f"{batch.swap.version} {batch.swap.digest}"
            self.store.set_meta(f"live/{batch.swap.asset_class}", live)
        began = time.monotonic()
        self.store.commit()
        self.commit_s = time.monotonic() - began
        return outcomes

    def _qualities(self) -> dict[str, Quality]:
        """Return how good the alerts are, by what is known of them."""
        found = {}
        for name, group in self.pipeline.groups.items():
            members = [one for one in self.pipeline.assets.values() if one.group is group]
            verdicts, ended = self.store.cases(name)
            found[name] = quality(
                verdicts,
                ended,
                group.tally,
                self.config.learning.bounds,
                assets=len(members),
                drifting=sum(bool(one.drifted) for one in members),
                faults=(0, 0) if group.kinds is None else (group.kinds.told, group.kinds.right),
            )
        return found

    def _keep_quality(self, found: dict[str, Quality]) -> None:
        if found == self.quality:
            return
        for name, one in found.items():
            before = self.quality.get(name)
            if one.retrain and (before is None or one.retrain != before.retrain):
                log.warning(
                    "retraining is asked for",
                    extra={"asset_class": name, "why": "; ".join(one.retrain)},
                )
        self.quality = found
        self.store.set_meta("quality", _json.encode(found).decode())

    def _keep(self, batch: Batch, outcomes: list[Outcome], *, noted: bool = True) -> None:
        """Write down what came of a batch, in its transaction."""
        for finding in self.pipeline.findings:
            if isinstance(finding, Ended):
                self.store.note_ended(finding)
            else:
                self.store.note_verdict(finding)
        if batch.swap:
            self.store.judged_anew(batch.swap.asset_class)
        if self.pipeline.findings or batch.swap:
            self._keep_quality(self._qualities())
        if outcomes:
            self.store.add_results([_result(outcome) for outcome in outcomes])
        if noted:
            self.custody.note(batch, outcomes, self.pipeline)

    def _note_steps(self, count: int) -> None:
        if not count:
            return
        before, self._steps = self._steps, self._steps + count
        if loud(before, self._steps):
            log.warning(
                "a clock was set back: the time of what it stamps begins anew",
                extra={"assets": count, "times": self._steps},
            )

    def newest_ns(self) -> dict[str, int]:
        """Return the time of the newest data, by asset."""
        return {name: asset.newest_ns for name, asset in self.pipeline.assets.items()}

    def _count(self, message: Rejected) -> None:
        seen = self.rejected.get(message.reason, 0)
        self.rejected[message.reason] = seen + 1
        if seen & (seen + 1) == 0:  # the 1st, 2nd, 4th, 8th...
            log.warning(
                "message rejected",
                extra={
                    "topic": message.arrival.topic,
                    "reason": message.reason,
                    "error": message.text,
                },
            )

    def swap(self, swap: Swap) -> None:
        """Let a release judge, from a known place in the journal on."""
        self.process(Batch([], [], swap=swap))

    def take_facts(self, facts: Facts) -> None:
        """Know these slow facts of assets from here on, if they are others than before."""
        if facts != self.pipeline.facts:
            self.process(Batch([], [], facts=facts))

    def consider_releases(self, at_ns: int) -> list[Verdict]:
        """Go on with releases on trial, and judge what lies in the inbox."""
        return self.deployment.consider(at_ns)

    def checkpoint(self) -> None:
        """Write the state, as of the last commit."""
        self.custody.gather(self.pipeline)
        # For who looks at the store: see agent.status.
        counts = self.pipeline.counts
        marked = _json.encode((counts.marked, counts.most_marked(MOST_STORED)))
        found = self._qualities()
        if marked != self._marked or found != self.quality:
            self.store.begin()
            self.store.set_meta("marks", marked.decode())
            self._keep_quality(found)
            self.store.commit()
            self._marked = marked
        for asset in self.pipeline.assets.values():
            if asset.group.spec.rul:
                self.store.trim(asset.name, asset.life, asset.group.spec.max_life_rows)
        self.deployment.checkpointed()
        self.store.checkpoint(*self.pipeline.arrays())

    def status(self, *, online: bool, problem: str = "") -> NodeStatus:
        """Return how the node is."""
        pipeline = self.pipeline
        counts = pipeline.counts
        return NodeStatus(
            node=self.config.name,
            online=online,
            readings=counts.readings + counts.rejected,
            rejected=counts.rejected,
            repeated=counts.repeated,
            late=counts.late,
            bad=counts.bad,
            marked=dict(counts.marked),
            marked_of=counts.most_marked(MOST_TOLD),
            assets=len(pipeline.assets),
            lives=counts.lives,
            events=counts.events,
            quality=self.quality,
            live={
                name: group.release.version if group.release else 0
                for name, group in pipeline.groups.items()
            },
            problem=problem,
        )


def _node_config(config: AgentConfig) -> NodeConfig:
    """Return what the node measures, as it is published."""
    return NodeConfig(
        config.name,
        VERSION,
        tuple(
            ClassConfig(
                spec.name,
                spec.digest(),
                tuple(Measured(c.name, c.unit, c.low, c.high, c.every_s) for c in spec.channels),
                tuple(
                    Measured(w.name, w.unit, w.low, w.high, rate_hz=w.rate_hz, samples=w.samples)
                    for w in spec.waveforms
                ),
                FeatureSpec.of(spec).names,
            )
            for spec in config.asset_class
        ),
        config.assets,
        config.node.area,
        config.node.line,
    )


def _result(outcome: Outcome) -> Result:
    kind = topics.ALERT if isinstance(outcome, Alert) else topics.HEALTH
    return outcome.asset, kind, _json.encode(outcome)


def run(  # noqa: PLR0915  # what is opened, one after the other
    config: AgentConfig,
    stopping: Callable[[], bool],
    intake: Intake,
    remote: "Remote | None" = None,
) -> None:
    """Run until ``stopping`` says so; ``intake.wake`` ends a wait early.

    Raises:
        ConfigError: a source cannot be opened, and only a person can mend it.
        BrokenError: the thread of the network or of a source died.
    """
    with ExitStack() as opened:
        watchdog = Watchdog.of(os.environ)
        opened.callback(watchdog.close)
        loops: list[_Loop] = []

        def while_stuck() -> None:
            if stopping():
                watchdog.stopping()
                for loop in loops:
                    loop.leave_stuck()
                raise BrokenError(
                    "ended as asked, while nothing could be stored: what was taken last was not "
                    "acknowledged, and comes again from the broker"
                )
            for loop in loops:
                # An agent that waits for room on its disk turns: started again it made none.
                watchdog.beat(time.monotonic(), lambda: engine.store.problem)
                loop.say_stuck()
            threading.Event().wait(RETRY_S)  # nobody says when there is room again

        engine = Engine(config, opened, while_stuck)
        site, node = config.node.site, config.name
        status_topic = topics.status_topic(site, node)
        gone = _json.encode(NodeStatus(node=node, online=False))
        clock = DeviceClock(round(config.limits.future_s * 1e9))
        clock.resume(engine.pipeline.clock_ns, max(engine.newest_ns().values(), default=0))
        assembler = Assembler(config, clock, assets=engine.pipeline.assets)
        link = Link(
            config.mqtt,
            client_id=f"runout-{site}-{node}",
            filters=assembler.filters,
            will=(status_topic, gone),
            receive=intake.put_all,
        )
        opened.callback(link.close)
        engine.left_out = assembler.left_out
        plant = edge = None
        if assembler.host is not None:
            from agent.plant import HostLink  # noqa: PLC0415  # 10 MB that few devices need

            plant = HostLink(config.mqtt, f"runout-{site}-{node}-plant", assembler.host, intake)
            opened.callback(plant.close)
        if config.mqtt.sparkplug_edge is not None:
            from agent.plant import EdgeLink  # noqa: PLC0415  # as above

            edge = EdgeLink(
                config.mqtt,
                config.mqtt.sparkplug_edge,
                f"runout-{site}-{node}-edge",
                engine.store,
                intake,
            )
            opened.callback(edge.close)
        downlink = None
        if config.federation.over_mqtt or config.federation.settings:
            from agent.downlink import Downlink  # noqa: PLC0415  # as above

            downlink = Downlink(config, f"runout-{site}-{node}-releases", remote)
            opened.callback(downlink.close)
        sources: dict[str, Source] = {one.name: one.build() for one in config.source}
        table = FactsFile(config)
        if (facts := table.changed()) is not None:
            engine.take_facts(facts)
        publisher = Publisher(engine.store, link, site, node)
        pictures = Pictures(config, link)
        engine.pipeline.lookers.append(pictures.look)
        advisory = Advisory(config, engine.store, link, engine.pipeline.assets, opened)
        loop = _Loop(
            engine,
            assembler,
            link,
            plant,
            edge,
            sources,
            publisher,
            pictures,
            intake,
            status_topic,
            table,
            advisory,
            remote,
        )
        if config.web.enabled:
            from agent.page.logbook import Logbook  # noqa: PLC0415  # 3 MB that not all need
            from agent.page.server import Page  # noqa: PLC0415

            page = Page(config.web, config.state, config.class_of)
            loop.logbook = Logbook(
                engine,
                link,
                sources,
                publisher,
                intake,
                page.show,
                advisory.couriers,
                looked_at=page.looked_at,
            )
            loop.page = page
            opened.callback(loop.logbook.close)
            opened.callback(page.close)
            page.open()
        if downlink is not None:
            downlink.open()
        for source in sources.values():
            opened.callback(source.close)
            source.open(intake.put)
        opened.callback(intake.close)  # before the others: who puts must not wait for nobody
        loops.append(loop)
        loop.run(stopping, watchdog)


class _Loop:
    """The main thread's turn, and what is due at its own times."""

    def __init__(
        self,
        engine: Engine,
        assembler: Assembler,
        link: Link,
        plant: "HostLink | None",
        edge: "EdgeLink | None",
        sources: dict[str, Source],
        publisher: Publisher,
        pictures: Pictures,
        intake: Intake,
        status_topic: str,
        table: FactsFile,
        advisory: Advisory,
        remote: "Remote | None",
    ) -> None:
        self._remote = remote
        self._resources: Resources | None = None
        self._resources_s = -math.inf
        self._engine = engine
        self._table = table
        self._advisory = advisory
        self._link = link
        self._plant = plant
        self._edge = edge
        self._sources = sources
        self._publisher = publisher
        self._pictures = pictures
        self._intake = intake
        self._status_topic = status_topic
        self.logbook: Logbook | None = None
        self.page: Page | None = None
        self._clock_problem = ""
        self._assembler = assembler
        self._more_s = engine.config.keep.wait_ms / 1000
        self._told: NodeStatus | None = None
        self._last_told: NodeStatus | None = None
        """As of the last commit but a few: in the midst of one, counts are ahead of it."""
        self._was_connected = False
        self._table_error = ""
        self._configured = 0
        """The session of the link in which the node's configuration was published."""

    def run(self, stopping: Callable[[], bool], watchdog: Watchdog) -> None:
        config = self._engine.config
        checkpointed = told = looked = time.monotonic()
        self._link.open()
        if self._plant is not None:
            self._plant.open()
        if self._edge is not None:
            self._edge.open()
        watchdog.ready()
        while not stopping():
            self._turn()
            now = time.monotonic()
            if self.logbook is not None:
                self.logbook.beat(now)
            watchdog.beat(now, self._in_a_line)
            if now - looked >= 0.5:
                looked = now
                self._look_around()
            if (
                now - told >= config.report.status_s
                or self._link.connected.is_set() != self._was_connected
            ):
                told = now
                self._tell()
            if now - checkpointed >= config.keep.checkpoint_s:
                checkpointed = now
                self._engine.checkpoint()
        watchdog.stopping()
        self._end()

    def _in_a_line(self) -> str:
        counts = self._engine.pipeline.counts
        broker = "connected" if self._link.connected.is_set() else "no broker"
        machines = len(self._engine.pipeline.assets)
        read = f"{counts.readings} readings of {machines} machines"
        clock = f", {self._clock_problem}" if self._clock_problem else ""
        return f"{read}, {counts.rejected} rejected, {broker}{clock}"

    def _turn(self) -> None:
        arrivals = self._intake.take(0.1, self._more_s)
        if arrivals:
            batch, rejected = self._assembler.assemble(arrivals)
            if batch.rows or batch.events or batch.shots or rejected:
                outcomes = self._engine.process(batch, rejected)
                self._advisory.note(outcomes)
                self._pictures.note(batch)
                if self.logbook is not None:
                    self.logbook.note(outcomes, arrivals, self._engine.commit_s)
            if self._sources:
                arrivals = self._answer(arrivals, rejected)
            self._link.acknowledge([arrival.token for arrival in arrivals])
        if self._plant is not None:
            self._plant.tend(self._assembler.say)
            self._assembler.say = []
        self._publisher.pump()
        self._pictures.pump(time.monotonic())
        if self._edge is not None:
            self._edge.pump()

    def _answer(self, arrivals: list[Arrival], rejected: list[Rejected]) -> list[Arrival]:
        """Tell each source the fate of its own; return the arrivals of the broker."""
        # By source and number: the broker's are numbers, too.
        why = {(one.arrival.source, one.arrival.token): one.text for one in rejected}
        fates: dict[str, dict[int, str]] = {}
        others = []
        for arrival in arrivals:
            if not arrival.source:
                others.append(arrival)
            elif arrival.token:
                fates.setdefault(arrival.source, {})[arrival.token] = why.get(
                    (arrival.source, arrival.token), ""
                )
        for name, fate in fates.items():
            self._sources[name].acknowledge(fate)
        return others

    def _look_around(self) -> None:
        self._look_at_clock()
        for link in (self._link, self._plant, self._edge):
            if link is not None and not link.alive:
                raise BrokenError("the network's thread has ended: restart the agent")
        for name, source in self._sources.items():
            if not source.alive:
                raise BrokenError(f"a thread of source {name!r} has ended: restart the agent")
        if self._plant is not None:
            self._take_held(*self._assembler.tick(time.time_ns()))
        self._advisory.tend()
        if self._remote is not None:
            well = self._link.connected.is_set() and not self._engine.store.problem
            self._remote.tend(well=well)
        if time.monotonic() - self._resources_s >= RESOURCES_S:
            self._resources_s = time.monotonic()
            self._resources = resources.look(self._engine.config.state)
        self._engine.consider_releases(time.time_ns())
        try:
            facts = self._table.changed()
        except DataError as error:
            if str(error) != self._table_error:
                log.error("facts: what was known stands", extra={"error": str(error)})  # noqa: TRY400
            self._table_error = str(error)
        else:
            if facts is not None:
                self._engine.take_facts(facts)
                log.info("facts were read", extra={"assets": len(facts)})
        self._publisher.save()
        if self._edge is not None:
            self._edge.save()

    def _take_held(self, batch: Batch, rejected: list[Rejected]) -> None:
        """Take what the assembler held back."""
        if batch.rows or batch.events or batch.shots or rejected:
            outcomes = self._engine.process(batch, rejected)
            self._advisory.note(outcomes)
            self._pictures.note(batch)
            if self.logbook is not None:
                self.logbook.note(outcomes, [], self._engine.commit_s)

    def _look_at_clock(self) -> None:
        problem = self._assembler.clock.look(time.time_ns(), self._engine.newest_ns())
        if problem and not self._clock_problem:
            log.error("this device's clock cannot be trusted", extra={"problem": problem})
        elif self._clock_problem and not problem:
            log.info("this device's clock agrees with the data")
        if problem != self._clock_problem:
            # For who looks at the store: see agent.status.
            self._engine.store.note("problem", problem)
        self._clock_problem = problem
        if self.page is not None and self.logbook is not None:
            self.page.problems = (problem,) if problem else ()
            self.logbook.clock_problem = problem

    def say_stuck(self) -> None:
        """Say that nothing can be stored, where it is not said yet; counts are of the last commit.

        In the midst of a transaction: nothing here may write to the store.
        """
        problem = self._engine.store.problem
        if self.page is not None:
            self.page.problems = tuple(one for one in (problem, self._clock_problem) if one)
        self._publish_stuck(online=True)

    def leave_stuck(self) -> None:
        """Say that the agent ends while nothing can be stored."""
        self._publish_stuck(online=False)

    def _publish_stuck(self, *, online: bool) -> None:
        if not self._link.connected.is_set():
            self._told = None
            return
        last = self._last_told or NodeStatus(node=self._engine.config.name, online=online)
        problem = self._engine.store.problem
        status = msgspec.structs.replace(last, online=online, problem=problem)
        if status != self._told:
            self._link.publish([(self._status_topic, _json.encode(status), True)])
            self._told = status

    def _tell(self, *, online: bool = True) -> None:
        config = self._engine.config
        if self._link.connected.is_set() and self._configured != self._link.session:
            self._configured = self._link.session
            topic = topics.config_topic(config.node.site, config.name)
            self._link.publish([(topic, _json.encode(_node_config(config)), True)])
        self._was_connected = self._link.connected.is_set()
        status = self._engine.status(online=online, problem=self._clock_problem)
        standing = Standing() if self._remote is None else self._remote.standing
        status = msgspec.structs.replace(status, settings=standing, resources=self._resources)
        self._last_told = status
        if self._was_connected and (status != self._told or not online):
            self._link.publish([(self._status_topic, _json.encode(status), True)])
            self._told = status
        elif not self._was_connected:
            self._told = None  # tell it again once there is somebody to tell

    def _end(self) -> None:
        """Leave tidily: all that came whole judged, all said, a checkpoint, offline in the status.

        What the broker sent and is not acknowledged comes again.
        """
        self._close_sources()
        self._take_held(*self._assembler.flush(time.time_ns()))
        deadline = time.monotonic() + 3.0
        self._tell(online=False)
        while self._link.connected.is_set() and time.monotonic() < deadline:
            self._publisher.pump()
            if self._publisher.idle:
                break
            self._link.wait_for_acks(0.02)
        self._publisher.save()
        if self._edge is not None:
            self._edge.pump()
            self._edge.save()
        self._engine.checkpoint()
        log.info("stopped", extra={"readings": self._engine.pipeline.counts.readings})

    def _close_sources(self) -> None:
        """End the sources, and take what they still hand over: who puts may have to wait for us."""
        if not self._sources:
            return
        closing = [threading.Thread(target=source.close) for source in self._sources.values()]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + 10.0
        while any(thread.is_alive() for thread in closing) and time.monotonic() < deadline:
            self._turn()
        while len(self._intake):
            self._turn()

"""What the main thread notes of its own work, and makes a snapshot of; all of it bounded."""

import os
import resource
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agent.config import AgentConfig
from agent.intake import Arrival, Intake
from agent.page.trace import Recent, Trend
from agent.snapshot import (
    Broker,
    Files,
    Histogram,
    Process,
    SeenAsset,
    SeenChannel,
    SeenClass,
    SeenFeatures,
    SeenSource,
    Snapshot,
)
from agent.sources import Source
from agent.store import Store, open_readonly
from agent.wording import reason
from contract import VERSION
from contract.report import STANDING, Alert, AlertState, Health, Quality

if TYPE_CHECKING:
    from agent.app import Engine
    from agent.asset import Run
    from agent.mqtt import Link
    from agent.notify.courier import Courier
    from agent.publish import Publisher

SHOW_S = 1.0
PLOTTED = 200
"""Assets whose reports are kept for plots; one with an alert takes the place of one without."""
FEATURED, FEATURES, FEATURE_POINTS = 40, 48, 120
"""Assets whose features are kept, how many of each, at how many reports: 23 kB an asset."""
ALERTS = 50
ASSET_ALERTS = 20
MARKS = 200
"""Kinds of marks counted per asset."""
RESULTS = 20_000
"""Of the store, the newest, that are read when the agent starts."""

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMMIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BATCH = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0)


class Tally:
    """A histogram that grows.

    >>> tally = Tally((1.0, 2.0))
    >>> tally.add_all([0.5, 2.0, 3.0, 9.0])
    >>> tally.frozen()
    Histogram(bounds=(1.0, 2.0), counts=(1, 1, 2), sum=14.5)
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._edges = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_all(self, values: Sequence[float] | np.ndarray) -> None:
        """Count many."""
        array = np.asarray(values)
        places = np.searchsorted(self._edges, array)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(array.sum())

    def frozen(self) -> Histogram:
        """Return it as it is now."""
        return Histogram(self._bounds, tuple(self._counts.tolist()), self._sum)


class _Page:
    """What is noted of one asset."""

    def __init__(self) -> None:
        self.report: Health | None = None
        self.heard: float | None = None
        self.marks: dict[str, int] = {}
        self.alerts: deque[Alert] = deque(maxlen=ASSET_ALERTS)
        self.plots: tuple[Recent, Trend] | None = None
        self.features: tuple[tuple[tuple[str, str], ...], Recent] | None = None
        self.seen: SeenAsset | None = None
        """As last shown, while nothing new is noted."""

    def take(self, report: Health, heard: float | None) -> None:
        self.report, self.heard, self.seen = report, heard, None
        for mark in report.marks:
            if mark in self.marks or len(self.marks) < MARKS:
                self.marks[mark] = self.marks.get(mark, 0) + 1
        if self.plots is not None:
            for plot in self.plots:
                plot.add(report.t, health=report.health, score=report.score, rul_h=report.rul_h)


class Logbook:
    """Notes what became of each batch, and shows the agent as it is; of the main thread alone.

    What was told before this process began is read from the store.

    Args:
        engine: whose work it is.
        link: to the broker.
        sources: other than MQTT, by name.
        publisher: of the results.
        intake: of the messages.
        show: called with each snapshot.
        couriers: that send notices.
        plotted: assets whose reports are kept for plots.
        looked_at: returns the assets that somebody looks at.

    Attributes:
        clock_problem: what is wrong with the device's clock, to be shown.
    """

    def __init__(
        self,
        engine: "Engine",
        link: "Link",
        sources: Mapping[str, Source],
        publisher: "Publisher",
        intake: Intake,
        show: Callable[[Snapshot], None],
        couriers: "Sequence[Courier]" = (),
        *,
        plotted: int = PLOTTED,
        looked_at: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.clock_problem = ""
        self._show = show
        self._room = plotted
        self._feature_room = FEATURED
        self._looked_at = looked_at
        self._shown_s = 0.0
        self._engine = engine
        self._link = link
        self._sources = sources
        self._couriers = couriers
        self._publisher = publisher
        self._intake = intake
        self._pages: dict[str, _Page] = {}
        self._alerts: deque[Alert] = deque(maxlen=ALERTS)
        self._raised = 0
        self._latency, self._commit, self._batch = Tally(LATENCY_S), Tally(COMMIT_S), Tally(BATCH)
        self._started = time.time()
        self._absent_since: float | None = time.monotonic()
        self._db = open_readonly(engine.config.state)
        self._db.execute("PRAGMA cache_size = -64")
        self._version = metadata.version("runout")
        self._remember()
        engine.pipeline.lookers.append(self._look)

    def close(self) -> None:
        """Close; safe more than once."""
        if self._look in self._engine.pipeline.lookers:
            self._engine.pipeline.lookers.remove(self._look)
        self._db.close()

    # -- taking notes ---------------------------------------------------------------------------

    def note(
        self, outcomes: Sequence[Health | Alert], arrivals: Sequence[Arrival], commit_s: float
    ) -> None:
        """Note what became of a batch, just committed."""
        now_ns = time.time_ns()
        now = now_ns / 1e9
        # A clock that was set back meanwhile must not make a message come before it came.
        waited = (now_ns - np.array([a.at_ns for a in arrivals], dtype=np.int64)) / 1e9
        self._latency.add_all(np.maximum(waited, 0.0))
        self._commit.add(commit_s)
        self._batch.add(len(arrivals))
        for outcome in outcomes:
            self._take(outcome, now)

    def _take(self, outcome: Health | Alert, heard: float | None) -> None:
        page = self._pages.get(outcome.asset)
        if page is None:
            page = self._pages[outcome.asset] = _Page()
            if self._room:
                self._room -= 1
                page.plots = Recent(), Trend()
        if isinstance(outcome, Health):
            page.take(outcome, heard)
            return
        page.alerts.append(outcome)
        page.seen = None
        self._alerts.append(outcome)
        if outcome.state == "raised":
            self._raised += 1
            self._make_room(page)

    def _look(self, run: "Run", k: int) -> None:
        """Keep the features of a vector that is reported."""
        page = self._pages.get(run.asset.name)
        if page is None or page.plots is None:
            return  # the first of an asset, or there are too many
        if page.features is None:
            if not self._feature_room:
                return
            self._feature_room -= 1
            parts = run.asset.group.parts[:FEATURES]
            page.features = parts, Recent(FEATURE_POINTS, len(parts))
        parts, told = page.features
        told.put(run.t_ns[k] / 1e9, run.asset.group.watched_of(run.X[k : k + 1])[0, : len(parts)])

    def _make_room(self, page: _Page) -> None:
        """Let an asset with an alert be plotted, in the place of one that has none."""
        if page.plots is not None:
            return
        for other in self._pages.values():
            if other.plots is not None and (
                other.report is None or self._state(other.report.asset) not in STANDING
            ):
                if other.features is not None:
                    other.features = None
                    self._feature_room += 1
                other.plots = other.seen = None
                page.plots = Recent(), Trend()
                return

    def _state(self, name: str) -> AlertState:
        asset = self._engine.pipeline.assets.get(name)
        return "normal" if asset is None else asset.alert.state

    def _remember(self) -> None:
        """Take what was told before: the newest results, and alerts from further back."""
        last = self._engine.store.last_result
        query = "SELECT kind, body, at_ns FROM result WHERE "
        for where in ("id <= ? AND kind = 'alert' ORDER BY id DESC LIMIT 200", "id > ?"):
            found = self._db.execute(query + where, (last - RESULTS,))
            rows = found if where == "id > ?" else reversed(found.fetchall())
            for kind, body, at_ns in rows:
                if kind == "alert":
                    self._take(msgspec.json.decode(body, type=Alert), None)
                else:
                    self._take(msgspec.json.decode(body, type=Health), at_ns / 1e9 or None)
        self._raised = 0
        for page in self._pages.values():
            page.marks.clear()

    # -- showing --------------------------------------------------------------------------------

    def beat(self, now_s: float) -> None:
        """Show how the agent is, about once a second; called in each turn of the main loop."""
        if now_s - self._shown_s >= SHOW_S:
            self._shown_s = now_s
            self._show(self.snapshot())

    def snapshot(self) -> Snapshot:
        """Return the agent as it is now."""
        engine, config = self._engine, self._engine.config
        counts = engine.pipeline.counts
        now, now_s = time.time(), time.monotonic()
        return Snapshot(
            at=now,
            turned_s=now_s,
            node=config.name,
            site=config.node.site,
            version=self._version,
            contract=VERSION,
            readings=counts.readings,
            repeated=counts.repeated,
            late=counts.late,
            vectors=counts.vectors,
            events=counts.events,
            lives=counts.lives,
            clock_steps=counts.clock_steps,
            clock_problem=self.clock_problem,
            bad=counts.bad,
            marked=dict(counts.marked),
            marked_of={asset: dict(marked) for asset, marked in counts.marked_of.items()},
            rejected=dict(engine.rejected),
            left_out=dict(engine.left_out),
            raised=self._raised,
            known=len(engine.pipeline.assets),
            waiting=len(self._intake),
            assets=tuple(
                self._seen(page, page.report)
                for page in self._pages.values()
                if page.report is not None
            ),
            alerts=tuple(self._alerts),
            classes=tuple(
                SeenClass(
                    name,
                    group.spec.features_digest(),
                    group.release.version if group.release else 0,
                    group.release.digest if group.release else "",
                    engine.quality.get(name, Quality()),
                )
                for name, group in engine.pipeline.groups.items()
            ),
            sources=tuple(
                _source(name, kind, self._sources[name]) for name, kind in _kinds(config)
            ),
            channels=tuple(_channel(courier) for courier in self._couriers),
            broker=self._broker(config, now_s),
            files=_files(config.state, engine.store),
            process=_process(self._started),
            latency=self._latency.frozen(),
            commit=self._commit.frozen(),
            batch=self._batch.frozen(),
            features=dict(self._features()),
        )

    def _features(self) -> Iterator[tuple[str, SeenFeatures]]:
        """Yield the features of the assets that somebody looks at: of no other is a copy made."""
        for name in self._looked_at():
            page = self._pages.get(name)
            if page is not None and page.features is not None:
                parts, told = page.features
                yield name, SeenFeatures(parts, told.points())

    def _seen(self, page: _Page, report: Health) -> SeenAsset:
        state = self._state(report.asset)
        if page.seen is None or page.seen.alert_state != state:
            spec = self._engine.config.class_of(report.asset)
            page.seen = SeenAsset(
                report=report,
                asset_class="" if spec is None else spec.name,
                alert=state in STANDING,
                alert_state=state,
                why=() if spec is None else tuple(reason(why, spec) for why in report.why),
                heard=page.heard,
                marks=dict(page.marks),
                alerts=tuple(page.alerts),
                recent=page.plots and page.plots[0].points(),
                trend=page.plots and page.plots[1].points(),
            )
        return page.seen

    def _broker(self, config: AgentConfig, now_s: float) -> Broker:
        connected = self._link.connected.is_set()
        if connected:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now_s
        return Broker(
            address=f"{config.mqtt.host}:{config.mqtt.port}",
            alive=self._link.alive,
            connected=connected,
            absent_s=0.0 if self._absent_since is None else now_s - self._absent_since,
            sessions=self._link.session,
            backlog=self._publisher.waiting,
            backlog_s=self._publisher.oldest_age_s(time.time_ns()),
        )


def _kinds(config: AgentConfig) -> list[tuple[str, str]]:
    return [(one.name, str(type(one).__struct_config__.tag)) for one in config.source]


def _source(name: str, kind: str, source: Source) -> SeenSource:
    counts = source.counts
    return SeenSource(
        name=name,
        kind=kind,
        alive=source.alive,
        connected=counts.connected,
        bytes=counts.bytes,
        frames=counts.frames,
        bad_frames=counts.bad_frames,
        garbage_bytes=counts.garbage_bytes,
        overflows=counts.overflows,
        reconnects=counts.reconnects,
    )


def _channel(courier: "Courier") -> SeenChannel:
    counts = courier.counts
    return SeenChannel(
        name=courier.name,
        kind=courier.kind,
        alive=courier.alive,
        sent=counts.sent,
        failed=counts.failed,
        given_up=counts.given_up,
        dropped=counts.dropped,
        waiting=counts.waiting,
        oldest=counts.oldest,
        trouble=courier.stuck or counts.trouble,
    )


def _files(state: Path, store: Store) -> Files:
    return Files(
        journal_bytes=store.journal_bytes,
        store_bytes=sum(_size(state / name) for name in ("store.db", "store.db-wal")),
        syncs=store.syncs,
        checkpoint=_written(state / "checkpoint.npz"),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _written(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _process(started: float) -> Process:
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except FileNotFoundError:  # not Linux
        pages = 0
    return Process(
        started, pages * os.sysconf("SC_PAGE_SIZE"), used.ru_utime + used.ru_stime, _written_bytes()
    )


def _written_bytes() -> int:
    try:
        lines = Path("/proc/self/io").read_bytes().splitlines()
    except OSError:  # not Linux, or a kernel that does not count
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(b"write_bytes:")), 0)

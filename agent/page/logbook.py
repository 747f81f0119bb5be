"""What the main thread notes of its own work, and makes a snapshot of; all of it bounded."""

import os
import resource
import sqlite3
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agent.config import AgentConfig
from agent.intake import Arrival, Intake
from agent.page.trace import SIZE, Recent, Trend
from agent.snapshot import (
    Broker,
    Files,
    Histogram,
    Process,
    SeenAsset,
    SeenClass,
    SeenSource,
    Snapshot,
)
from agent.sources import Source
from agent.store import open_readonly
from contract import VERSION
from contract.report import Alert, Health

if TYPE_CHECKING:
    from agent.app import Engine
    from agent.mqtt import Link
    from agent.publish import Publisher

PLOTTED = 200
"""Assets whose reports are kept for plots; an alert makes room for an asset that is not among them."""
ALERTS = 50
ASSET_ALERTS = 20
MARKS = 200
"""Kinds of marks counted per asset."""
STEPS = 512
"""Moments kept at which results were made: the age of a backlog is known as well as that."""

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
    """

    def __init__(
        self,
        engine: "Engine",
        link: "Link",
        sources: Mapping[str, Source],
        publisher: "Publisher",
        intake: Intake,
    ) -> None:
        self._engine = engine
        self._link = link
        self._sources = sources
        self._publisher = publisher
        self._intake = intake
        self._pages: dict[str, _Page] = {}
        self._plotted = 0
        self._alerts: deque[Alert] = deque(maxlen=ALERTS)
        self._raised = 0
        self._latency, self._commit, self._batch = Tally(LATENCY_S), Tally(COMMIT_S), Tally(BATCH)
        self._started = time.time()
        self._absent_since: float | None = time.monotonic()
        self._steps: deque[tuple[int, float]] = deque([(engine.store.last_result, self._started)])
        self._db = open_readonly(engine.config.state)
        self._db.execute("PRAGMA cache_size = -64")
        self._version = metadata.version("runout")
        self._remember()

    def close(self) -> None:
        """Close; safe more than once."""
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
            if self._plotted < PLOTTED:
                self._plotted += 1
                page.plots = Recent(), Trend()
        if isinstance(outcome, Health):
            page.take(outcome, heard)
            return
        page.alerts.append(outcome)
        page.seen = None
        self._alerts.append(outcome)
        if heard is not None and outcome.state == "raised":
            self._raised += 1
            self._make_room(page)

    def _make_room(self, page: _Page) -> None:
        """Let an asset with an alert be plotted, in the place of one that has none."""
        if page.plots is not None:
            return
        for other in self._pages.values():
            if other.plots is not None and not (
                other.report and self._has_alert(other.report.asset)
            ):
                other.plots = other.seen = None
                page.plots = Recent(), Trend()
                return

    def _has_alert(self, name: str) -> bool:
        asset = self._engine.pipeline.assets.get(name)
        return asset is not None and asset.alert.active

    def _remember(self) -> None:
        """Take what was told before: per asset the last reports, and some of those before."""
        query = "SELECT id FROM result WHERE kind = ? AND asset = ? ORDER BY id"
        with closing(self._db.execute("SELECT DISTINCT asset FROM result")) as found:
            names = [str(name) for (name,) in found][: self._engine.config.limits.assets]
        for i, name in enumerate(names):
            most = SIZE if i < PLOTTED else 1
            for kind, kept in (("health", most), ("alert", ASSET_ALERTS)):
                ids = [int(number) for (number,) in self._db.execute(query, (kind, name))]
                older = ids[:-kept] if most > 1 and kind == "health" else []
                for number in older[:: max(1, len(older) // SIZE)] + ids[-kept:]:
                    self._take(self._result(number, kind), None)
        self._alerts = deque(sorted(self._alerts, key=lambda alert: alert.t), maxlen=ALERTS)
        for page in self._pages.values():
            page.marks.clear()

    def _result(self, number: int, kind: str) -> Health | Alert:
        (body,) = self._db.execute("SELECT body FROM result WHERE id = ?", (number,)).fetchone()
        if kind == "alert":
            return msgspec.json.decode(body, type=Alert)
        return msgspec.json.decode(body, type=Health)

    # -- showing --------------------------------------------------------------------------------

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
            bad=counts.bad,
            marked=dict(counts.marked),
            rejected=dict(engine.rejected),
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
                )
                for name, group in engine.pipeline.groups.items()
            ),
            sources=tuple(
                _source(name, kind, self._sources[name]) for name, kind in _kinds(config)
            ),
            broker=self._broker(config, now, now_s),
            files=_files(config.state, self._db),
            process=_process(self._started),
            latency=self._latency.frozen(),
            commit=self._commit.frozen(),
            batch=self._batch.frozen(),
        )

    def _seen(self, page: _Page, report: Health) -> SeenAsset:
        alert = self._has_alert(report.asset)
        if page.seen is None or page.seen.alert != alert:
            spec = self._engine.config.class_of(report.asset)
            page.seen = SeenAsset(
                report=report,
                asset_class="" if spec is None else spec.name,
                alert=alert,
                heard=page.heard,
                marks=dict(page.marks),
                alerts=tuple(page.alerts),
                recent=page.plots and page.plots[0].points(),
                trend=page.plots and page.plots[1].points(),
            )
        return page.seen

    def _broker(self, config: AgentConfig, now: float, now_s: float) -> Broker:
        connected = self._link.connected.is_set()
        if connected:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now_s
        sent, last = self._publisher.sent, self._engine.store.last_result
        steps = self._steps
        if last > steps[-1][0]:
            steps.append((last, now))
        while len(steps) > 1 and steps[0][0] <= sent:
            steps.popleft()
        if len(steps) > STEPS:
            self._steps = deque([steps[0], *list(steps)[2::2]])
        return Broker(
            address=f"{config.mqtt.host}:{config.mqtt.port}",
            alive=self._link.alive,
            connected=connected,
            absent_s=0.0 if self._absent_since is None else now_s - self._absent_since,
            sessions=self._link.session,
            backlog=max(0, last - sent),
            backlog_s=max(0.0, now - steps[0][1]) if last > sent else 0.0,
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


def _files(state: Path, db: sqlite3.Connection) -> Files:
    first = db.execute("SELECT bytes - length(body) FROM journal ORDER BY seq LIMIT 1").fetchone()
    last = db.execute("SELECT bytes FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return Files(
        journal_bytes=last[0] - first[0] if first and last else 0,
        store_bytes=sum(_size(state / name) for name in ("store.db", "store.db-wal")),
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
    return Process(started, pages * os.sysconf("SC_PAGE_SIZE"), used.ru_utime + used.ru_stime)

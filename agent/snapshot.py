"""What the agent's page and metrics show: made by the main thread, and never changed."""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.report import Alert, AlertState, Health, Quality


class Points(NamedTuple):
    """What was told of an asset at n times, oldest first; not to be written to.

    Attributes:
        t: seconds since 1970 UTC, of the data ``(n,)``.
        values: health, score and hours left ``(n, 3)``; NaN where one was not known.
    """

    t: NDArray[np.float64]
    values: NDArray[np.float32]


class Histogram(msgspec.Struct, frozen=True):
    """How often a quantity was how large.

    Attributes:
        bounds: upper bounds, ascending.
        counts: of values up to each bound and above the one before; the last is of the others.
        sum: of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class SeenFeatures(msgspec.Struct, frozen=True):
    """Features of an asset that somebody looks at, at its last reports.

    Attributes:
        parts: channel and statistic of each.
        told: seconds since 1970 UTC ``(n,)``, values ``(n, features)``; NaN where not known.
    """

    parts: tuple[tuple[str, str], ...]
    told: Points


class SeenAsset(msgspec.Struct, frozen=True):
    """One asset, as of its newest report.

    Attributes:
        report: the newest.
        asset_class: its cohort.
        alert: whether one stands, and is not shelved.
        alert_state: of the newest, in the standard's words.
        why: what speaks against it, in words.
        heard: seconds since 1970 UTC when the agent made the report; None: not known.
        marks: reports since the process began that bore a mark, by ``channel.reason``.
        alerts: its last changes of state, oldest first.
        recent: its last reports; None: there are more assets than are plotted.
        trend: the same further back, the highest score of each stretch of time.
    """

    report: Health
    asset_class: str
    alert: bool
    alert_state: AlertState
    why: tuple[str, ...]
    heard: float | None
    marks: dict[str, int]
    alerts: tuple[Alert, ...]
    recent: Points | None
    trend: Points | None


class SeenSource(msgspec.Struct, frozen=True):
    """One source other than MQTT; see ``agent.sources.SourceCounts``."""

    name: str
    kind: str
    alive: bool
    connected: bool
    bytes: int
    frames: int
    bad_frames: int
    garbage_bytes: int
    overflows: int
    reconnects: int


class SeenClass(msgspec.Struct, frozen=True):
    """What judges an asset class.

    Attributes:
        name: of the class.
        features: digest that devices which learn together must share.
        release: version; 0: the device's own models.
        digest: of the release; empty: there is none.
        quality: of its alerts.
    """

    name: str
    features: str
    release: int
    digest: str
    quality: Quality


class SeenChannel(msgspec.Struct, frozen=True):
    """One channel of notices; counts since it has its file, see ``agent.notify.outbox.Counts``.

    Attributes:
        name: of the channel.
        kind: of the channel.
        alive: whether its thread runs.
        sent: taken on by the other side.
        failed: attempts that failed.
        given_up: notices refused, or not sent for too long.
        dropped: notices that gave way because too many waited.
        waiting: at present.
        oldest: when the oldest of these was made, seconds since 1970 UTC; None: none waits.
        trouble: why the newest attempt failed, or its file cannot be used; empty: all is well.
    """

    name: str
    kind: str
    alive: bool
    sent: int
    failed: int
    given_up: int
    dropped: int
    waiting: int
    oldest: float | None
    trouble: str


class Broker(msgspec.Struct, frozen=True):
    """The broker, and what is not with it yet.

    Attributes:
        address: host and port.
        alive: whether the network's thread runs.
        connected: whether the session stands.
        absent_s: for how long it has not stood; 0: it does.
        sessions: how often one was made.
        backlog: results in the store that the broker has not taken on.
        backlog_s: age of the oldest of them.
    """

    address: str
    alive: bool
    connected: bool
    absent_s: float
    sessions: int
    backlog: int
    backlog_s: float


class Files(msgspec.Struct, frozen=True):
    """What the agent keeps.

    Attributes:
        journal_bytes: of readings in the journal.
        store_bytes: of the database and its log.
        syncs: flushes to the disk since the process began; SQLite's own are a few an hour more.
        checkpoint: seconds since 1970 UTC when the last was written; None: there is none yet.
    """

    journal_bytes: int
    store_bytes: int
    syncs: int
    checkpoint: float | None


class Process(msgspec.Struct, frozen=True):
    """The agent's process.

    Attributes:
        started: seconds since 1970 UTC.
        resident_bytes: memory; 0 where the system does not say.
        cpu_s: of processor time, user and system.
        written_bytes: that it made the system write to disks; 0 where the system does not say.
    """

    started: float
    resident_bytes: int
    cpu_s: float
    written_bytes: int


class Snapshot(msgspec.Struct, frozen=True):
    """The agent at one moment.

    Attributes:
        at: seconds since 1970 UTC.
        turned_s: ``time.monotonic`` when the main loop made this.
        node: name.
        site: where it stands.
        version: of the program.
        contract: version of what crosses the wire.
        readings: rows committed since the store was made, those that came again not among them.
        repeated: rows that came again.
        late: rows older than what was there.
        vectors: feature vectors.
        events: life events.
        lives: finished lives.
        clock_steps: how often an asset's time began anew, where a clock was set back.
        clock_problem: what is wrong with the device's clock; empty: nothing that is known.
        bad: values marked bad.
        marked: values by ``channel.reason``.
        marked_of: the same by asset.
        rejected: messages that could not be used, by reason, since the process began.
        left_out: values that nothing was made of, by reason, since the process began.
        raised: alerts since the process began.
        known: assets.
        waiting: messages in the intake.
        assets: in the order in which they were first heard of.
        alerts: last changes of state, oldest first.
        classes: what judges.
        sources: other than MQTT.
        channels: of notices.
        broker: and the results that wait for it.
        files: the agent's own.
        process: the agent's own.
        latency: seconds from the arrival of a message to its commit.
        commit: seconds that a commit takes.
        batch: messages that share a commit.
        features: by asset, of those that somebody looks at.
    """

    at: float
    turned_s: float
    node: str
    site: str
    version: str
    contract: int
    readings: int
    repeated: int
    late: int
    vectors: int
    events: int
    lives: int
    clock_steps: int
    clock_problem: str
    bad: int
    marked: dict[str, int]
    marked_of: dict[str, dict[str, int]]
    rejected: dict[str, int]
    left_out: dict[str, int]
    raised: int
    known: int
    waiting: int
    assets: tuple[SeenAsset, ...]
    alerts: tuple[Alert, ...]
    classes: tuple[SeenClass, ...]
    sources: tuple[SeenSource, ...]
    channels: tuple[SeenChannel, ...]
    broker: Broker
    files: Files
    process: Process
    latency: Histogram
    commit: Histogram
    batch: Histogram
    features: dict[str, SeenFeatures] = {}

    def asset(self, name: str) -> SeenAsset | None:
        """Return an asset by its name."""
        return next((asset for asset in self.assets if asset.report.asset == name), None)

    def worst_first(self) -> list[SeenAsset]:
        """Return the assets: those with an alert first, then by health, the unknown last."""
        return sorted(self.assets, key=_badness)


def _badness(asset: SeenAsset) -> tuple[bool, float, str]:
    health = asset.report.health
    return not asset.alert, 2.0 if health is None else health, asset.report.asset

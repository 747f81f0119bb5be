"""The agent's metrics as Prometheus reads them: text format 0.0.4, from a snapshot alone.

Labels are bounded: what is beyond the bound is said together, under ``other``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from agent.snapshot import SeenAsset, SeenClass, Snapshot
from contract.exposition import CONTENT_TYPE, Exposition, Labels
from contract.report import AlertState, DriftWord, Quality

__all__ = ["CONTENT_TYPE", "exposition"]

OTHER = "other"
MOST_ASSETS = 500
MOST_MARKS = 500
MOST_REASONS = 50
MOST_SOURCES = 50
STATES = "learning", "healthy", "degraded", "failing", "stale"


def exposition(snapshot: Snapshot, *, healthy: bool | None = None) -> bytes:
    """Return all metrics of a snapshot; ``healthy``: what ``/healthz`` says, None: not asked."""
    page = Exposition()
    _node(page, snapshot)
    if healthy is not None:
        page.one("healthy", "gauge", "1 if /healthz answers 200.", float(healthy))
    _data(page, snapshot)
    _assets(page, snapshot)
    _quality(page, snapshot.classes)
    _broker(page, snapshot)
    _sources(page, snapshot)
    _notices(page, snapshot)
    page.histogram(
        "processing_seconds", "From a message's arrival to its commit.", snapshot.latency
    )
    page.histogram("commit_seconds", "That a commit takes.", snapshot.commit)
    page.histogram("batch_messages", "Messages that share a commit.", snapshot.batch)
    return page.text()


def _node(page: Exposition, snapshot: Snapshot) -> None:
    about = (
        ("node", snapshot.node),
        ("site", snapshot.site),
        ("version", snapshot.version),
        ("contract", str(snapshot.contract)),
    )
    files, process = snapshot.files, snapshot.process
    page.many("info", "gauge", "The agent, in labels.", [(about, 1.0)])
    page.one("start_time_seconds", "gauge", "Since 1970, when the process began.", process.started)
    page.one("turn_time_seconds", "gauge", "Since 1970, when the main loop said this.", snapshot.at)
    page.one("resident_memory_bytes", "gauge", "Memory.", process.resident_bytes or None)
    page.one("cpu_seconds_total", "counter", "Processor time.", process.cpu_s)
    page.one(
        "written_bytes_total",
        "counter",
        "That the process made the system write to disks.",
        process.written_bytes or None,
    )
    page.one("store_syncs_total", "counter", "Flushes to the disk.", files.syncs)
    page.one("journal_bytes", "gauge", "Readings in the journal.", files.journal_bytes)
    page.one("store_bytes", "gauge", "The database and its log.", files.store_bytes)
    page.one(
        "checkpoint_time_seconds", "gauge", "Since 1970, of the last checkpoint.", files.checkpoint
    )
    page.many(
        "release_version",
        "gauge",
        "Release that judges an asset class; 0: the device's own models.",
        [((("asset_class", c.name),), c.release) for c in snapshot.classes],
    )
    page.many(
        "release_info",
        "gauge",
        "What judges an asset class, in labels.",
        [
            (
                (
                    ("asset_class", c.name),
                    ("release", str(c.release)),
                    ("digest", c.digest),
                    ("features", c.features),
                ),
                1.0,
            )
            for c in snapshot.classes
        ],
    )


def _data(page: Exposition, snapshot: Snapshot) -> None:
    page.one(
        "readings_total", "counter", "Rows committed since the store was made.", snapshot.readings
    )
    page.one("readings_repeated_total", "counter", "Rows that came again.", snapshot.repeated)
    page.one("readings_late_total", "counter", "Rows older than what was there.", snapshot.late)
    page.one("vectors_total", "counter", "Feature vectors judged.", snapshot.vectors)
    page.one("life_events_total", "counter", "Life events committed.", snapshot.events)
    page.one("lives_finished_total", "counter", "Lives known to have ended.", snapshot.lives)
    page.one(
        "clock_steps_total",
        "counter",
        "Assets whose time began anew, where a clock was set back.",
        snapshot.clock_steps,
    )
    page.one(
        "clock_trusted",
        "gauge",
        "0 while the device's clock is behind the data, or went back and is not set.",
        float(not snapshot.clock_problem),
    )
    page.one("values_bad_total", "counter", "Values marked bad.", snapshot.bad)
    page.many(
        "values_marked_total",
        "counter",
        "Values that were marked, by channel and reason.",
        _capped(
            {_split(key): count for key, count in snapshot.marked.items()},
            MOST_MARKS,
            ("channel", "reason"),
        ),
    )
    page.many(
        "asset_values_marked_total",
        "counter",
        "Values that were marked, by asset, channel and reason.",
        _capped(
            {
                (asset, *_split(key)): count
                for asset, marked in snapshot.marked_of.items()
                for key, count in marked.items()
            },
            MOST_MARKS,
            ("asset", "channel", "reason"),
        ),
    )
    page.many(
        "messages_rejected_total",
        "counter",
        "Messages that could not be used, since the process began.",
        _capped(_single(snapshot.rejected), MOST_REASONS, ("reason",)),
    )
    page.many(
        "values_left_out_total",
        "counter",
        "Values that nothing was made of, since the process began.",
        _capped(_single(snapshot.left_out), MOST_REASONS, ("reason",)),
    )
    page.one("intake_messages", "gauge", "Messages that wait to be processed.", snapshot.waiting)


def _assets(page: Exposition, snapshot: Snapshot) -> None:
    page.one("assets", "gauge", "Assets known.", snapshot.known)
    states = dict.fromkeys(STATES, 0)
    for asset in snapshot.assets:
        states[asset.report.state] += 1
    page.many(
        "assets_by_state",
        "gauge",
        "Assets by the state in their newest report.",
        [((("state", state),), count) for state, count in states.items()],
    )
    owed = dict.fromkeys(get_args(AlertState), 0)
    for asset in snapshot.assets:
        owed[asset.alert_state] += 1
    page.many(
        "assets_by_alert_state",
        "gauge",
        "Assets by the state of their alert, in the words of ISA-18.2.",
        [((("state", state),), count) for state, count in owed.items()],
    )
    drifting = dict.fromkeys(get_args(DriftWord), 0)
    for asset in snapshot.assets:
        drifting[asset.report.drift_of] += 1
    page.many(
        "assets_by_drift",
        "gauge",
        "Assets by what drifts in their newest report, where their class watches for it.",
        [((("drift", word or "none"),), count) for word, count in drifting.items()],
    )
    page.one("alerts_raised_total", "counter", "Since the process began.", snapshot.raised)
    grouped = _grouped(snapshot.assets)

    def said(name: str, text: str, worst: str, values: Mapping[str, list[float | None]]) -> None:
        choose = {"least": min, "most": max}[worst]
        samples: list[tuple[Labels, float | None]] = []
        for label, found in values.items():
            known = [value for value in found if value is not None]
            samples.append(((("asset", label),), choose(known) if known else None))
        page.many(name, "gauge", f"{text} Of {OTHER}: the {worst}.", samples)

    def each(take: Callable[[SeenAsset], float | None]) -> dict[str, list[float | None]]:
        return {label: [take(asset) for asset in found] for label, found in grouped.items()}

    said(
        "asset_health_ratio",
        "Health index: 1 healthy, 0 failed.",
        "least",
        each(lambda a: a.report.health),
    )
    said(
        "asset_score_ratio",
        "Score over the limit of healthy; higher is worse.",
        "most",
        each(lambda a: a.report.score),
    )
    said(
        "asset_remaining_life_seconds",
        "Remaining useful life.",
        "least",
        each(lambda a: _seconds(a.report.rul_h)),
    )
    said(
        "asset_remaining_life_low_seconds",
        "Lower end of the interval round it.",
        "least",
        each(lambda a: _seconds(a.report.rul_low_h)),
    )
    said(
        "asset_remaining_life_high_seconds",
        "Upper end of the interval round it; the cap stands for it and all above.",
        "most",
        each(lambda a: _seconds(a.report.rul_high_h)),
    )
    said(
        "asset_remaining_life_error_seconds",
        "Its root mean square error on held-out lives.",
        "most",
        each(lambda a: _seconds(a.report.rul_error_h)),
    )
    said(
        "asset_alert",
        "1 while an alert stands that is not shelved.",
        "most",
        each(lambda a: float(a.alert)),
    )
    said(
        "asset_stale",
        "1 while none of its readings are to come, by who sent them.",
        "most",
        each(lambda a: float(a.report.state == "stale")),
    )
    said(
        "asset_report_time_seconds",
        "Since 1970, of the data of the newest report.",
        "least",
        each(lambda a: a.report.t),
    )


def _quality(page: Exposition, classes: tuple[SeenClass, ...]) -> None:
    """Say how good the alerts are, by class, since what judges began to."""

    def each(take: Callable[[Quality], float | None]) -> list[tuple[Labels, float | None]]:
        return [((("asset_class", one.name),), take(one.quality)) for one in classes]

    cases = "confirmed", "false_alarms", "not_found", "missed", "spared"
    page.many(
        "alert_cases",
        "gauge",
        "What is known of alerts, failures and other ends of lives, since what judges began to.",
        [
            ((("asset_class", one.name), ("case", case)), float(getattr(one.quality, case)))
            for one in classes
            for case in cases
        ],
    )
    for name in ("accuracy", "precision", "recall", "f1"):
        page.many(
            f"alert_{name}_ratio",
            "gauge",
            f"{name.capitalize()} of alerts by verdicts and failures.",
            [((("asset_class", one.name),), getattr(one.quality, name)) for one in classes],
        )
    for name, text, take in (
        ("alerts_since_judge", "Alerts since what judges began to.", lambda q: q.raised),
        (
            "watched_machine_seconds",
            "Machine time that was watched since then.",
            lambda q: q.machine_months * 730.0 * 3600.0,
        ),
        (
            "vectors_over_limit_ratio",
            "Estimate without labels: judged vectors over the limit.",
            lambda q: q.estimate_over_limit,
        ),
        (
            "told_remaining_life_error_seconds",
            "Mean absolute error of what was told before failures.",
            lambda q: _seconds(q.rul_error_h),
        ),
        ("retraining_asked", "1 while a bound is crossed.", lambda q: float(bool(q.retrain))),
    ):
        page.many(name, "gauge", text, each(take))


def _broker(page: Exposition, snapshot: Snapshot) -> None:
    broker = snapshot.broker
    page.one("broker_connected", "gauge", "1 while the session stands.", float(broker.connected))
    page.one("broker_absent_seconds", "gauge", "For how long it has not.", broker.absent_s)
    page.one("broker_sessions_total", "counter", "Sessions made.", broker.sessions)
    page.one("backlog_results", "gauge", "Results not with the broker.", broker.backlog)
    page.one("backlog_age_seconds", "gauge", "Age of the oldest of them.", broker.backlog_s)


def _sources(page: Exposition, snapshot: Snapshot) -> None:
    # All of them are counts or 0 and 1: what is beyond the bound is added up.
    for name, kind, text, field in (
        ("source_alive", "gauge", "1 while its threads run.", "alive"),
        ("source_connected", "gauge", "1 while the other end is there.", "connected"),
        ("source_received_bytes_total", "counter", "Received.", "bytes"),
        ("source_frames_total", "counter", "Readings' worth handed on.", "frames"),
        ("source_bad_frames_total", "counter", "That could not be used.", "bad_frames"),
        ("source_garbage_bytes_total", "counter", "Thrown away.", "garbage_bytes"),
        ("source_overflows_total", "counter", "Frames lost or put off.", "overflows"),
        ("source_reconnects_total", "counter", "Times opened again.", "reconnects"),
    ):
        found = _single({one.name: int(getattr(one, field)) for one in snapshot.sources})
        page.many(name, kind, text, _capped(found, MOST_SOURCES, ("source",)))


def _notices(page: Exposition, snapshot: Snapshot) -> None:
    # At most as many channels as the configuration may have.
    found = [((("channel", channel.name),), channel) for channel in snapshot.channels]
    page.many(
        "notices_total",
        "counter",
        "Notices by what became of them, since the channel has its file; failed: attempts.",
        [
            ((*label, ("outcome", outcome)), float(getattr(channel, outcome)))
            for label, channel in found
            for outcome in ("sent", "failed", "given_up", "dropped")
        ],
    )
    page.many(
        "notices_waiting", "gauge", "Not sent yet.", [(label, c.waiting) for label, c in found]
    )
    page.many(
        "notices_waiting_since_seconds",
        "gauge",
        "Since 1970, when the oldest of them was made.",
        [(label, c.oldest) for label, c in found],
    )
    page.many(
        "notices_alive",
        "gauge",
        "1 while the thread that sends them runs.",
        [(label, float(c.alive)) for label, c in found],
    )


def _grouped(assets: Iterable[SeenAsset]) -> dict[str, list[SeenAsset]]:
    """Return the assets by label: the first heard of alone, so that labels stay what they are."""
    grouped: dict[str, list[SeenAsset]] = {}
    for i, asset in enumerate(assets):
        name = asset.report.asset if i < MOST_ASSETS else OTHER
        grouped.setdefault(name, []).append(asset)
    return grouped


def _capped(
    counts: Mapping[tuple[str, ...], int], most: int, names: tuple[str, ...]
) -> list[tuple[Labels, float]]:
    """Return counts with labels; a key has as many parts as there are names."""
    summed: dict[tuple[str, ...], int] = {}
    for i, (key, count) in enumerate(counts.items()):
        label = key if i < most else (OTHER,) * len(names)
        summed[label] = summed.get(label, 0) + count
    return [(tuple(zip(names, key, strict=True)), count) for key, count in summed.items()]


def _single(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): count for key, count in counts.items()}


def _split(mark: str) -> tuple[str, str]:
    """Return channel and reason; a channel may have dots."""
    channel, _, reason = mark.rpartition(".")
    return channel, reason


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600.0

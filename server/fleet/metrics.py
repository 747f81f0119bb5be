"""The server's metrics as Prometheus reads them: the fleet's table and the federation's journal.

Labels are bounded: classes, states, phases and reasons, and not machines or devices.
"""

import time
from collections import Counter
from collections.abc import Callable
from itertools import islice

from contract.exposition import Exposition, Labels
from server.fleet.federation import Cohort, Federation
from server.fleet.query import STATES, Query
from server.status import Status

MOST_CLASSES = 100
MOST_LABELS = 50
LISTED = 200
"""Events of a class's journal that are looked at for its last training."""


def exposition(
    query: Query, federation: Federation, troubles: Callable[[], list[str]], dropped: int
) -> bytes:
    """Return all metrics.

    Args:
        query: of the fleet's table.
        federation: of the server's state folder.
        troubles: what is wrong with the server.
        dropped: reports of machines beyond the bound.
    """
    page = Exposition()
    page.one("server_healthy", "gauge", "1 if nothing is wrong.", float(not troubles()))
    _fleet(page, query, dropped)
    status = federation.status()
    if status is not None:
        _status(page, status)
    _cohorts(page, federation.cohorts()[:MOST_CLASSES])
    return page.text()


def _fleet(page: Exposition, query: Query, dropped: int) -> None:
    now = time.time()
    counts, nodes = query.counts(now), query.node_counts(now)
    page.many(
        "fleet_machines",
        "gauge",
        "Machines by state.",
        [((("state", state),), counts.by_state[state]) for state in STATES],
    )
    for name, text, value in (
        ("machines_silent", "Machines of which nothing came for too long.", counts.silent),
        ("machines_doubtful", "Machines whose newest data bears marks.", counts.doubtful),
        ("alerts_waiting", "Alerts that wait for somebody.", counts.waiting),
        ("alerts_shelved", "Alerts that are shelved.", counts.shelved),
        ("devices", "Devices that were heard.", nodes["nodes"]),
        ("devices_online", "Devices that are online.", nodes["online"]),
        ("devices_behind", "Devices that catch up on a backlog.", nodes["behind"]),
        ("devices_problem", "Devices with a problem of their own.", nodes["problem"]),
        ("devices_retrain", "Devices that ask for retraining.", nodes["retrain"]),
        ("backlog_seconds", "How late the latest report out of a backlog is.", nodes["behind_s"]),
    ):
        page.one(f"fleet_{name}", "gauge", text, float(value or 0))
    readings = "Readings that the devices' stores have counted."
    page.one("fleet_readings", "gauge", readings, float(nodes["readings"] or 0))
    page.one("fleet_reports_dropped_total", "counter", "Of machines beyond the bound.", dropped)


def _status(page: Exposition, status: Status) -> None:
    page.one("federation_nodes", "gauge", "Nodes that are there.", status.online)
    page.one("federation_training", "gauge", "Number of the newest training.", status.training)
    page.one(
        "federation_status_time_seconds", "gauge", "Since 1970, of its status.", status.updated_s
    )
    page.one(
        "federation_received_bytes",
        "gauge",
        "From all nodes since the run began.",
        sum(status.bytes_up.values()),
    )
    page.one(
        "federation_sent_bytes",
        "gauge",
        "To all nodes since the run began.",
        sum(status.bytes_down.values()),
    )
    page.many(
        "federation_phase_seconds",
        "gauge",
        "How long each phase of the newest training took.",
        [((("phase", phase),), s) for phase, s in islice(status.seconds.items(), MOST_LABELS)],
    )


def _cohorts(page: Exposition, found: list[Cohort]) -> None:
    """Say each metric once, with all classes behind it."""
    samples: dict[str, list[tuple[Labels, float | None]]] = {}

    def say(name: str, cohort: Cohort, value: float | None, *labels: tuple[str, str]) -> None:
        samples.setdefault(name, []).append(((("asset_class", cohort.name), *labels), value))

    for cohort in found:
        live = next((v for v in cohort.versions if v.handed_out), None)
        say("release_version", cohort, live.number if live else 0)
        say("rounds_total", cohort, cohort.rounds)
        for phase, count in islice(sorted(cohort.rejected.items()), MOST_LABELS):
            say("updates_rejected_total", cohort, count, ("phase", phase))
        if live is not None and live.manifest is not None:
            manifest = live.manifest
            say("release_time_seconds", cohort, manifest.created_ns / 1e9)
            say("contributors", cohort, len(manifest.contributors))
            for metric, value in islice(sorted(manifest.metrics.items()), MOST_LABELS):
                if metric.startswith("rmse"):
                    kind, _, model = metric.partition("/")
                    worst = kind == "rmse_worst"
                    which = ("worst_" if worst else "") + "error_seconds"
                    say(which, cohort, 3600.0 * value, ("model", model))
        events = list(islice(cohort.events, LISTED))
        for name, kinds in _GUARDED.items():
            counted = Counter(e.get("event") for e in events if e.get("event") in kinds)
            say(name, cohort, sum(counted.values()))
        phases = [e for e in events if e.get("event") == "phase"]
        for phase in ("statistics", "fit", "evaluate", "deploy"):
            newest = next((e for e in phases if str(e.get("phase", "")).startswith(phase)), None)
            if newest is not None:
                for key in ("asked", "accepted"):
                    told = newest.get(key)
                    if isinstance(told, list):
                        say(f"participants_{key}", cohort, len(told), ("phase", phase))
    for name, (kind, text) in _TEXTS.items():
        if name in samples:
            page.many(f"federation_{name}", kind, text, samples[name])


_GUARDED = {
    "contributions_distrusted": {"left_out", "reduced"},
    "retrainings_asked": {"retraining"},
}
_TEXTS = {
    "release_version": ("gauge", "Version that is handed out."),
    "release_time_seconds": ("gauge", "Since 1970, when it was made."),
    "contributors": ("gauge", "Nodes whose data is in it."),
    "error_seconds": ("gauge", "Of remaining life on the devices' held-out lives, by model."),
    "worst_error_seconds": ("gauge", "The same on the device with the largest."),
    "rounds_total": ("counter", "Phases in which devices trained, since this process began."),
    "updates_rejected_total": ("counter", "Updates that were not used, by phase."),
    "participants_asked": ("gauge", "Nodes asked in the newest such phase."),
    "participants_accepted": ("gauge", "Nodes whose answer was used in it."),
    "contributions_distrusted": ("gauge", "Left out or reduced, in the newest 200 events."),
    "retrainings_asked": ("gauge", "Asked for by devices, in the newest 200 events."),
}

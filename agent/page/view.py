"""A snapshot as the page's script reads it: JSON objects, small enough to be asked for often."""

from typing import Any

import numpy as np

from agent.snapshot import Points, SeenAsset, Snapshot
from contract.report import Alert

SPARKS = 60
"""Assets, the worst, whose score is drawn in the table."""
FEATURES = 6
"""Features of an asset that are drawn."""
SPARK = 60
"""Points of such a drawing."""
RATED_S = 600.0
"""Before that the start itself is most of what is written."""


def status(snapshot: Snapshot) -> dict[str, Any]:
    """Return the whole, the worst assets first; without the points of plots."""
    worst = snapshot.worst_first()
    return {
        "at": snapshot.at,
        "node": snapshot.node,
        "site": snapshot.site,
        "overall": _overall(snapshot),
        "assets": [_line(snapshot, asset, spark=i < SPARKS) for i, asset in enumerate(worst)],
        "alerts": [_alert(alert) for alert in reversed(snapshot.alerts)],
        "data": {
            "readings": snapshot.readings,
            "repeated": snapshot.repeated,
            "late": snapshot.late,
            "bad": snapshot.bad,
            "vectors": snapshot.vectors,
            "events": snapshot.events,
            "lives": snapshot.lives,
            "clock_steps": snapshot.clock_steps,
            "waiting": snapshot.waiting,
            "marked": snapshot.marked,
            "rejected": snapshot.rejected,
        },
        "broker": snapshot.broker,
        "sources": snapshot.sources,
        "channels": snapshot.channels,
        "classes": snapshot.classes,
        "files": snapshot.files,
        "process": {
            "version": snapshot.version,
            "contract": snapshot.contract,
            "uptime_s": snapshot.at - snapshot.process.started,
            "resident_bytes": snapshot.process.resident_bytes,
            "cpu_s": snapshot.process.cpu_s,
            "written_bytes": snapshot.process.written_bytes,
            "written_bytes_a_day": _a_day(snapshot),
        },
        "latency": snapshot.latency,
        "commit": snapshot.commit,
        "batch": snapshot.batch,
    }


def _a_day(snapshot: Snapshot) -> float | None:
    """Return what is written in a day at this rate; None: it is too early, or not known."""
    process = snapshot.process
    uptime_s = snapshot.at - process.started
    if uptime_s < RATED_S or not process.written_bytes:
        return None
    return process.written_bytes * 86_400 / uptime_s


def asset(snapshot: Snapshot, name: str) -> dict[str, Any] | None:
    """Return one asset with the points of its plots; None: there is none of that name."""
    seen = snapshot.asset(name)
    if seen is None:
        return None
    return {
        **_line(snapshot, seen, spark=False),
        "at": snapshot.at,
        "report": seen.report,
        "marked": seen.marks,
        "alerts": [_alert(alert) for alert in reversed(seen.alerts)],
        "recent": _points(seen.recent),
        "trend": _points(seen.trend),
        "features": _features(snapshot, seen),
        "channels": [],
        "spectra": [],
    }


def _features(snapshot: Snapshot, seen: SeenAsset) -> dict[str, Any] | None:
    """Return features at the last reports, those that speak against the asset first."""
    found = snapshot.features.get(seen.report.asset)
    if found is None:
        return None
    parts = list(found.parts)
    against = [(why.channel, why.feature) for why in seen.report.why]
    order = [parts.index(part) for part in against if part in parts]
    order += [i for i in range(len(parts)) if i not in order]
    columns = found.told.values.T
    return {
        "t": found.told.t.tolist(),
        "of": [
            {
                "channel": parts[i][0],
                "feature": parts[i][1],
                "against": parts[i] in against,
                "values": [None if v != v else float(f"{v:.5g}") for v in columns[i].tolist()],  # noqa: PLR0124
            }
            for i in order[:FEATURES]
        ],
    }


def _overall(snapshot: Snapshot) -> dict[str, int]:
    states = [seen.report.state for seen in snapshot.assets]
    return {
        "machines": len(states),
        "alerts": sum(seen.alert for seen in snapshot.assets),
        "failing": states.count("failing"),
        "degraded": states.count("degraded"),
        "learning": states.count("learning"),
        "unacknowledged": sum(
            seen.alert_state in {"unacknowledged", "returned", "latched"}
            for seen in snapshot.assets
        ),
        "shelved": sum(seen.alert_state == "shelved" for seen in snapshot.assets),
        "marked": sum(bool(seen.report.marks) for seen in snapshot.assets),
    }


def _line(snapshot: Snapshot, seen: SeenAsset, *, spark: bool) -> dict[str, Any]:
    report = seen.report
    return {
        "name": report.asset,
        "class": seen.asset_class,
        "state": report.state,
        "alert": seen.alert,
        "health": report.health,
        "score": report.score,
        "rul_h": report.rul_h,
        "rul_error_h": report.rul_error_h,
        "rul_low_h": report.rul_low_h,
        "rul_high_h": report.rul_high_h,
        "t": report.t,
        "age_s": None if seen.heard is None else max(0.0, snapshot.at - seen.heard),
        "life": report.life,
        "judged_by": report.judged_by,
        "alert_state": seen.alert_state,
        "why": seen.why,
        "marks": report.marks,
        "spark": _spark(seen.recent) if spark else None,
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "asset": alert.asset,
        "state": alert.state,
        "t": alert.t,
        "score": alert.score,
        "text": alert.text,
    }


def _spark(points: Points | None) -> list[float | None] | None:
    """Return the newest scores, for a drawing the size of a word."""
    return None if points is None else _plain(points.values[-SPARK:, 1])


def _points(points: Points | None) -> dict[str, list[float | None]] | None:
    if points is None:
        return None
    columns = {
        name: _plain(points.values[:, i]) for i, name in enumerate(("health", "score", "rul_h"))
    }
    return {"t": points.t.tolist(), **columns}


def _plain(column: np.ndarray) -> list[float | None]:
    """Return numbers as JSON has them: JSON has no NaN."""
    return [None if value != value else round(value, 4) for value in column.tolist()]  # noqa: PLR0124

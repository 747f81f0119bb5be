"""What an agent knows, read from its state folder: it may be running or not."""

import sqlite3
from datetime import UTC, datetime

import msgspec

from agent.config import AgentConfig
from agent.privacy import Budget
from agent.rollout import live_version
from agent.store import open_readonly, read_quality
from agent.wording import within
from contract.report import Alert, AlertState, Health, Quality

_ORDER: tuple[AlertState, ...] = (
    "unacknowledged", "latched", "returned", "acknowledged", "shelved", "normal",
)  # fmt: skip


class Seen(msgspec.Struct):
    """What ``runout-agent status`` shows.

    Attributes:
        node: its name.
        live: release that judges, per asset class; 0: the device's own models.
        lives: finished lives kept, per asset class.
        quarantined: messages kept that could not be used, by reason.
        refused: topic of the newest of them, and why it could not be used; empty: there is none.
        rollouts: the last releases offered: version, verdict, reason.
        health: the last report of each asset.
        alerts: those that stand, are shelved, or are still to be acknowledged.
        marked: values by ``channel.reason``, as of the last checkpoint.
        marked_of: the same of each of the assets that have most.
        quality: of the alerts, per asset class, as of then or of the newest verdict.
        left: hours left of each asset, in words; empty: they are not known.
        problem: what was wrong with the device's clock when it was last noted; empty: nothing.
        privacy: what was told of each asset class that has it, in words.
    """

    node: str
    live: dict[str, int]
    lives: dict[str, int]
    quarantined: dict[str, int]
    rollouts: list[tuple[int, str, str]]
    health: list[Health]
    alerts: list[Alert]
    marked: dict[str, int] = {}
    quality: dict[str, Quality] = {}
    marked_of: dict[str, dict[str, int]] = {}
    left: dict[str, str] = {}
    refused: tuple[str, ...] = ()
    problem: str = ""
    privacy: dict[str, str] = {}


def read(config: AgentConfig) -> Seen:
    """Read the store; raises ``ContractError`` if there is none."""
    db = open_readonly(config.state)
    try:
        last = "SELECT MAX(id) FROM result WHERE kind = ? GROUP BY asset"
        query = f"SELECT body FROM result WHERE id IN ({last}) ORDER BY asset"  # noqa: S608
        health = [msgspec.json.decode(b, type=Health) for (b,) in db.execute(query, ("health",))]
        alerts = [msgspec.json.decode(b, type=Alert) for (b,) in db.execute(query, ("alert",))]
        names = [spec.name for spec in config.asset_class]
        marked, marked_of = _marked(db)
        return Seen(
            node=config.name,
            live={name: live_version(db, name) for name in names},
            lives=dict(
                db.execute("SELECT asset_class, COUNT(*) FROM life GROUP BY asset_class").fetchall()
            ),
            quarantined=dict(
                db.execute("SELECT reason, COUNT(*) FROM quarantine GROUP BY reason").fetchall()
            ),
            rollouts=db.execute(
                "SELECT version, verdict, reason FROM rollout ORDER BY id DESC LIMIT 5"
            ).fetchall(),
            health=health,
            alerts=[alert for alert in alerts if alert.now != "normal"],
            quality=read_quality(db),
            marked=marked,
            marked_of=marked_of,
            refused=db.execute(
                "SELECT topic, text FROM quarantine ORDER BY id DESC LIMIT 1"
            ).fetchone()
            or (),
            left={report.asset: _left(config, report) for report in health},
            problem=_problem(db),
            privacy={
                spec.name: Budget(config.state, spec).in_words()
                for spec in config.asset_class
                if spec.privacy is not None
            },
        )
    finally:
        db.close()


def _marked(db: sqlite3.Connection) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    row = db.execute("SELECT value FROM meta WHERE key = 'marks'").fetchone()
    kind = tuple[dict[str, int], dict[str, dict[str, int]]]
    return msgspec.json.decode(row[0], type=kind) if row else ({}, {})


def _counted(marked: dict[str, int], most: int) -> str:
    found = sorted(marked.items(), key=lambda one: -one[1])[:most]
    return ", ".join(f"{count} {key}" for key, count in found)


def _in_words(name: str, found: Quality) -> list[str]:
    """Return how good a class's alerts are; what nobody's word stands behind is named estimate."""
    lines = []
    cases = f"{found.confirmed} right, {found.false_alarms} false, {found.missed} missed"
    shares = [
        f"{word} {value:.2f}"
        for word, value in (
            ("precision", found.precision),
            ("recall", found.recall),
            ("F1", found.f1),
            ("accuracy", found.accuracy),
        )
        if value is not None
    ]
    if shares:
        lines.append(f"alerts of {name}: {cases}; {', '.join(shares)}")
    if found.machine_months > 0:
        said = f"{found.raised} alerts in {found.machine_months:.2f} machine-months"
        if found.false_alarms_per_month is not None:
            said += f", {found.false_alarms_per_month:.2f} a month found false"
        if found.estimate_alarms_per_month is not None:
            said += f"; estimate without labels: at most {found.estimate_alarms_per_month:.2f}"
        if found.estimate_over_limit is not None:
            said += f", {found.estimate_over_limit:.2%} of vectors over the limit"
        lines.append(f"alarm rate of {name}: {said}")
    if found.rul_error_h is not None:
        error = f"{found.rul_error_h:.1f} h from what came, of {found.rul_lives} lives"
        lines.append(f"remaining life of {name}: told {error}")
    if found.faults_told:
        lines.append(
            f"kinds of fault of {name}: {found.faults_right} of {found.faults_told} told right"
        )
    lines += [f"retraining of {name} is asked for: {reason}" for reason in found.retrain]
    return lines


def _left(config: AgentConfig, report: Health) -> str:
    spec = config.class_of(report.asset)
    if report.rul_h is None:
        return ""
    return f"{report.rul_h:.0f} h{'' if spec is None else within(report, spec)}"


def _problem(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT value FROM meta WHERE key = 'problem'").fetchone()
    return str(row[0]) if row else ""


def as_json(seen: Seen) -> str:
    """Return one JSON object."""
    return msgspec.json.encode(seen).decode()


def as_text(seen: Seen) -> str:
    """Return a table, the worst asset first."""
    lines = [f"node {seen.node}"]
    if seen.problem:
        lines.append(f"PROBLEM: {seen.problem}")
    for name, version in seen.live.items():
        judge = f"release {version}" if version else "its own models"
        lines.append(f"class {name}: judged by {judge}, {seen.lives.get(name, 0)} finished lives")
    lines += [f"privacy of {name}: {said}" for name, said in seen.privacy.items()]
    for name, found in seen.quality.items():
        lines += _in_words(name, found)
    if seen.quarantined:
        reasons = ", ".join(f"{count} {reason}" for reason, count in seen.quarantined.items())
        lines.append(f"messages that could not be used: {reasons}")
    if seen.refused:
        lines.append("  the newest: {}: {}".format(*seen.refused))
    if seen.marked:
        lines.append(f"values that were marked: {_counted(seen.marked, 10)}")
        lines += [f"  of {asset}: {_counted(n, 5)}" for asset, n in [*seen.marked_of.items()][:5]]
    for version, verdict, reason in seen.rollouts:
        lines.append(f"release {version} {verdict}: {reason}")
    width = max([len(report.asset) for report in seen.health] + [5])
    wide = max([len(text) for text in seen.left.values()] + [4])
    lines += ["", f"{'asset':{width}}  health  state     {'left':{wide}}  as of             why"]
    for report in sorted(seen.health, key=lambda r: (r.health is None, r.health or 0.0)):
        index = "   -  " if report.health is None else f"{report.health:6.2f}"
        left = seen.left.get(report.asset) or "-"
        when = datetime.fromtimestamp(report.t, UTC).strftime("%Y-%m-%d %H:%M")
        why = ", ".join(f"{w.channel} {w.share:.0%}" for w in report.why)
        line = f"{report.asset:{width}}  {index}  {report.state:8}  {left:{wide}}  {when}  {why}"
        lines.append(line.rstrip())
        if report.drift:
            said = ", ".join(f"{d.channel or 'the score'} {d.change}" for d in report.drift)
            lines.append(f"{'':{width}}  drifts ({report.drift_of}): {said}")
    if not seen.health:
        lines.append("(nothing judged yet)")
    lines += ["", "alerts, by their ids:"] if seen.alerts else ["", "no alert"]
    ids = max([len(alert.id) for alert in seen.alerts] + [0])
    for alert in sorted(seen.alerts, key=lambda one: _ORDER.index(one.now)):
        text = alert.text.removesuffix(f" [{alert.id}]")
        lines.append(f"  {alert.id:{ids}}  {alert.now:14}  {text}")
    return "\n".join(lines)

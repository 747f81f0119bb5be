"""Find an alert in the store, and its evidence; only reads, beside a running agent or without."""

import difflib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.batch import Swap
from agent.config import AgentConfig
from agent.evidence.gather import Gatherer
from agent.evidence.record import Evidence, Raised, Setting
from agent.journal import JournalReader
from agent.rollout import file_name
from contract import load_model
from contract.arrays import Floats
from contract.errors import ContractError
from contract.release import Release
from contract.report import Alert, Health


class Burst(NamedTuple):
    """A burst of a waveform round the alert.

    Attributes:
        wave: name of the waveform.
        t_ns: of its first sample.
        reason: why it is bad, or 0.
        features: ``(F,)`` as the pipeline computed them; empty where they are not known.
        samples: ``(n,)``.
    """

    wave: str
    t_ns: int
    reason: int
    features: Floats
    samples: NDArray[np.float32]


class Found(NamedTuple):
    """An alert, and what the store keeps of it.

    Attributes:
        alert: as it was published; where that is gone, as its evidence says.
        copy: as its evidence says, or None.
        evidence: what it is recomputed from, or None.
        lost: why there is none.
        kept: whether it was kept when the alert was raised; else it was gathered now.
        returned: seconds since 1970 UTC when the alert ended, if it did and that is still known.
        health: the report that was said with it, if it is still known.
        bursts: round it.
    """

    alert: Alert
    copy: Alert | None
    evidence: Evidence | None
    lost: str
    kept: bool
    returned: float | None
    health: Health | None
    bursts: list[Burst]


class _Row(NamedTuple):
    """What the table of evidence says of an alert."""

    id: int
    seq: int
    lost: str
    said: bytes
    setting: bytes | None
    gathered: bool


def find(db: sqlite3.Connection, config: AgentConfig, text: str) -> Found:
    """Return an alert by its id, its asset's name, or ``last``.

    Raises:
        ContractError: there is no such alert; names the nearest.
    """
    db.execute("BEGIN")  # all that is read is of one instant
    try:
        said = _said(db)
        rows = _rows(db)
        alert = _choose(text, said, {key: _alert(row.said) for key, row in rows.items()})
        row = rows.get(alert.id)
        copy = None if row is None else _alert(row.said)
        evidence, lost = None, ""
        try:
            evidence = _evidence(db, config, alert, row)
        except ContractError as error:
            lost = str(error)
        return Found(
            alert,
            copy,
            evidence,
            lost,
            row is not None and bool(row.gathered),
            _returned(db, alert),
            _health(db, alert),
            [] if row is None else _bursts(db, row.id),
        )
    finally:
        db.execute("ROLLBACK")


def release_finder(folder: Path) -> Callable[[Swap], Release]:
    """Return what finds the releases that have judged in a state folder."""

    def find_release(swap: Swap) -> Release:
        path = folder / "models" / "releases" / file_name(swap.asset_class, swap.version)
        release = load_model(path)
        if release.digest != swap.digest:
            raise ContractError(f"{path}: it is not the release that judged ({swap.digest[:16]})")
        return release

    return find_release


def _alert(body: bytes) -> Alert:
    try:
        return msgspec.json.decode(body, type=Alert)
    except msgspec.MsgspecError as error:
        raise ContractError(f"the store holds an alert that cannot be read ({error})") from error


def _said(db: sqlite3.Connection) -> dict[str, Alert]:
    """Return the alerts that were raised and are still known, by their ids, oldest first."""
    found: dict[str, Alert] = {}
    for (body,) in db.execute("SELECT body FROM result WHERE kind = 'alert' ORDER BY id"):
        alert = _alert(body)
        if alert.state == "raised":
            found.pop(alert.id, None)
            found[alert.id] = alert
    return found


def _rows(db: sqlite3.Connection) -> dict[str, _Row]:
    """Return what is kept of each alert, without what is large."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence'").fetchone():
        return {}  # of an agent that kept none
    query = "SELECT alert, id, seq, lost, said, setting, body IS NOT NULL FROM evidence ORDER BY id"
    return {alert: _Row(*rest) for alert, *rest in db.execute(query)}


def _choose(text: str, said: dict[str, Alert], kept: dict[str, Alert]) -> Alert:
    # What was published comes before its copy; in the order in which they were raised.
    known = {**kept, **said}
    alerts = sorted(known.values(), key=lambda alert: alert.t)
    if not alerts:
        raise ContractError("no alert was raised here, or none is known any more")
    if text == "last":
        return alerts[-1]
    if text in known:
        return known[text]
    of_asset = [alert for alert in alerts if alert.asset == text]
    if of_asset:
        return of_asset[-1]
    names = [*known, *{alert.asset: None for alert in alerts}]
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.4)
    newest = ", ".join(near or [alert.id for alert in alerts[:-4:-1]])
    raise ContractError(
        f"no alert {text!r} is known; {'the nearest' if near else 'the newest'}: {newest}"
    )


def _evidence(
    db: sqlite3.Connection, config: AgentConfig, alert: Alert, row: _Row | None
) -> Evidence:
    if row is not None:
        (body,) = db.execute("SELECT body FROM evidence WHERE id = ?", (row.id,)).fetchone()
        if row.gathered:
            evidence = Evidence.from_bytes(body, f"the evidence of {alert.id}")
            if evidence.head.alert.id != alert.id:
                raise ContractError(f"the evidence of {alert.id} is of {evidence.head.alert.id}")
            return evidence
        if row.lost:
            raise ContractError(f"the evidence of {alert.id} was not kept: {row.lost}")
    gatherer = Gatherer(db, config.state)
    if row is not None and row.setting is not None:
        try:
            setting = msgspec.json.decode(row.setting, type=Setting)
        except msgspec.MsgspecError as error:
            raise ContractError(f"what was in force at {alert.id} cannot be read") from error
        return gatherer.gather(Raised(alert, row.seq, setting))
    # Of an agent that kept no evidence: whatever the journal still holds.
    spec = config.class_of(alert.asset)
    if spec is None:
        raise ContractError(f"asset {alert.asset!r} matches no pattern of [assets]")
    setting = Setting.of(config, spec, {}, 0, empty=JournalReader(config.state).first == 1)
    return gatherer.gather(Raised(alert, 0, setting))


def _returned(db: sqlite3.Connection, alert: Alert) -> float | None:
    query = "SELECT body FROM result WHERE kind = 'alert' AND asset = ? ORDER BY id"
    for (body,) in db.execute(query, (alert.asset,)):
        other = _alert(body)
        over = other.state in {"returned", "latched"} or other.event
        if over and other.id == alert.id and other.t >= alert.t:
            return other.t
    return None


def _health(db: sqlite3.Connection, alert: Alert) -> Health | None:
    """Return the newest report of the asset at the alert or before."""
    query = "SELECT id, body FROM result WHERE kind = 'alert' AND asset = ? ORDER BY id DESC"
    for number, body in db.execute(query, (alert.asset,)):
        if _alert(body) == alert:
            row = db.execute(
                "SELECT body FROM result WHERE kind = 'health' AND asset = ? AND id < ? "
                "ORDER BY id DESC LIMIT 1",
                (alert.asset, number),
            ).fetchone()
            return None if row is None else msgspec.json.decode(row[0], type=Health)
    return None


def _bursts(db: sqlite3.Connection, row: int) -> list[Burst]:
    query = (
        "SELECT wave, t_ns, reason, features, samples FROM evidence_burst WHERE evidence = ? "
        "ORDER BY wave, t_ns"
    )
    return [
        Burst(wave, t_ns, reason, np.frombuffer(features), np.frombuffer(samples, np.float32))
        for wave, t_ns, reason, features, samples in db.execute(query, (row,))
    ]

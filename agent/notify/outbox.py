"""Notices that wait to be sent: what is worth telling, how often, and how to go on after a kill.

Each channel has a file of its own, ``notify/<name>.db`` in the state folder, and one writer: its
thread. The agent's store is not written to.
"""

import json
import logging
import sqlite3
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.notify.channel import Kind, Limits, Notice
from contract.report import Alert

log = logging.getLogger("runout.notify")

HOUR_S = 3600.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS place (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seen INTEGER NOT NULL            -- number of the newest result that was looked at
);
-- How much was told of an asset's newest alert: 1 raised, 2 failing.
CREATE TABLE IF NOT EXISTS told (
  asset TEXT PRIMARY KEY, alert TEXT NOT NULL, level INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
  id INTEGER PRIMARY KEY,          -- of the result
  asset TEXT NOT NULL, kind TEXT NOT NULL, alert TEXT NOT NULL,
  held INTEGER NOT NULL,           -- notices that it stands for, beside its own
  since REAL NOT NULL,             -- when it was made, seconds since 1970 UTC
  body BLOB NOT NULL               -- the alert, JSON
);
CREATE TABLE IF NOT EXISTS sent (asset TEXT NOT NULL, at REAL NOT NULL);
"""


class Waiting(NamedTuple):
    """A notice to be sent now."""

    id: int
    kind: Kind
    alert: Alert
    held: int
    since: float

    def notice(self, site: str, node: str) -> Notice:
        """Return it as it is sent."""
        number = f"{site}/{node}/{self.id}"
        return Notice(number, self.kind, site, node, self.alert.text, self.held, self.alert)


class Outbox:
    """The notices of one channel.

    Args:
        path: of its file.
        limits: of the channel.
        newest: number of the agent's newest result: a new channel begins behind it.

    Attributes:
        dropped: notices that gave way because too many waited, since this process began.
    """

    def __init__(self, path: Path, limits: Limits, newest: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limits = limits
        self.dropped = 0
        try:
            self._db = _open(path)
        except sqlite3.OperationalError:
            raise  # locked, no room: nothing that setting aside would mend
        except sqlite3.DatabaseError as error:
            log.exception(
                "notices that waited are lost: the file is damaged", extra={"error": str(error)}
            )
            path.replace(path.with_name(f"damaged-{path.name}"))
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._db = _open(path)
        self._db.execute("INSERT OR IGNORE INTO place VALUES (1, ?)", (newest,))
        (self.seen,) = self._db.execute("SELECT seen FROM place").fetchone()
        if self.seen > newest:  # the store was lost, and numbers begin anew
            self._db.execute("UPDATE place SET seen = 0")
            self.seen = 0

    def close(self) -> None:
        """Close; safe more than once."""
        self._db.close()

    def take(self, results: list[tuple[int, bytes]], upto: int, now: float) -> None:
        """Take alerts with their numbers, and keep of them what is to be told.

        ``upto``: number of the newest result that was looked at.
        """
        self._db.execute("BEGIN")
        try:
            for number, body in results:
                self._consider(number, msgspec.json.decode(body, type=Alert), body, now)
            self._db.execute("UPDATE place SET seen = ?", (upto,))
            self._bound()
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        self.seen = upto

    def _consider(self, number: int, alert: Alert, body: bytes, now: float) -> None:
        row = self._db.execute(
            "SELECT alert, level FROM told WHERE asset = ?", (alert.asset,)
        ).fetchone()
        level = row[1] if row is not None and row[0] == alert.id else 0
        wanted = 2 if alert.severity == "failing" else 1
        kind: Kind
        if alert.state == "unshelved":
            level = 0  # what was told before was hidden since: it speaks again
        if alert.state == "shelved":
            gone = self._db.execute("DELETE FROM waiting WHERE asset = ?", (alert.asset,)).rowcount
            if gone:  # at most what was told before them, and that was of no other alert
                self._db.execute("DELETE FROM told WHERE asset = ?", (alert.asset,))
            return
        if alert.state in {"raised", "escalated", "unshelved"} and wanted > level:
            kind = "escalated" if level else "raised"
            level = wanted
        elif alert.state in {"returned", "normal"} and level:
            # Normal, too: shelved, and over meanwhile. What was acknowledged late was told.
            kind, level = "returned", 0
        else:
            return
        self._db.execute(
            "INSERT OR REPLACE INTO told VALUES (?, ?, ?)", (alert.asset, alert.id, level)
        )
        self._db.execute(
            "INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?, 0, ?, ?)",
            (number, alert.asset, kind, alert.id, now, body),
        )

    def _bound(self) -> None:
        (count,) = self._db.execute("SELECT COUNT(*) FROM waiting").fetchone()
        over = count - self._limits.backlog
        if over > 0:
            self.dropped += over
            self._db.execute(
                "DELETE FROM waiting WHERE id IN (SELECT id FROM waiting ORDER BY id LIMIT ?)",
                (over,),
            )

    def next(self, now: float) -> tuple[Waiting | None, float]:
        """Return what is to be sent now; or nothing, and the seconds until there may be room."""
        self._db.execute("DELETE FROM sent WHERE at <= ? OR at > ?", (now - HOUR_S, now))
        (count,) = self._db.execute("SELECT COUNT(*) FROM waiting").fetchone()
        if not count:
            return None, HOUR_S
        sent, oldest = self._db.execute("SELECT COUNT(*), MIN(at) FROM sent").fetchone()
        if sent >= self._limits.per_h:
            return None, oldest + HOUR_S - now
        often = dict(
            self._db.execute(
                "SELECT asset, MIN(at) FROM sent GROUP BY asset HAVING COUNT(*) >= ?",
                (self._limits.asset_per_h,),
            ).fetchall()
        )
        for asset in often:
            self._hold_back(asset)
        row = self._db.execute(
            "SELECT id, kind, body, held, since FROM waiting WHERE asset NOT IN "
            "(SELECT value FROM json_each(?)) ORDER BY id LIMIT 1",
            (json.dumps(list(often)),),
        ).fetchone()
        if row is None:
            return None, min(often.values(), default=now) + HOUR_S - now
        number, kind, body, held, since = row
        return Waiting(number, kind, msgspec.json.decode(body, type=Alert), held, since), 0.0

    def _hold_back(self, asset: str) -> None:
        """Let the newest notice of an asset stand for all of them."""
        found = self._db.execute(
            "SELECT id, kind, alert, held FROM waiting WHERE asset = ? ORDER BY id", (asset,)
        ).fetchall()
        if len(found) < 2:
            return
        newest, kind, alert, _ = found[-1]
        ids = [row[0] for row in found]
        if kind == "returned" and any(row[1:3] == ("raised", alert) for row in found):
            # It came and went while nobody would have been told.
            self._delete(ids)
            return
        self._db.execute("BEGIN")
        self._delete(ids[:-1])
        held = sum(row[3] for row in found) + len(found) - 1
        self._db.execute("UPDATE waiting SET held = ? WHERE id = ?", (held, newest))
        self._db.execute("COMMIT")

    def _delete(self, ids: list[int]) -> None:
        self._db.execute(
            "DELETE FROM waiting WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
        )

    def done(self, one: Waiting, now: float, *, sent: bool) -> None:
        """Forget a notice that was sent, or given up."""
        self._db.execute("BEGIN")
        if sent:
            self._db.execute("INSERT INTO sent VALUES (?, ?)", (one.alert.asset, now))
        self._db.execute("DELETE FROM waiting WHERE id = ?", (one.id,))
        self._db.execute("COMMIT")

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM waiting").fetchone()[0])


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")  # lost with the power: sent once more
        db.executescript(_SCHEMA)
        _check(db)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection) -> None:
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)

"""Notices that wait to be sent: what is worth telling, how often, and how to go on after a kill.

Each channel has a file of its own, ``notify/<name>.db`` in the state folder, and one writer: its
thread. The agent's store is not written to.

That a machine is failing is urgent: it goes first, and no limit holds it back. That it is over is
told of all that was told, and counts against no limit. What is degraded is held back, and told
together.
"""

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.notify.channel import Kind, Limits, Notice
from contract.report import Alert

log = logging.getLogger("runout.notify")

HOUR_S = 3600.0
DEGRADED, FAILING = 1, 2
"""How bad it is, as was told; 0: nothing, or that it is over."""
MOST_SAID = 500
"""Letters of what is kept of an error."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS place (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seen INTEGER NOT NULL            -- number of the newest result that was looked at
);
-- How bad an asset's newest alert is, by the notices that were made of it ...
CREATE TABLE IF NOT EXISTS told (
  asset TEXT PRIMARY KEY, alert TEXT NOT NULL, level INTEGER NOT NULL
) WITHOUT ROWID;
-- ... and the alert that the newest notice was of which was sent.
CREATE TABLE IF NOT EXISTS heard (asset TEXT PRIMARY KEY, alert TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notice (
  id INTEGER PRIMARY KEY,          -- of the result
  asset TEXT NOT NULL, kind TEXT NOT NULL, alert TEXT NOT NULL,
  level INTEGER NOT NULL,          -- how bad it says it is
  since REAL NOT NULL,             -- when it was made, seconds since 1970 UTC
  body BLOB NOT NULL               -- the alert, JSON
);
-- How many of an asset were not sent since the newest that was: the next that tells what is wrong
-- stands for them.
CREATE TABLE IF NOT EXISTS held (asset TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
-- What was sent within the hour, and counts against the limits.
CREATE TABLE IF NOT EXISTS sent (asset TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tally (outcome TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trouble (one INTEGER PRIMARY KEY CHECK (one = 1), said TEXT NOT NULL);
"""


def path_of(folder: Path, channel: str) -> Path:
    """Return where a channel's notices are kept, in the agent's state folder."""
    return folder / "notify" / f"{channel}.db"


class Counts(NamedTuple):
    """What became of a channel's notices, since its file was made.

    Attributes:
        sent: taken on by the other side.
        failed: attempts that failed.
        given_up: notices refused, or not sent for too long.
        dropped: notices that gave way because too many waited.
        waiting: at present.
        oldest: when the oldest of these was made, seconds since 1970 UTC; None: none waits.
        trouble: why the newest attempt failed; empty: it did not.
    """

    sent: int = 0
    failed: int = 0
    given_up: int = 0
    dropped: int = 0
    waiting: int = 0
    oldest: float | None = None
    trouble: str = ""


class Look(NamedTuple):
    """What can be seen of a channel from outside: its counts, and how far it has looked."""

    counts: Counts
    seen: int


def look(path: Path) -> Look:
    """Look into the file of a channel, beside the thread that writes it.

    Raises:
        sqlite3.DatabaseError: it cannot be read.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (seen,) = db.execute("SELECT COALESCE(MAX(seen), 0) FROM place").fetchone()
        return Look(_counts(db), seen)


def _counts(db: sqlite3.Connection) -> Counts:
    known = dict(db.execute("SELECT outcome, number FROM tally").fetchall())
    waiting, oldest = db.execute("SELECT COUNT(*), MIN(since) FROM notice").fetchone()
    trouble = db.execute("SELECT said FROM trouble").fetchone()
    return Counts(**known, waiting=waiting, oldest=oldest, trouble=trouble[0] if trouble else "")


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
        seen: number of the newest result that was looked at.
    """

    def __init__(self, path: Path, limits: Limits, newest: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limits = limits
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
        wanted = FAILING if alert.severity == "failing" else DEGRADED
        kind: Kind
        if alert.state == "unshelved":
            level = 0  # what was told before was hidden since: it speaks again
        if alert.state == "shelved":
            self._hide(alert)
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
            "INSERT OR IGNORE INTO notice VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, alert.asset, kind, alert.id, level, now, body),
        )

    def _hide(self, alert: Alert) -> None:
        """Take back that an alert is degraded, if nobody has heard: who shelved it knows."""
        gone = self._db.execute(
            "DELETE FROM notice WHERE asset = ? AND alert = ? AND level = ?",
            (alert.asset, alert.id, DEGRADED),
        ).rowcount
        if gone and not self._was_heard(alert.asset, alert.id):
            self._db.execute(
                "DELETE FROM told WHERE asset = ? AND level = ?", (alert.asset, DEGRADED)
            )

    def _was_heard(self, asset: str, alert: str) -> bool:
        row = self._db.execute("SELECT alert FROM heard WHERE asset = ?", (asset,)).fetchone()
        return row is not None and row[0] == alert

    def _bound(self) -> None:
        over = len(self) - self._limits.backlog
        if over > 0:
            # Of what is urgent only where there is nothing else.
            self._db.execute(
                "DELETE FROM notice WHERE id IN "
                "(SELECT id FROM notice ORDER BY level = ?, id LIMIT ?)",
                (FAILING, over),
            )
            self._count("dropped", over)

    def next(self, now: float) -> tuple[Waiting | None, float]:
        """Return what is to be sent now; or nothing, and the seconds until there may be room."""
        self._db.execute("DELETE FROM sent WHERE at <= ? OR at > ?", (now - HOUR_S, now))
        if not len(self):
            return None, HOUR_S
        often = dict(
            self._db.execute(
                "SELECT asset, MIN(at) FROM sent GROUP BY asset HAVING COUNT(*) >= ?",
                (self._limits.asset_per_h,),
            ).fetchall()
        )
        sent, oldest = self._db.execute("SELECT COUNT(*), MIN(at) FROM sent").fetchone()
        if sent >= self._limits.per_h:
            for (asset,) in self._db.execute("SELECT DISTINCT asset FROM notice").fetchall():
                often[asset] = max(oldest, often.get(asset, oldest))
        urgent = self._db.execute(
            "SELECT asset FROM notice WHERE level = ? ORDER BY id", (FAILING,)
        ).fetchall()
        for asset in {*often, *(asset for (asset,) in urgent)}:
            self._hold_back(asset)
        first = urgent[0][0] if urgent else None
        row = self._db.execute(
            # Of the asset that is failing, what is over before it is: who hears that it is over
            # must not take it for what came behind.
            "SELECT id, asset, kind, body, since FROM notice WHERE level != ? OR asset NOT IN "
            "(SELECT value FROM json_each(?)) ORDER BY asset IS NOT ?, id LIMIT 1",
            (DEGRADED, json.dumps(list(often)), first),
        ).fetchone()
        if row is None:
            return None, min(often.values(), default=now) + HOUR_S - now
        number, asset, kind, body, since = row
        (held,) = self._db.execute(
            "SELECT COALESCE(SUM(number), 0) FROM held WHERE asset = ? AND ? != 'returned'",
            (asset, kind),
        ).fetchone()
        return Waiting(number, kind, msgspec.json.decode(body, type=Alert), held, since), 0.0

    def _hold_back(self, asset: str) -> None:
        """Let what is newer stand for what is degraded, and an end for what it ends."""
        found = self._db.execute(
            "SELECT id, alert, level FROM notice WHERE asset = ? ORDER BY id", (asset,)
        ).fetchall()
        gone: list[int] = []
        before: tuple[int, str] | None = None
        """The one before, if that is degraded: its number and alert."""
        for number, alert, level in found:
            if before is not None:
                gone.append(before[0])
                if not level and before[1] == alert and not self._was_heard(asset, alert):
                    gone.append(number)  # it came and went, and nobody was told that it came
            before = (number, alert) if level == DEGRADED else None
        if not gone:
            return
        self._db.execute("BEGIN")
        self._db.execute(
            "DELETE FROM notice WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(gone),)
        )
        self._db.execute(
            "INSERT INTO held VALUES (?, ?) ON CONFLICT DO UPDATE SET "
            "number = number + excluded.number",
            (asset, len(gone)),
        )
        self._db.execute("COMMIT")

    def failed(self, why: str) -> None:
        """Note an attempt that failed."""
        self._db.execute("BEGIN")
        self._count("failed", 1)
        self._db.execute("INSERT OR REPLACE INTO trouble VALUES (1, ?)", (why[:MOST_SAID],))
        self._db.execute("COMMIT")

    def done(self, one: Waiting, now: float, *, sent: bool) -> None:
        """Forget a notice that was sent, or given up."""
        asset = one.alert.asset
        self._db.execute("BEGIN")
        self._count("sent" if sent else "given_up", 1)
        if sent:
            self._db.execute("INSERT OR REPLACE INTO heard VALUES (?, ?)", (asset, one.alert.id))
            if one.kind != "returned":
                self._db.execute("INSERT INTO sent VALUES (?, ?)", (asset, now))
                self._db.execute("DELETE FROM held WHERE asset = ?", (asset,))
            self._db.execute("DELETE FROM trouble")
        self._db.execute("DELETE FROM notice WHERE id = ?", (one.id,))
        self._db.execute("COMMIT")

    def _count(self, outcome: str, number: int) -> None:
        self._db.execute(
            "INSERT INTO tally VALUES (?, ?) ON CONFLICT DO UPDATE SET "
            "number = number + excluded.number",
            (outcome, number),
        )

    @property
    def counts(self) -> Counts:
        """Return what became of the notices."""
        return _counts(self._db)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM notice").fetchone()[0])


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

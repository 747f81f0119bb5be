"""One SQLite file with one writer: opened whole or set aside, written to until it is written.

A transaction that finds no room on the disk is not an error that ends the agent: it is done again,
from the beginning, until there is room. Whoever waits for the commit waits, and acknowledges
nothing meanwhile.

A commit is safe from a kill at once, from a power cut once it was flushed (``sync``) or SQLite has
taken its log into the file. A cut leaves a beginning of the transactions, whole ones: what of the
others is not in the journal, too, is to be flushed.
"""

import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from agent.wal import damage_of
from contract.errors import ConfigError

log = logging.getLogger("runout.store")

RETRY_S = 0.5
"""From one attempt to write to the next, while there is no room."""
PAGE_BYTES = 1024
"""A commit writes whole pages: small ones are cheaper than few. Of a database that is made."""
WAL_BYTES = 8 * 1024 * 1024
"""What the write-ahead log is cut back to after it had to grow."""

# What a full or failing disk, or another program at the file, comes as.
_PASSING = {
    sqlite3.SQLITE_FULL: "no room on the disk: make some",
    sqlite3.SQLITE_IOERR: "the disk takes no more: is it full, worn out, pulled out?",
    sqlite3.SQLITE_READONLY: "the disk has turned read-only: look at the kernel's log (dmesg)",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: is the folder still there?",
    sqlite3.SQLITE_BUSY: "another program holds the file: end it",
}

# The same of a file that is written without SQLite.
_PASSING_OS = {
    errno.ENOSPC: _PASSING[sqlite3.SQLITE_FULL],
    errno.EDQUOT: _PASSING[sqlite3.SQLITE_FULL],
    errno.EIO: _PASSING[sqlite3.SQLITE_IOERR],
    errno.EFBIG: _PASSING[sqlite3.SQLITE_IOERR],
    errno.EROFS: _PASSING[sqlite3.SQLITE_READONLY],
}

Row = Sequence[Any]


class Database:
    """A database file, its one open transaction, and what is to be done again of it.

    Attributes:
        set_aside: where a damaged file was moved to, or None.
        open: whether a transaction is under way.
        problem: why nothing can be written at present; empty: it can.
        syncs: flushes to the disk that were asked for here; SQLite's own are a few an hour more.
        while_stuck: called between two attempts to write; it waits a while. May raise, which ends
            the attempts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unit: list[tuple[str, Sequence[Row]]] = []
        self.open = False
        self.set_aside: Path | None = None
        self.problem = ""
        self.syncs = 0
        self.while_stuck: Callable[[], None] = _wait
        self._note_wal()
        try:
            self.db = self._connect()
        except sqlite3.DatabaseError as error:
            self._refuse(error)
            self.set_aside = _set_aside(path)
            log.critical(
                "the store is damaged and was set aside; models go on from the checkpoint, and "
                "what was said since is said again",
                extra={"error": str(error), "moved_to": str(self.set_aside)},
            )
            self.db = self._connect()

    def _note_wal(self) -> None:
        """Keep a copy of a write-ahead log that SQLite will not read to its end."""
        wal = self._path.with_name(self._path.name + "-wal")
        damage = damage_of(wal)
        if damage is None:
            return
        if not damage.inside:
            # As a kill in the midst of a commit leaves it; of a damaged last frame it looks alike.
            log.warning(
                "the last transaction is not whole, cut off or damaged: what it lacks is worked "
                "out again from the journal",
                extra={"frame": damage.first, "of": damage.frames},
            )
            return
        kept = _free_name(self._path)
        kept = kept.with_name(kept.name + "-wal")
        kept.write_bytes(wal.read_bytes())
        log.critical(
            "the write-ahead log is damaged, by a power cut or the disk, and was copied: what is "
            "behind the damage is worked out again from the journal",
            extra={"frame": damage.first, "of": damage.frames, "copied_to": str(kept)},
        )

    def _refuse(self, error: sqlite3.DatabaseError) -> None:
        """Raise what setting aside would not mend."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return
        if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
            raise ConfigError(
                f"node.state: {self._path} cannot be written to ({error}): give the agent's user "
                "the folder, or name another one; is the disk mounted read-only?"
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise ConfigError(
                f"node.state: no room on the disk for {self._path}: make some"
            ) from error
        raise error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            if not self._path.stat().st_size:
                db.execute(f"PRAGMA page_size={PAGE_BYTES}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
            (size,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA wal_autocheckpoint={WAL_BYTES // 2 // size}")
            db.executescript(resources.files("agent").joinpath("schema.sql").read_text())
            # A store of before: results did not know when they were written, and what of.
            known = {row[1] for row in db.execute("PRAGMA table_info(result)")}
            for name in ("at_ns", "seq"):
                if name not in known:
                    db.execute(f"ALTER TABLE result ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0")
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                error = sqlite3.DatabaseError(verdict)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close; safe more than once."""
        self.db.close()

    def rows(self, sql: str, *args: object) -> list[Any]:
        """Return what a query finds."""
        return self.db.execute(sql, args).fetchall()

    def scalar(self, sql: str, *args: object) -> int:
        """Return the one number that a query finds."""
        return int(self.db.execute(sql, args).fetchone()[0])

    def begin(self) -> None:
        """Begin a transaction; everything until ``commit`` happens or does not."""
        self.open = True
        self._unit.clear()  # of one that was given up
        self._attempt(lambda: self.db.execute("BEGIN IMMEDIATE"))

    def do(self, sql: str, *rows: Row) -> None:
        """Execute for each row, as part of the transaction; without one, as one of its own."""
        if not self.open:
            self.begin()
            self.do(sql, *rows)
            self.commit()
            return
        self._unit.append((sql, rows))
        self._attempt(lambda: self.db.executemany(sql, rows))

    @property
    def changed(self) -> bool:
        """Return whether the transaction has written anything so far."""
        return bool(self._unit)

    def commit(self) -> None:
        """End the transaction; returns when it is written."""
        self._attempt(lambda: self.db.execute("COMMIT"), commit=True)
        self.open = False
        self._unit.clear()

    def sync(self) -> None:
        """Flush what was committed so far; returns when it is on the disk."""
        wal = self._path.with_name(self._path.name + "-wal")

        def flush() -> None:
            # SQLite has its locks on the other files: closing this one lets none of them go.
            file = os.open(wal, os.O_RDONLY)
            try:
                os.fdatasync(file)
            finally:
                os.close(file)

        self.insist(flush)
        self.syncs += 1

    def insist(self, step: Callable[[], object]) -> None:
        """Take a step that writes without SQLite; again and again, until it can be taken."""
        began = 0.0
        while True:
            try:
                step()
            except OSError as error:
                began = began or time.monotonic()
                self._say_stuck(_PASSING_OS.get(error.errno or 0), error)
                self.while_stuck()
                continue
            self._say_unstuck(began)
            return

    def _attempt(self, step: Callable[[], object], *, commit: bool = False) -> None:
        """Take a step of the transaction; if it cannot be taken, all of them again, until it is."""
        began = 0.0
        while True:
            try:
                if began:
                    self._again(commit=commit)
                else:
                    step()
            except sqlite3.OperationalError as error:
                began = began or time.monotonic()
                self._stuck(error)
                continue
            self._say_unstuck(began)
            return

    def _again(self, *, commit: bool) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for sql, rows in self._unit:
            self.db.executemany(sql, rows)
        if commit:
            self.db.execute("COMMIT")

    def _stuck(self, error: sqlite3.OperationalError) -> None:
        self._say_stuck(_PASSING.get(error.sqlite_errorcode & 0xFF), error)
        if self.db.in_transaction:  # SQLite ends some of them itself
            self.db.execute("ROLLBACK")
        self.while_stuck()

    def _say_stuck(self, mend: str | None, error: Exception) -> None:
        if mend is None:
            raise error
        problem = f"{self._path}: {mend} ({error})"
        if problem != self.problem:
            self.problem = problem
            log.critical(
                "nothing can be stored, and nothing is acknowledged until it can",
                extra={"problem": problem},
            )

    def _say_unstuck(self, began: float) -> None:
        if began:
            self.problem = ""
            log.warning(
                "the store can be written to again, and nothing was lost",
                extra={"after_s": round(time.monotonic() - began, 1)},
            )


def _wait() -> None:
    # Nobody says when a disk has room again: it has to be tried.
    threading.Event().wait(RETRY_S)


def _free_name(path: Path) -> Path:
    number = 1
    while any(path.parent.glob(f"{path.stem}.damaged-{number}{path.suffix}*")):
        number += 1
    return path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")


def _set_aside(path: Path) -> Path:
    target = _free_name(path)
    path.replace(target)
    for suffix in ("-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(target.with_name(target.name + suffix))
    return target

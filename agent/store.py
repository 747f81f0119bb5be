"""The device's memory: the journal, what was said (SQLite), and the checkpoint beside them.

One writer, the agent's main thread. State = last checkpoint + journal replayed through the same
pipeline. Two checkpoints are kept: a truncated one costs a longer replay, not the state.

A batch is committed once its record in the journal is flushed: that alone is waited for. What came
of it is then committed to the database in one transaction, with the batch's number, but flushed
with the next checkpoint only. What a power cut takes of it is worked out again when the journal is
replayed, to the same bits; what is not in the journal is flushed with its own commit.
"""

import contextlib
import fcntl
import functools
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

from agent.batch import Rejected
from agent.config import Keep
from agent.database import Database
from agent.journal import Journal, JournalReader
from agent.labels import Life, hours_left, row_weights
from agent.record import Ended
from contract import VERSION, npz
from contract.arrays import Arrays, Floats
from contract.errors import ConfigError, ContractError
from contract.report import Quality
from contract.spec import AssetClass

if TYPE_CHECKING:
    from agent.pipeline import Finding

log = logging.getLogger("runout.store")

NOTE_NS = 5_000_000_000
"""From one transaction to the next that writes what was noted."""

REPLAYED = 16
"""Batches of a replay that share a transaction."""

_NOTHING: Mapping[str, str] = MappingProxyType({})

Result = tuple[str, str, bytes]
"""Asset, kind, JSON."""


class Unsent(NamedTuple):
    """Results that the broker has not taken: of a kind, numbered above one and up to another."""

    kind: Literal["alert", "health", ""]
    after: int
    upto: int


class _Lock:
    """A folder that is this process's alone, until it is closed or the process ends."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._open = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let others have it; safe more than once."""
        if self._open:
            self._open = False
            os.close(self._descriptor)


def _lock(folder: Path) -> _Lock:
    try:
        return _Lock(folder)
    except BlockingIOError as error:
        raise ConfigError(
            f"node.state: {folder} is in use by another agent: end that one, or give this one a "
            "folder of its own"
        ) from error
    except OSError as error:
        raise ConfigError(f"node.state: {folder} cannot be opened ({error.strerror})") from error


class Store:
    """Opens, or makes, the store in a folder; a damaged database is set aside, and said.

    What finds no room on the disk is written again until it does: see ``agent.database``.

    Args:
        folder: of the store.
        keep: how much, and how hard.
        clock: nanoseconds since 1970, for when a result was written; an attribute, too.

    Raises:
        ConfigError: the folder cannot be written to, or another agent writes to it.
    """

    def __init__(self, folder: Path, keep: Keep, clock: Callable[[], int] = time.time_ns) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"node.state: {folder} cannot be made ({error.strerror}): give the agent's user "
                "the folder above it, or name another one"
            ) from error
        self._lock = _lock(folder)
        self.folder = folder
        self._keep = keep
        self.clock = clock
        self._notes: dict[str, str] = {}
        self._noted_ns = 0
        with ExitStack() as opened:  # what is open when the next cannot be
            opened.callback(self._lock.close)
            self.database = Database(folder / "store.db")
            opened.callback(self.database.close)
            self._journal = Journal(folder, keep.journal_mb * 1e6, durable=keep.power_loss_safe)
            opened.pop_all()
        self._db = self.database.db
        self._take_over_journal()
        self._body: bytes | None = None
        self._solid = False
        self._checkpoint_syncs = 0
        self.done = max(
            int(self.meta("seq", "0")),
            self._scalar("SELECT COALESCE((SELECT seq FROM result ORDER BY id DESC LIMIT 1), 0)"),
        )
        """Number of the newest batch whose outcomes are in the database."""
        self.seq = max(self._journal.last, self.done)
        """Number of the newest batch."""
        self.at = self.seq
        """Number of the batch that is being processed, for the first time or again."""
        self._said = self.done
        self.last_result = max(
            self._scalar("SELECT COALESCE(MAX(id), 0) FROM result"), int(self.meta("sent", "0"))
        )
        """Number of the newest result."""
        self.overflowed = int(self.meta("overflowed", "0"))
        """Results that no broker came to take before there were too many."""
        self._new_rows: list[tuple[str, int, int, bytes]] = []

    def _take_over_journal(self) -> None:
        """Take the journal out of a database of before, where it was a table."""
        if not self._scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = 'journal'"):
            return
        last = 0
        for last, body in self._db.execute("SELECT seq, body FROM journal ORDER BY seq"):
            if last > self._journal.last:  # else: from an attempt that was cut off
                self.database.insist(functools.partial(self._journal.append, last, body))
        self.database.begin()
        # What came of these batches is in the database already.
        self.database.do(
            "INSERT OR REPLACE INTO meta SELECT 'seq', MAX(?, COALESCE((SELECT CAST(value AS "
            "INTEGER) FROM meta WHERE key = 'seq'), 0))",
            (last,),
        )
        self.database.do("DROP TABLE journal", ())
        self.database.commit()

    @property
    def set_aside(self) -> Path | None:
        """Return where a damaged database was moved to, if it was."""
        return self.database.set_aside

    @property
    def problem(self) -> str:
        """Return why nothing can be stored at present; empty: it can."""
        return self.database.problem

    @property
    def syncs(self) -> int:
        """Return how often something was flushed to the disk, since this process began."""
        return self._journal.syncs + self.database.syncs + self._checkpoint_syncs

    @property
    def journal_bytes(self) -> int:
        """Return the bytes of the batches that the journal holds."""
        return self._journal.size

    def close(self) -> None:
        """Close; safe more than once."""
        self._journal.close()
        self.database.close()
        self._lock.close()

    def _scalar(self, sql: str, *args: object) -> int:
        return self.database.scalar(sql, *args)

    # -- small facts ------------------------------------------------------------------------

    def meta(self, key: str, default: str) -> str:
        """Return a small fact."""
        if key in self._notes:
            return self._notes[key]
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keep a small fact."""
        alone = not self.database.open
        if alone:
            self.begin()
        self._solid = True
        self._put(key, value)
        if alone:
            self.commit()

    def _put(self, key: str, value: str) -> None:
        self._notes.pop(key, None)
        self.database.do("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def note(self, key: str, value: str) -> None:
        """Keep a small fact with a later transaction: it is worth none, and no page, of its own."""
        self._notes[key] = value

    # -- one batch, one transaction ---------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction; everything until ``commit`` happens or does not."""
        self._body = None
        self.database.begin()

    def journal(self, body: bytes) -> int:
        """Append a batch, with the commit; returns its number."""
        self.seq += 1
        self.at = self.seq
        self._body = body
        return self.seq

    def add_results(self, results: list[Result]) -> None:
        """Keep what was said, to be published in this order."""
        at_ns = self.clock()
        first = self.last_result + 1
        self.database.do(
            "INSERT INTO result (id, asset, kind, body, at_ns, seq) VALUES (?, ?, ?, ?, ?, ?)",
            *[(first + i, *result, at_ns, self.at) for i, result in enumerate(results)],
        )
        self.last_result += len(results)
        self._said = self.at

    def quarantine(self, rejected: list[Rejected], most: int) -> None:
        """Keep messages that could not be used, the newest ``most`` of them."""
        self._solid = True
        self.database.do(
            "INSERT INTO quarantine (at_ns, topic, reason, text, payload) VALUES (?, ?, ?, ?, ?)",
            *[
                (r.arrival.at_ns, r.arrival.topic, r.reason, r.text[:500], r.arrival.payload[:4096])
                for r in rejected
            ],
        )
        self.database.do(
            "DELETE FROM quarantine WHERE id <= (SELECT MAX(id) FROM quarantine) - ?", (most,)
        )

    def commit(self) -> None:
        """End the transaction; after this the batch may be acknowledged.

        Returns when it is written: without room on the disk that may take a while.
        """
        if self._body is not None:
            body, self._body = self._body, None
            self.database.insist(lambda: self._journal.append(self.seq, body))
        self._write_rows()
        if self._notes and abs(self.clock() - self._noted_ns) >= NOTE_NS:
            self._write_notes()
        if self.at > self.done and self.database.changed:
            if self._said != self.at:  # results bear the number themselves, which costs no page
                self._put("seq", str(self.at))
            self.done = self.at
        self.database.commit()
        if self._solid:
            self._solid = False
            self._flush()

    def _flush(self) -> None:
        """Wait until what is in the database is on the disk, too."""
        if self._keep.power_loss_safe:
            self.database.sync()

    def _write_notes(self) -> None:
        self._noted_ns = self.clock()
        for key, value in self._notes.items():
            self.database.do("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        self._notes.clear()

    # -- lives ------------------------------------------------------------------------------

    def add(self, asset: str, life: int, t_ns: int, x: Floats) -> None:
        """See ``agent.pipeline.Lives``."""
        self._new_rows.append((asset, life, t_ns, x.tobytes()))

    def _write_rows(self) -> None:
        if self._new_rows:
            # A replayed journal writes what is there already: once is enough.
            self.database.do("INSERT OR IGNORE INTO life_row VALUES (?, ?, ?, ?)", *self._new_rows)
            self._new_rows.clear()

    def last_vector(self, asset: str) -> Floats:
        """Return the newest feature vector kept of an asset; raises ``KeyError`` if none is."""
        self._write_rows()
        row = self._db.execute(
            "SELECT x FROM life_row WHERE asset = ? ORDER BY life DESC, t_ns DESC LIMIT 1", (asset,)
        ).fetchone()
        if row is None:
            raise KeyError(asset)
        return np.frombuffer(row[0])

    def finish(self, spec: AssetClass, asset: str, life: int, end_ns: int) -> bool:
        """See ``agent.pipeline.Lives``; every n-th life of a class is held out."""
        self._write_rows()
        found = self._db.execute(
            "SELECT id FROM life WHERE asset = ? AND life = ?", (asset, life)
        ).fetchone()
        if found is not None:
            # A replayed journal, which has brought back what was trimmed.
            self.trim(asset, life, spec.max_life_rows)
            return True
        kept = self._scalar(
            "SELECT COUNT(*) FROM life_row WHERE asset = ? AND life = ?", asset, life
        )
        if not kept:
            return False
        self.trim(asset, life, spec.max_life_rows)
        ended = self._scalar("SELECT COUNT(*) FROM life WHERE asset_class = ?", spec.name)
        heldout = bool(spec.holdout) and ended % spec.holdout == spec.holdout - 1
        self.database.do(
            "INSERT INTO life (asset_class, asset, life, end_ns, heldout) VALUES (?, ?, ?, ?, ?)",
            (spec.name, asset, life, end_ns, heldout),
        )
        return True

    def trim(self, asset: str, life: int, most: int) -> None:
        """Keep the last ``most`` vectors of a life."""
        self.database.do(
            "DELETE FROM life_row WHERE asset = ? AND life = ? AND t_ns <= (SELECT t_ns FROM "
            "life_row WHERE asset = ? AND life = ? ORDER BY t_ns DESC LIMIT 1 OFFSET ?)",
            (asset, life, asset, life, most),
        )

    def forget(self, asset: str, life: int) -> None:
        """See ``agent.pipeline.Lives``."""
        self._write_rows()
        self.database.do("DELETE FROM life_row WHERE asset = ? AND life = ?", (asset, life))

    def training(self, spec: AssetClass, until: tuple[str, int] | None = None) -> list[Life]:
        """See ``agent.pipeline.Lives``."""
        self._write_rows()
        return read_lives(self._db, spec, heldout=False, until=until, most=self._keep.lives)

    def heldout(self, spec: AssetClass) -> list[Life]:
        """See ``agent.pipeline.Lives``."""
        return read_lives(self._db, spec, heldout=True, most=self._keep.lives)

    def _prune_lives(self) -> None:
        """Drop lives that were too many at the checkpoint before: no replay asks for them."""
        before = int(self.meta("lives_upto", "0"))
        for asset, life in self._db.execute(
            "SELECT asset, life FROM (SELECT asset, life, ROW_NUMBER() OVER "
            "(PARTITION BY asset_class, heldout ORDER BY id DESC) AS place FROM life "
            "WHERE id <= ?) WHERE place > ? AND (asset, life) IN "
            "(SELECT asset, life FROM life_row)",
            (before, self._keep.lives),
        ).fetchall():
            self.forget(asset, life)
        upto = self._scalar("SELECT COALESCE(MAX(id), 0) FROM life")
        if upto != before:
            self._put("lives_upto", str(upto))

    def forget_unfinished(self, but: Callable[[str], bool] = lambda _: False) -> dict[str, int]:
        """Drop the lives that nobody knows the state of; return each asset's next life number.

        ``but``: assets whose state is known.
        """
        self._write_rows()
        unknown = [asset for (asset,) in self._db.execute("SELECT DISTINCT asset FROM life_row")]
        for asset in unknown:
            if not but(asset):
                self.database.do(
                    "DELETE FROM life_row WHERE asset = ? AND life NOT IN "
                    "(SELECT life FROM life WHERE asset = ?)",
                    (asset, asset),
                )
        numbers = self._db.execute("SELECT asset, MAX(life) + 1 FROM life GROUP BY asset")
        return {asset: number for asset, number in numbers if not but(asset)}

    def forget_class(self, name: str) -> None:
        """Drop the finished lives of an asset class."""
        self.begin()
        for asset, life in self._db.execute(
            "SELECT asset, life FROM life WHERE asset_class = ?", (name,)
        ).fetchall():
            self.forget(asset, life)
        self.database.do("DELETE FROM life WHERE asset_class = ?", (name,))
        self.commit()

    def forget_journal(self, upto: int) -> None:
        """Drop batches up to a number, as far as they are apart from those behind it."""
        self._journal.forget(upto)

    def cut_journal(self) -> None:
        """Let what is journalled from here on be kept apart from what is before it."""
        self._journal.cut()

    # -- publishing -------------------------------------------------------------------------

    def results(self, of: Unsent, most: int) -> list[tuple[int, str, str, bytes]]:
        """Return the first results of a stretch: number, asset, kind, JSON."""
        where, values = _within(of)
        return self.database.rows(
            f"SELECT id, asset, kind, body FROM result WHERE {where} ORDER BY id LIMIT ?",  # noqa: S608
            *values,
            most,
        )

    def count(self, of: Unsent) -> int:
        """Return how many results there are in a stretch."""
        where, values = _within(of)
        return self._scalar(f"SELECT COUNT(*) FROM result WHERE {where}", *values)  # noqa: S608

    def written_ns(self, of: Unsent) -> int | None:
        """Return when the oldest result of a stretch was written; None: there is none."""
        where, values = _within(of)
        row = self._db.execute(
            f"SELECT at_ns FROM result WHERE {where} ORDER BY id LIMIT 1",  # noqa: S608
            values,
        ).fetchone()
        return None if row is None else int(row[0])

    @property
    def unsent(self) -> list[Unsent]:
        """Return what the broker has not taken, as last noted: the oldest stretches first."""
        stretches = msgspec.json.decode(self.meta("unsent", "[]"), type=list[Unsent])
        return [*stretches, Unsent("", int(self.meta("sent", "0")), self.last_result)]

    def note_unsent(self, stretches: list[Unsent], sent: int) -> None:
        """Note what the broker has not taken: stretches, and everything numbered above ``sent``."""
        self.note("unsent", msgspec.json.encode(stretches).decode())
        self.note("sent", str(sent))

    def note_rollout(
        self,
        at_ns: int,
        asset_class: str,
        version: int,
        digest: str,
        verdict: str,
        reason: str,
        *,
        metas: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Write down what became of a release, and small facts with it."""
        self.begin()
        for key, value in metas.items():
            self._put(key, value)
        self._solid = True
        self.database.do(
            "INSERT INTO rollout (at_ns, asset_class, version, digest, verdict, reason) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (at_ns, asset_class, version, digest, verdict, reason),
        )
        self.commit()

    def last_alerts(self) -> list[bytes]:
        """Return what was last said of each asset's alert, where that is kept."""
        newest = "SELECT MAX(id) FROM result WHERE kind = 'alert' GROUP BY asset"
        query = f"SELECT body FROM result WHERE id IN ({newest})"  # noqa: S608  # no input in it
        return [row[0] for row in self.database.rows(query)]

    def note_verdict(self, finding: "Finding") -> None:
        """Keep what was found of an alert; of 10,000 and more the newest."""
        said, span = finding.said, finding.span
        self.database.do(
            "INSERT INTO verdict (asset_class, asset, t_ns, verdict, alert, life, since_ns, "
            "until_ns, fault, note, by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(finding.asset_class, finding.asset, finding.t_ns, said.verdict, finding.alert),
                *((span.life, span.since_ns, span.until_ns) if span else (None, None, None)),
                *(said.fault, said.note, said.by),
            ),
        )
        self.database.do(
            "DELETE FROM verdict WHERE id <= (SELECT MAX(id) FROM verdict) - 10000", ()
        )

    def note_ended(self, ended: Ended) -> None:
        """Keep how a life ended; of 10,000 and more the newest."""
        self.database.do(
            "INSERT INTO ended (asset_class, asset, life, t_ns, event, alert, stood, told, error_h)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            tuple(ended),
        )
        self.database.do("DELETE FROM ended WHERE id <= (SELECT MAX(id) FROM ended) - 10000", ())

    def judged_anew(self, asset_class: str) -> None:
        """Let verdicts and ends of lives count for what judges from here on."""
        newest = [
            self._scalar(f"SELECT COALESCE(MAX(id), 0) FROM {table}")  # noqa: S608
            for table in ("verdict", "ended")
        ]
        self.set_meta(f"judged_from/{asset_class}", msgspec.json.encode(newest).decode())

    def cases(self, asset_class: str) -> tuple[list[tuple[str, str]], list[Ended]]:
        """Return what people found and how lives ended, as long as the present judge judges.

        Returns:
            id of an alert and the verdict, in the order in which they came; lives.
        """
        kept = self.meta(f"judged_from/{asset_class}", "[0,0]")
        verdict, ended = msgspec.json.decode(kept, type=tuple[int, int])
        said = self.database.rows(
            "SELECT alert, verdict FROM verdict WHERE asset_class = ? AND id > ? ORDER BY id",
            *(asset_class, verdict),
        )
        lives = self.database.rows(
            "SELECT asset_class, asset, life, t_ns, event, alert, stood, told, error_h FROM ended "
            "WHERE asset_class = ? AND id > ? ORDER BY id",
            *(asset_class, ended),
        )
        return [(alert, word) for alert, word in said], [Ended(*life) for life in lives]

    # -- checkpoint -------------------------------------------------------------------------

    def checkpoint(self, head: dict[str, object], arrays: Arrays) -> None:
        """Write the state as of the last commit, keep the one before, and prune what is behind.

        Without room on the disk it is left out, and said: the journal reaches back further then.
        """
        before = int(self.meta("checkpointed", "0"))
        newest = self.folder / "checkpoint.npz"
        if self.seq != before or not newest.exists():
            words = msgspec.json.encode({"contract": VERSION, "seq": self.seq, **head})
            body = npz.to_bytes(npz.digest_of(words, arrays).encode() + words, arrays)
            # Nothing before a checkpoint is replayed: what came of it must not be behind it.
            self._flush()
            try:
                if newest.exists():
                    newest.replace(self.folder / "checkpoint.prev.npz")
                npz.write(newest, body, durable=self._keep.power_loss_safe)
                self._checkpoint_syncs += 2 if self._keep.power_loss_safe else 0
            except OSError as error:
                log.error(  # noqa: TRY400
                    "no checkpoint was written: a restart takes longer", extra={"error": str(error)}
                )
                with contextlib.suppress(OSError):  # not even room was to be had: nor is it held
                    newest.with_name(newest.name + ".part").unlink(missing_ok=True)
                return
        elif not self._notes:
            return
        self.begin()
        self._put("checkpointed", str(self.seq))
        self._put("seq", str(self.seq))
        self._prune_results()
        self._prune_lives()
        self.done = max(self.done, self.seq)
        if self._notes:  # now: an agent that ends behind this has no later transaction
            self._write_notes()
        self.commit()
        self._journal.forget(before, beyond_bytes=self._keep.journal_mb * 1e6)

    def _prune_results(self) -> None:
        """Keep the newest results, alerts beside health so that neither pushes the other out."""
        most = self._keep.results
        oldest_alert = self._db.execute(
            "SELECT id FROM result WHERE kind = 'alert' ORDER BY id DESC LIMIT 1 OFFSET ?", (most,)
        ).fetchone()
        cuts: dict[Literal["alert", "health"], int] = {
            "alert": oldest_alert[0] if oldest_alert else 0,
            "health": self.last_result - most,
        }
        lost = sum(
            self.count(Unsent(kind, one.after, min(one.upto, cut)))
            for one in self.unsent
            for kind, cut in cuts.items()
            if one.kind in {kind, ""} and cut > one.after
        )
        if lost:
            self.overflowed += lost
            self._put("overflowed", str(self.overflowed))
            log.error(
                "results were dropped that no broker came to take: keep.results holds no more",
                extra={"dropped": lost, "ever": self.overflowed},
            )
        for kind, cut in cuts.items():
            self.database.do("DELETE FROM result WHERE id <= ? AND kind = ?", (cut, kind))

    def checkpoints(self) -> Iterator[tuple[dict[str, object], Arrays]]:
        """Yield the checkpoints that are whole and of this version, newest first."""
        for name in ("checkpoint.npz", "checkpoint.prev.npz"):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                yield read_checkpoint(path)
            except ContractError as error:
                log.error("a checkpoint cannot be used", extra={"error": str(error)})  # noqa: TRY400
                # Out of the way: the next checkpoint would push it over the good one before it.
                path.replace(path.with_name(f"damaged-{name}"))

    def replay(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield the journalled batches with a number above ``after``.

        What is written meanwhile shares a transaction with that of the batches beside it.
        """
        batches = JournalReader(self.folder).read(after)
        while found := list(itertools.islice(batches, REPLAYED)):
            self.begin()
            for number, body in found:
                if after and number != after + 1:
                    log.critical(
                        "the journal is damaged: what some batches said is lost",
                        extra={"after": after, "batches": number - after - 1},
                    )
                self.at = after = number
                yield number, body
            self.commit()

    def first_seq(self) -> int:
        """Return the number of the oldest batch in the journal; 0 if it is empty."""
        return self._journal.first

    def last_seq(self) -> int:
        """Return the number of the newest batch in the journal; 0 if it is empty."""
        return self._journal.last


def read_checkpoint(path: Path) -> tuple[dict[str, object], Arrays]:
    """Read a checkpoint; raises ``ContractError`` if it is not whole or of another version."""
    head, arrays = npz.read(path)
    digest, words = head[:64], head[64:]
    if npz.digest_of(words, arrays).encode() != digest:
        raise ContractError(f"{path}: its content does not match its digest")
    state: dict[str, object] = msgspec.json.decode(words)
    if state.get("contract") != VERSION:
        raise ContractError(f"{path}: of contract {state.get('contract')}, this is {VERSION}")
    return state, arrays


def read_lives(
    db: sqlite3.Connection,
    spec: AssetClass,
    *,
    heldout: bool,
    until: tuple[str, int] | None = None,
    most: int = -1,
) -> list[Life]:
    """Return finished lives, in the order in which they ended; up to one, if it is told.

    ``most``: the newest of them that are asked for; -1: all.
    """
    lives = []
    found = db.execute(
        "SELECT asset, life, end_ns FROM life WHERE asset_class = ? AND heldout = ? AND id <= "
        "COALESCE((SELECT id FROM life WHERE asset = ? AND life = ?), 9e18) "
        "ORDER BY id DESC LIMIT ?",
        (spec.name, heldout, *(until or (None, None)), most),
    ).fetchall()
    for asset, life, end_ns in reversed(found):
        rows = db.execute(
            "SELECT t_ns, x FROM life_row WHERE asset = ? AND life = ? ORDER BY t_ns", (asset, life)
        ).fetchall()
        if rows:
            t_ns = np.array([row[0] for row in rows], dtype=np.int64)
            X = np.frombuffer(b"".join(row[1] for row in rows)).reshape(len(rows), -1)
            y = hours_left(t_ns, end_ns, spec.cap_h)
            lives.append(Life(asset, life, X, y, row_weights(t_ns, end_ns, spec.cap_h)))
    return lives


def read_quality(db: sqlite3.Connection) -> dict[str, Quality]:
    """Return how good the alerts are, per asset class, as last noted."""
    row = db.execute("SELECT value FROM meta WHERE key = 'quality'").fetchone()
    return msgspec.json.decode(row[0], type=dict[str, Quality]) if row else {}


def open_readonly(folder: Path) -> sqlite3.Connection:
    """Open the store beside a running agent; raises ``ContractError`` if there is none."""
    path = folder / "store.db"
    if not path.exists():
        raise ContractError(
            f"{folder}: no store.db here; has the agent run with this state folder?"
        )
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)


def _within(of: Unsent) -> tuple[str, tuple[int, int]]:
    """Return the condition, with the kind as a literal: SQLite finds its index by that."""
    kind = f"kind = '{of.kind}' AND " if of.kind else ""
    return f"{kind}id > ? AND id <= ?", (of.after, of.upto)

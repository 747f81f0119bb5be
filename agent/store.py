"""The device's memory: journal, results, lives, quarantine (SQLite), and the checkpoint beside it.

One writer, the agent's main thread. State = last checkpoint + journal replayed through the same
pipeline. Two checkpoints are kept: a truncated one costs a longer replay, not the state.
"""

import logging
import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np

from agent.batch import Rejected
from agent.config import Keep
from agent.labels import Life, hours_left
from contract import VERSION, npz
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.spec import AssetClass

log = logging.getLogger("runout.store")

Result = tuple[str, str, bytes]
"""Asset, kind, JSON."""


class Store:
    """Opens, or makes, the store in a folder; a damaged database is set aside, and said.

    Attributes:
        set_aside: where a damaged database was moved to, or None.
    """

    def __init__(self, folder: Path, keep: Keep) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._keep = keep
        self.set_aside: Path | None = None
        path = folder / "store.db"
        try:
            self._db = self._open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "disk" not in str(error):
                raise  # locked, no permission: nothing that setting aside would mend
            self.set_aside = _set_aside(path)
            log.critical(
                "the store is damaged and was set aside; models go on, unread journal is in it",
                extra={"error": str(error), "moved_to": str(self.set_aside)},
            )
            self._db = self._open(path)
        self._bytes = self._scalar("SELECT COALESCE(MAX(bytes), 0) FROM journal")
        self.seq: int = max(
            self._scalar("SELECT COALESCE(MAX(seq), 0) FROM journal"), int(self.meta("seq", "0"))
        )
        self.last_result = self._scalar("SELECT COALESCE(MAX(id), 0) FROM result")
        """Number of the newest result."""
        self._new_rows: list[tuple[str, int, int, bytes]] = []

    def _open(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            durable = "FULL" if self._keep.power_loss_safe else "NORMAL"
            db.execute(f"PRAGMA synchronous={durable}")
            db.executescript(resources.files("agent").joinpath("schema.sql").read_text())
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError:
            db.close()
            raise
        if verdict != "ok":
            db.close()
            raise sqlite3.DatabaseError(verdict)
        return db

    def close(self) -> None:
        """Close; safe more than once."""
        self._db.close()

    def _scalar(self, sql: str, *args: object) -> int:
        return int(self._db.execute(sql, args).fetchone()[0])

    # -- small facts ------------------------------------------------------------------------

    def meta(self, key: str, default: str) -> str:
        """Return a small fact."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keep a small fact."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # -- one batch, one transaction ---------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction; everything until ``commit`` happens or does not."""
        self._db.execute("BEGIN IMMEDIATE")

    def journal(self, body: bytes) -> int:
        """Append a batch; returns its number."""
        self.seq += 1
        self._bytes += len(body)
        self._db.execute("INSERT INTO journal VALUES (?, ?, ?)", (self.seq, self._bytes, body))
        return self.seq

    def add_results(self, results: list[Result]) -> None:
        """Keep what was said, to be published in this order."""
        self._db.executemany("INSERT INTO result (asset, kind, body) VALUES (?, ?, ?)", results)
        self.last_result = self._scalar("SELECT MAX(id) FROM result")

    def quarantine(self, rejected: list[Rejected], most: int) -> None:
        """Keep messages that could not be used, the newest ``most`` of them."""
        self._db.executemany(
            "INSERT INTO quarantine (at_ns, topic, reason, text, payload) VALUES (?, ?, ?, ?, ?)",
            [
                (r.arrival.at_ns, r.arrival.topic, r.reason, r.text[:500], r.arrival.payload[:4096])
                for r in rejected
            ],
        )
        self._db.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT MAX(id) FROM quarantine) - ?", (most,)
        )

    def commit(self) -> None:
        """End the transaction; after this the batch may be acknowledged."""
        self._write_rows()
        self._db.execute("COMMIT")

    # -- lives ------------------------------------------------------------------------------

    def add(self, asset: str, life: int, t_ns: int, x: Floats) -> None:
        """See ``agent.pipeline.Lives``."""
        self._new_rows.append((asset, life, t_ns, x.tobytes()))

    def _write_rows(self) -> None:
        if self._new_rows:
            # A replayed journal writes what is there already: once is enough.
            self._db.executemany(
                "INSERT OR IGNORE INTO life_row VALUES (?, ?, ?, ?)", self._new_rows
            )
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
            return True  # a replayed journal
        kept = self._scalar(
            "SELECT COUNT(*) FROM life_row WHERE asset = ? AND life = ?", asset, life
        )
        if not kept:
            return False
        self.trim(asset, life, spec.max_life_rows)
        ended = self._scalar("SELECT COUNT(*) FROM life WHERE asset_class = ?", spec.name)
        heldout = bool(spec.holdout) and ended % spec.holdout == spec.holdout - 1
        self._db.execute(
            "INSERT INTO life (asset_class, asset, life, end_ns, heldout) VALUES (?, ?, ?, ?, ?)",
            (spec.name, asset, life, end_ns, heldout),
        )
        for old_asset, old_life in self._db.execute(
            "SELECT asset, life FROM life WHERE asset_class = ? AND heldout = ? "
            "ORDER BY id DESC LIMIT -1 OFFSET ?",
            (spec.name, heldout, self._keep.lives),
        ).fetchall():
            self.forget(old_asset, old_life)
        return True

    def trim(self, asset: str, life: int, most: int) -> None:
        """Keep the last ``most`` vectors of a life."""
        self._db.execute(
            "DELETE FROM life_row WHERE asset = ? AND life = ? AND t_ns <= (SELECT t_ns FROM "
            "life_row WHERE asset = ? AND life = ? ORDER BY t_ns DESC LIMIT 1 OFFSET ?)",
            (asset, life, asset, life, most),
        )

    def forget(self, asset: str, life: int) -> None:
        """See ``agent.pipeline.Lives``."""
        self._write_rows()
        self._db.execute("DELETE FROM life_row WHERE asset = ? AND life = ?", (asset, life))

    def training(self, spec: AssetClass, until: tuple[str, int] | None = None) -> list[Life]:
        """See ``agent.pipeline.Lives``."""
        self._write_rows()
        return read_lives(self._db, spec, heldout=False, until=until)

    def heldout(self, spec: AssetClass) -> list[Life]:
        """See ``agent.pipeline.Lives``."""
        return read_lives(self._db, spec, heldout=True)

    def forget_unfinished(self) -> dict[str, int]:
        """Drop the lives that nobody knows the state of; return each asset's next life number."""
        self._db.execute(
            "DELETE FROM life_row WHERE (asset, life) NOT IN (SELECT asset, life FROM life)"
        )
        return dict(self._db.execute("SELECT asset, MAX(life) + 1 FROM life GROUP BY asset"))

    def forget_other_features(self, spec: AssetClass) -> bool:
        """Drop what was kept of a class whose channels or features were others; say if it was."""
        known = self.meta(f"class/{spec.name}", "")
        if not known:
            return False
        if msgspec.json.decode(known, type=AssetClass).features_digest() == spec.features_digest():
            return False
        self.begin()
        lives = self._db.execute(
            "SELECT asset, life FROM life WHERE asset_class = ?", (spec.name,)
        ).fetchall()
        for asset, life in lives:
            self.forget(asset, life)
        self._db.execute("DELETE FROM life WHERE asset_class = ?", (spec.name,))
        self._db.execute(
            "DELETE FROM life_row WHERE (asset, life) NOT IN (SELECT asset, life FROM life)"
        )
        self._db.execute("DELETE FROM journal")
        self._db.execute("COMMIT")
        return True

    # -- publishing -------------------------------------------------------------------------

    def results_after(self, after: int, most: int) -> list[tuple[int, str, str, bytes]]:
        """Return results with a number above ``after``: number, asset, kind, JSON."""
        return self._db.execute(
            "SELECT id, asset, kind, body FROM result WHERE id > ? ORDER BY id LIMIT ?",
            (after, most),
        ).fetchall()

    def note_rollout(
        self, at_ns: int, asset_class: str, version: int, digest: str, verdict: str, reason: str
    ) -> None:
        """Write down what became of a release."""
        self._db.execute(
            "INSERT INTO rollout (at_ns, asset_class, version, digest, verdict, reason) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (at_ns, asset_class, version, digest, verdict, reason),
        )

    # -- checkpoint -------------------------------------------------------------------------

    def checkpoint(self, head: dict[str, object], arrays: Arrays) -> None:
        """Write the state as of the last commit, keep the one before, and prune what is behind."""
        newest = self.folder / "checkpoint.npz"
        if newest.exists():
            newest.replace(self.folder / "checkpoint.prev.npz")
        words = msgspec.json.encode({"contract": VERSION, "seq": self.seq, **head})
        body = npz.to_bytes(npz.digest_of(words, arrays).encode() + words, arrays)
        npz.write(newest, body, durable=self._keep.power_loss_safe)
        before = int(self.meta("checkpointed", "0"))
        self.begin()
        self.set_meta("checkpointed", str(self.seq))
        self.set_meta("seq", str(self.seq))
        self._db.execute(
            "DELETE FROM journal WHERE seq <= ? AND bytes <= ?",
            (before, self._bytes - round(self._keep.journal_mb * 1e6)),
        )
        self._db.execute(
            "DELETE FROM result WHERE id <= (SELECT MAX(id) FROM result) - ? AND id <= ?",
            (self._keep.results, int(self.meta("sent", "0"))),
        )
        self._db.execute("COMMIT")

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
        """Yield the journalled batches with a number above ``after``."""
        yield from self._db.execute(
            "SELECT seq, body FROM journal WHERE seq > ? ORDER BY seq", (after,)
        )

    def first_seq(self) -> int:
        """Return the number of the oldest batch in the journal; 0 if it is empty."""
        return self._scalar("SELECT COALESCE(MIN(seq), 0) FROM journal")


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
) -> list[Life]:
    """Return finished lives, in the order in which they ended; up to one, if it is told."""
    lives = []
    for asset, life, end_ns in db.execute(
        "SELECT asset, life, end_ns FROM life WHERE asset_class = ? AND heldout = ? AND id <= "
        "COALESCE((SELECT id FROM life WHERE asset = ? AND life = ?), 9e18) ORDER BY id",
        (spec.name, heldout, *(until or (None, None))),
    ).fetchall():
        rows = db.execute(
            "SELECT t_ns, x FROM life_row WHERE asset = ? AND life = ? ORDER BY t_ns", (asset, life)
        ).fetchall()
        if rows:
            t_ns = np.array([row[0] for row in rows], dtype=np.int64)
            X = np.frombuffer(b"".join(row[1] for row in rows)).reshape(len(rows), -1)
            lives.append(Life(asset, life, X, hours_left(t_ns, end_ns, spec.cap_h)))
    return lives


def open_readonly(folder: Path) -> sqlite3.Connection:
    """Open the store beside a running agent; raises ``ContractError`` if there is none."""
    path = folder / "store.db"
    if not path.exists():
        raise ContractError(
            f"{folder}: no store.db here; has the agent run with this state folder?"
        )
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)


def _set_aside(path: Path) -> Path:
    number = 1
    while (target := path.with_name(f"store.damaged-{number}.db")).exists():
        number += 1
    path.replace(target)
    for suffix in ("-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(target.with_name(target.name + suffix))
    return target

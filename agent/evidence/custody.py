"""The agent's side: note each alert as it is raised, and keep its evidence before it is gone.

The note is written in the transaction of the batch that raised the alert, and costs a row. What it
is recomputed from is on the disk already: the checkpoint before it, and the journal since. The
evidence is cut out of these before the next checkpoint takes their place. So a batch without an
alert costs nothing, and a kill at any instant loses nothing.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import msgspec

from agent.batch import Batch, Shot
from agent.config import AgentConfig
from agent.evidence.gather import Gatherer, Unlearnt
from agent.evidence.record import Evidence, Raised, Setting
from agent.pipeline import Outcome, Pipeline
from agent.store import Store
from contract.arrays import Arrays
from contract.errors import ContractError
from contract.report import Alert

log = logging.getLogger("runout.evidence")

SCHEMA = """
-- What alerts are recomputed from; oldest go first. Small columns stand before large ones.
CREATE TABLE IF NOT EXISTS evidence (
  id INTEGER PRIMARY KEY,
  alert TEXT NOT NULL,             -- asset/life/count
  asset TEXT NOT NULL, asset_class TEXT NOT NULL,
  seq INTEGER NOT NULL,            -- of the batch that raised it
  bytes INTEGER NOT NULL,          -- of all that is kept of it
  lost TEXT NOT NULL,              -- why it could not be gathered
  said BLOB NOT NULL,              -- the alert, JSON
  setting BLOB,                    -- what was in force, JSON; NULL: gathered, or lost
  body BLOB                        -- agent.evidence.record, once it is gathered
);
CREATE INDEX IF NOT EXISTS evidence_of ON evidence (asset);

-- The last burst of each waveform before an alert, and the first behind it.
CREATE TABLE IF NOT EXISTS evidence_burst (
  evidence INTEGER NOT NULL, wave TEXT NOT NULL, t_ns INTEGER NOT NULL, reason INTEGER NOT NULL,
  features BLOB NOT NULL,          -- float64
  samples BLOB NOT NULL,           -- float32
  UNIQUE (evidence, wave, t_ns)
);
"""

MOST_ROWS = 2000
"""Alerts of which anything is kept."""
AT_ONCE = 64
"""Alerts whose evidence is gathered in one go: the others wait for the next checkpoint."""
BURST_BYTES = 8_000_000
"""Samples of newest bursts that are held in memory, for the alerts to come."""


class Custody:
    """Keeps evidence in the store; belongs to the thread that owns it.

    Args:
        store: of the agent.
        config: of the agent.
        evidence_mb: kept in the store; the oldest goes first; 0: none.
    """

    def __init__(self, store: Store, config: AgentConfig, *, evidence_mb: float = 32.0) -> None:
        self._store = store
        self._config = config
        self._database = store.database
        store.database.db.executescript(SCHEMA)
        self._most = round(evidence_mb * 1e6)
        self._waves = {spec.name: spec.waveforms for spec in config.asset_class}
        self._settings: dict[str, bytes] = {}
        self._bursts: OrderedDict[tuple[str, int], Shot] = OrderedDict()
        self._burst_bytes = 0
        self._awaited: dict[tuple[str, int], tuple[int, float]] = {}
        """Asset and waveform of an alert whose first burst behind it has not come: row, time."""
        self._bytes, self._waiting, self._last = (
            int(v)
            for v in self._database.rows(
                "SELECT COALESCE(SUM(bytes), 0), COUNT(setting), COALESCE(MAX(id), 0) FROM evidence"
            )[0]
        )

    def begin(self, pipeline: Pipeline, since: int, *, empty: bool) -> None:
        """Take note of what is in force from here on.

        Args:
            pipeline: its state was restored.
            since: number of the batch behind which that state follows from the journal.
            empty: whether it was empty at that place; else there is a checkpoint of it.
        """
        for spec in self._config.asset_class:
            setting = Setting.of(self._config, spec, pipeline.first_life, since, empty=empty)
            self._settings[spec.name] = msgspec.json.encode(setting)

    # -- as batches come ------------------------------------------------------------------------

    def note(self, batch: Batch, outcomes: Collection[Outcome], pipeline: Pipeline) -> None:
        """Note what a batch raised, in its transaction; it is in the journal already."""
        if not self._most:
            return
        raised = [o for o in outcomes if isinstance(o, Alert) and o.state == "raised"]
        for alert in raised:
            self._raise(alert, pipeline.asset(alert.asset).group.spec.name, batch)
        if batch.shots:
            self._see(batch.shots, pipeline)
        if raised or self._bytes > self._most:
            self._bound()

    def _raise(self, alert: Alert, asset_class: str, batch: Batch) -> None:
        said, setting = msgspec.json.encode(alert), self._settings[asset_class]
        size = len(said) + len(setting)
        self._last += 1
        self._database.do(
            "INSERT INTO evidence (id, alert, asset, asset_class, seq, bytes, lost, said, setting) "
            "VALUES (?, ?, ?, ?, ?, ?, '', ?, ?)",
            (self._last, alert.id, alert.asset, asset_class, self._store.at, size, said, setting),
        )
        self._bytes += size
        self._waiting += 1
        for wave, spec in enumerate(self._waves[asset_class]):
            key = alert.asset, wave
            own = [s for s in batch.shots if (s.asset, s.wave) == key and _before(s, alert.t)]
            shot = own[-1] if own else self._bursts.get(key)
            if shot is not None and _before(shot, alert.t):
                self._keep_burst(self._last, spec.name, shot)
            self._awaited[key] = self._last, alert.t

    def _see(self, shots: list[Shot], pipeline: Pipeline) -> None:
        for shot in shots:
            key = shot.asset, shot.wave
            if key in self._awaited and not _before(shot, self._awaited[key][1]):
                row, _ = self._awaited.pop(key)
                name = pipeline.asset(shot.asset).group.spec.waveforms[shot.wave].name
                self._keep_burst(row, name, shot)
            before = self._bursts.pop(key, None)
            if before is not None:
                self._burst_bytes -= before.samples.nbytes
            # A copy: the samples may be a view of a message that is larger.
            self._bursts[key] = shot._replace(samples=shot.samples.copy())
            self._burst_bytes += shot.samples.nbytes
        while self._burst_bytes > BURST_BYTES:
            _, oldest = self._bursts.popitem(last=False)
            self._burst_bytes -= oldest.samples.nbytes

    def _keep_burst(self, row: int, wave: str, shot: Shot) -> None:
        if not len(shot.samples):
            return
        there = "SELECT COUNT(*) FROM evidence WHERE id = ?"
        if not self._database.scalar(there, row):
            return  # it was among the oldest, and is forgotten
        features = b"" if shot.features is None else shot.features.tobytes()
        samples = shot.samples.tobytes()
        self._database.do(
            "INSERT OR REPLACE INTO evidence_burst VALUES (?, ?, ?, ?, ?, ?)",
            (row, wave, shot.t_ns, shot.reason, features, samples),
        )
        self._grow(row, len(features) + len(samples))

    def _grow(self, row: int, more: int) -> None:
        self._database.do("UPDATE evidence SET bytes = bytes + ? WHERE id = ?", (more, row))
        self._bytes += more

    def _bound(self) -> None:
        """Forget the oldest, so that what is kept stays within its bounds."""
        kept = self._database.rows(
            "SELECT id, bytes, setting IS NOT NULL FROM evidence ORDER BY id"
        )
        left = len(kept)
        for row, size, waits in kept[:-1]:
            if self._bytes <= self._most and left <= MOST_ROWS:
                break
            self._database.do("DELETE FROM evidence WHERE id = ?", (row,))
            self._database.do("DELETE FROM evidence_burst WHERE evidence = ?", (row,))
            self._bytes -= size
            self._waiting -= waits
            left -= 1

    # -- before a checkpoint --------------------------------------------------------------------

    def gather(self, pipeline: Pipeline | None) -> None:
        """Keep the evidence of the alerts since the last checkpoint, before the next is written.

        ``pipeline``: with the state behind these alerts; None: there is none any more.
        """
        if not self._waiting:
            return

        def unlearnt(name: str, arrays: Arrays, release: str) -> bool:
            return pipeline is not None and _unlearnt(pipeline, name, arrays, release)

        waiting = self._database.rows(
            "SELECT id, alert, seq, said, setting FROM evidence WHERE setting IS NOT NULL "
            "ORDER BY id LIMIT ?",
            AT_ONCE,
        )
        found = self._found(waiting, unlearnt)
        left = self._most
        self._store.begin()
        # The newest first: they are to be kept if there is not room for all.
        for (row, alert, _, _, setting), one in reversed(list(zip(waiting, found, strict=True))):
            body, lost = None, "more alerts at once than keep.evidence_mb has room for"
            if isinstance(one, ContractError):
                lost = str(one)
            elif left > 0:
                body, lost = one.to_bytes(), ""
                left -= len(body)
            if body is not None and left < 0:
                lost = f"{len(body)} bytes: more than keep.evidence_mb has room for"
                body = None
            if lost:
                log.warning(
                    "evidence not kept",
                    extra={"alert": alert, "reason": lost},
                )
            self._database.do(
                "UPDATE evidence SET body = ?, lost = ?, setting = NULL WHERE id = ?",
                (body, lost, row),
            )
            self._grow(row, (0 if body is None else len(body)) - len(setting))
            self._waiting -= 1
        self._bound()
        self._store.commit()

    def _found(self, waiting: list[Any], unlearnt: Unlearnt) -> list[Evidence | ContractError]:
        raised: list[Raised] = []
        unread: list[int] = []
        for i, (_, _, seq, said, setting) in enumerate(waiting):
            try:
                alert = msgspec.json.decode(said, type=Alert)
                raised.append(Raised(alert, seq, msgspec.json.decode(setting, type=Setting)))
            except msgspec.MsgspecError:
                unread.append(i)
        found = Gatherer(self._database.db, self._store.folder, unlearnt).gather_all(raised)
        for i in unread:
            found.insert(i, ContractError("it was raised by another version of this program"))
        return found


def _before(shot: Shot, t: float) -> bool:
    return shot.t_ns / 1e9 <= t


def _unlearnt(pipeline: Pipeline, name: str, arrays: Arrays, release: str) -> bool:
    """Return whether nothing that judges has changed between a state and now.

    Sums only grow: where their counts are the same, so are they.
    """
    group = pipeline.groups.get(name)
    if group is None:
        return False
    live = group.release
    if live is not None and live.digest == release and live.health is not None:
        return True  # its own limits judge, whatever is learnt beside it
    now = group.cohort.arrays()
    return all((arrays[f"cohort/{key}"] == now[key]).all() for key in ("rows", "scores"))

"""Gather the evidence of alerts from a checkpoint and the journal, while these reach back to them.

It only reads: the agent does so before it writes its next checkpoint, and ``runout-agent explain``
beside a running agent, where the agent has not come to it yet.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.batch import Batch, Rows
from agent.evidence.record import Before, Evidence, Head, Raised
from agent.journal import JournalReader
from agent.store import read_checkpoint
from contract.arrays import Arrays
from contract.errors import ContractError
from contract.spec import AssetClass

ROWS_BEFORE = 512
"""Readings kept from before the state, for people to look at."""
_LOOK_BACK, _LOOK_BACK_BYTES = 512, 4_000_000
"""Batches, and bytes of them, in which those are looked for."""

Unlearnt = Callable[[str, Arrays, str], bool]
"""Class, its arrays in a state, digest of the release that judged from there to the alert, or
empty: has what judges stayed the same since?"""


class State(NamedTuple):
    """A checkpoint.

    Attributes:
        seq: number of the last batch in it.
        head: its words.
        arrays: all of them.
    """

    seq: int
    head: dict[str, Any]
    arrays: Arrays


def states(folder: Path) -> Iterator[State]:
    """Yield the checkpoints that can be read, newest first."""
    for name in ("checkpoint.npz", "checkpoint.prev.npz"):
        path = folder / name
        if path.exists():
            try:
                head, arrays = read_checkpoint(path)
                seq = int(str(head.pop("seq")))
                head.pop("contract")  # it was checked
                yield State(seq, head, arrays)
            except (ContractError, KeyError, ValueError):  # the agent says what is wrong with it
                continue


def never(_name: str, _arrays: Arrays, _release: str) -> bool:
    """Take it that others were learnt from: then all assets of the class are gathered."""
    return False


class _Plan:
    """What the evidence of one alert is to be made of."""

    def __init__(
        self,
        raised: Raised,
        base: int,
        state: State | None,
        last: int,
        lives: tuple[tuple[str, int], ...] | None,
        *,
        alone: bool,
    ) -> None:
        self.raised = raised
        self.base = base
        self.state = state
        self.last = last
        self.lives = lives
        self.alone = alone
        self.batches: list[tuple[int, bytes]] = []

    def wanted(self, asset: str) -> bool:
        """Return whether an asset is part of it."""
        return asset == self.raised.alert.asset if self.alone else self.raised.setting.has(asset)


class Gatherer:
    """Looks for the evidence of several alerts, reading each checkpoint once.

    Args:
        db: the store.
        folder: that it lies in.
        unlearnt: says whether an asset can be judged without the others of its class.
    """

    def __init__(self, db: sqlite3.Connection, folder: Path, unlearnt: Unlearnt = never) -> None:
        self._db = db
        self._journalled = JournalReader(folder)
        self._unread = states(folder)
        self._states: list[State] = []
        self._unlearnt = unlearnt
        self._events: dict[int, list[tuple[int, Batch]]] = {}
        """By base, the batches behind it that hold more than rows and bursts; without these."""
        self._earlier: dict[int, dict[str, list[Rows]]] = {}
        """By base, the readings before it."""

    def gather(self, raised: Raised) -> Evidence:
        """Return the evidence of one alert; raises ``ContractError`` where it is not there."""
        (found,) = self.gather_all([raised])
        if isinstance(found, ContractError):
            raise found
        return found

    def gather_all(self, raised: list[Raised]) -> list[Evidence | ContractError]:
        """Return the evidence of alerts, or why there is none; the journal is read twice in all."""
        plans: dict[int, _Plan] = {}
        found: list[Evidence | ContractError] = []
        for i, one in enumerate(raised):
            try:
                plans[i] = self._plan(one)
            except ContractError as error:
                found.append(error)
                continue
            found.append(ContractError("its batches cannot be read"))
        for base in {plan.base for plan in plans.values()}:
            here = {i: plan for i, plan in plans.items() if plan.base == base}
            try:
                self._take_batches(base, list(here.values()))
                for i, plan in here.items():
                    found[i] = self._evidence(plan)
            except ContractError as error:
                found = [error if i in here else one for i, one in enumerate(found)]
        return found

    def _plan(self, raised: Raised) -> _Plan:
        base, state = self._base(raised)
        spec, asset = raised.setting.asset_class, raised.alert.asset
        last = raised.seq or self._newest()
        turns = [batch for seq, batch in self._turns(base) if seq <= last]
        ended = {
            event.asset
            for batch in turns
            for event in batch.events
            if event.event == "failed" and raised.setting.has(event.asset)
        }
        swapped = any(b.swap is not None and b.swap.asset_class == spec.name for b in turns)
        release = ""
        if state is not None and not swapped:
            _, release = state.head["released"].get(spec.name, (0, ""))
        alone = (
            state is not None
            and raised.seq > 0
            and not ended - {asset}
            and self._unlearnt(spec.name, _below(state.arrays, spec.name), release)
        )
        lives = self._lives(spec) if ended or swapped else None
        return _Plan(raised, base, state, last, lives, alone=alone)

    def _take_batches(self, base: int, plans: list[_Plan]) -> None:
        for seq, body in self._journal(base, max(plan.last for plan in plans)):
            batch = Batch.decode(body)
            cut: dict[tuple[str, str], bytes] = {}
            for plan in plans:
                if seq > plan.last:
                    continue
                name = plan.raised.setting.asset_class.name
                # What two alerts have in common is cut out, and held, once.
                key = name, plan.raised.alert.asset if plan.alone else ""
                if key not in cut:
                    part = _only(batch, plan.wanted, name)
                    # Of bursts as the journal has them: samples, or features alone.
                    samples = all(shot.features is None for shot in part.shots)
                    cut[key] = part.encode(waveforms=samples) if _says_something(part) else b""
                if cut[key]:
                    plan.batches.append((seq, cut[key]))

    def _evidence(self, plan: _Plan) -> Evidence:
        raised, state = plan.raised, plan.state
        head, arrays = (None, {}) if state is None else _slice(state, plan)
        words = Head(
            raised.alert, raised.seq, plan.base, raised.setting, head, plan.alone, plan.lives
        )
        spec = raised.setting.asset_class
        return Evidence(
            words, arrays, plan.batches, self._before(plan.base, spec, raised.alert.asset)
        )

    def _base(self, raised: Raised) -> tuple[int, State | None]:
        """Return the newest state before an alert that the journal reaches back to."""
        setting = raised.setting
        name, digest = setting.asset_class.name, setting.asset_class.digest()
        before = raised.seq or self._newest()
        first = self._journalled.first
        choices: list[tuple[int, State | None]] = []
        for state in self._newest_first():
            if setting.since <= state.seq < before and 0 < first <= state.seq + 1:
                # A class that was configured otherwise began anew with this state.
                alike = state.head["digests"].get(name) == digest
                choices.append((state.seq, state if alike else None))
                if raised.seq:
                    break
        if setting.empty and 0 < first <= setting.since + 1:
            choices.append((setting.since, None))
        if choices:
            # Of a batch that is not known, the oldest: it may lie before the newest.
            return choices[0] if raised.seq else choices[-1]
        raise ContractError(
            f"alert {raised.alert.id}: neither its evidence nor a state before it is kept any more "
            "(keep.evidence_mb, keep.journal_mb)"
        )

    def _newest_first(self) -> Iterator[State]:
        """Yield the checkpoints, each read once, and no more of them than are looked at."""
        yield from self._states
        for state in self._unread:
            self._states.append(state)
            yield state

    def _newest(self) -> int:
        return self._journalled.last

    def _journal(self, after: int, last: int) -> Iterator[tuple[int, bytes]]:
        for seq, body in self._journalled.read(after, last):
            if seq != after + 1:
                raise ContractError(f"the journal is damaged behind batch {after}")
            yield seq, body
            after = seq

    def _turns(self, base: int) -> list[tuple[int, Batch]]:
        if base not in self._events:
            found = []
            for seq, body in self._journal(base, self._newest()):
                batch = Batch.decode(body)
                if batch.events or batch.swap:
                    found.append((seq, batch._replace(rows=[], shots=[])))
            self._events[base] = found
        return self._events[base]

    def _lives(self, spec: AssetClass) -> tuple[tuple[str, int], ...]:
        rows = self._db.execute(
            "SELECT asset, life FROM life WHERE asset_class = ? ORDER BY id", (spec.name,)
        )
        return tuple((str(asset), int(life)) for asset, life in rows)

    def _before(self, base: int, spec: AssetClass, asset: str) -> Before:
        """Return the last readings of an asset before a place in the journal."""
        if base not in self._earlier:
            self._earlier[base] = self._look_back(base)
        width = len(spec.columns)
        parts = [r for r in self._earlier[base].get(asset, ()) if r.values.shape[1] == width]
        if not parts:
            return Before(np.empty(0, dtype=np.int64), np.empty((0, width)))
        t_ns = np.concatenate([part.t_ns for part in parts])
        values = np.concatenate([part.values for part in parts])
        return Before(t_ns[-ROWS_BEFORE:], values[-ROWS_BEFORE:])

    def _look_back(self, base: int) -> dict[str, list[Rows]]:
        found: dict[str, list[Rows]] = {}
        newest: deque[bytes] = deque()
        size = 0
        for _, body in self._journalled.read(max(base - _LOOK_BACK, 0), base):
            newest.append(body)
            size += len(body)
            while size > _LOOK_BACK_BYTES:
                size -= len(newest.popleft())
        for body in newest:
            for part in Batch.decode(body).rows:
                found.setdefault(part.asset, []).append(part)
        return found


def _below(arrays: Arrays, name: str) -> Arrays:
    prefix = f"class/{name}/"
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _only(batch: Batch, wanted: Callable[[str], bool], asset_class: str) -> Batch:
    part = batch.only(wanted, (asset_class,))
    if part.facts is None:
        return part
    return part._replace(facts={name: fact for name, fact in part.facts.items() if wanted(name)})


def _says_something(part: Batch) -> bool:
    return any(
        bool(value) if isinstance(value, list) else value is not None
        for name, value in zip(part._fields, part, strict=True)
        if name != "rejected"
    )


def _slice(state: State, plan: _Plan) -> tuple[dict[str, Any], Arrays]:
    """Return what of a state is of one class, and of the assets that are wanted."""
    spec, head, wanted = plan.raised.setting.asset_class, state.head, plan.wanted
    name = spec.name
    members = head["assets"].get(name, [])
    arrays = {f"class/{name}/{key}": array for key, array in _below(state.arrays, name).items()}
    if plan.alone:
        at = [i for i, member in enumerate(members) if wanted(member)]
        members = [members[i] for i in at]
        for key in [key for key in arrays if key.startswith(f"class/{name}/asset/")]:
            array = arrays.pop(key)
            if at:
                arrays[key] = array[at]
    own = {
        "assets": {name: members},
        "digests": {name: spec.digest()},
        "released": {key: one for key, one in head["released"].items() if key == name},
    }
    by_asset: dict[str, Any] = {
        key: {asset: value for asset, value in head[key].items() if wanted(asset)}
        for key in ("facts", "first_life")
        if key in head
    }
    return {**head, **own, **by_asset}, arrays

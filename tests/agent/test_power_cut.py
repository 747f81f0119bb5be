"""What a power cut takes is worked out again: from a database as last flushed, and the journal."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.batch import Batch, Event, Rejected, Rows
from agent.config import AgentConfig, Keep, Node
from agent.explain import explain
from agent.intake import Arrival
from agent.journal import JournalReader, records, segments
from contract.report import Alert

Open = Callable[..., Any]
Configure = Callable[..., AgentConfig]

START_NS = 1_199_145_600_000_000_000
HOUR_NS = 3_600_000_000_000
LIFE, PIECE = 60, 6


def batches() -> list[Batch]:
    """Return five lives of two pumps in pieces, with what people say of their alerts."""
    rng = np.random.default_rng(5)
    found = []
    for number in range(5):
        wear = np.linspace(0.0, 1.0, LIFE)[:, None] ** 3 * [4.0, 20.0]
        values = {n: rng.normal(size=(LIFE, 2)) * 0.1 + [5.0, 40.0] + wear for n in ("a", "b")}
        for at in range(0, LIFE, PIECE):
            hours = number * LIFE + np.arange(at + 1, at + PIECE + 1)
            t_ns = START_NS + HOUR_NS * hours
            rows = [
                Rows(n, t_ns, v[at : at + PIECE], np.arange(PIECE), np.ones(PIECE, dtype=np.bool_))
                for n, v in values.items()
            ]
            end = int(t_ns[-1])
            events = []
            if at == LIFE - PIECE:
                said = json.dumps({"verdict": "confirmed", "t": end / 1e9}).encode()
                events = [Event(PIECE, "a", end, "verdict", said), Event(PIECE, "a", end, "failed")]
            found.append(Batch(rows, events))
    return found


class Disk:
    """Keeps a copy of the database as it was at each flush: what a power cut is sure to leave."""

    def __init__(self, device: Any, patch: pytest.MonkeyPatch) -> None:
        self._state: Path = device.config.state
        self._flushed = self._state.with_name(f"{self._state.name}-flushed")
        database = device.engine.store.database
        flush = database.sync

        def sync() -> None:
            flush()
            self._copy()

        patch.setattr(database, "sync", sync)
        self._copy()

    def _copy(self) -> None:
        self._flushed.mkdir(exist_ok=True)
        for name in ("store.db", "store.db-wal"):
            shutil.copy(self._state / name, self._flushed / name)

    def cut(self, folder: Path) -> None:
        """Leave in a folder what a power cut at this instant would."""
        shutil.copytree(self._state, folder)
        (folder / "store.db-shm").unlink()
        for path in self._flushed.iterdir():
            shutil.copy(path, folder / path.name)


def tables(config: AgentConfig) -> dict[str, list[Any]]:
    queries = {
        "result": "SELECT id, asset, kind, body, seq FROM result ORDER BY id",
        "life": "SELECT * FROM life ORDER BY id",
        "life_row": "SELECT * FROM life_row ORDER BY asset, life, t_ns",
        "verdict": "SELECT * FROM verdict ORDER BY id",
        "evidence": "SELECT id, alert, seq, said, lost FROM evidence ORDER BY id",
        "quarantine": "SELECT topic, reason FROM quarantine",
    }
    with closing(sqlite3.connect(config.state / "store.db")) as db:
        return {name: db.execute(query).fetchall() for name, query in queries.items()}


def live(node: Any, begin: int, end: int, every: int = 13) -> None:
    """Process batches, with a checkpoint behind each 13th and a useless message in the third."""
    for number, batch in enumerate(batches()[begin:end], begin + 1):
        odd = Rejected(Arrival("odd", b"?", 0, 0), "json", "no JSON")
        node.engine.process(batch, [odd] if number == 3 else [])
        if number % every == 0:
            node.engine.checkpoint()


@pytest.mark.parametrize("cut", [1, 2, 5, 12, 13, 14, 20, 26, 30, 39, 45, 49])
def test_a_power_cut_changes_nothing_of_what_comes_of_the_batches(
    cut: int,
    configure: Configure,
    device: Open,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    steady = device(configure("steady", keep=Keep(power_loss_safe=True)))
    live(steady, 0, 50)
    expected, state = tables(steady.config), steady.state()

    config = configure("node", keep=Keep(power_loss_safe=True))
    node = device(config)
    disk = Disk(node, monkeypatch)
    live(node, 0, cut)
    said = len(tables(config)["result"])
    disk.cut(tmp_path / "left")
    node.kill()
    config = msgspec.structs.replace(
        config, node=Node("steady", config.node.site, str(tmp_path / "left"))
    )
    assert len(tables(config)["result"]) <= said
    again = device(config)
    assert len(tables(config)["result"]) == said, "what was said before the cut is there again"
    live(again, cut, 50)
    assert again.state() == state
    found = tables(config)
    assert {name: found[name] == rows for name, rows in expected.items()} == dict.fromkeys(
        expected, True
    )
    assert sum(kind == "alert" for _, _, kind, *_ in found["result"]) > 5
    alert = [
        msgspec.json.decode(b, type=Alert) for _, _, k, b, _ in found["result"] if k == "alert"
    ]
    last = next(one for one in reversed(alert) if one.state == "raised")
    assert explain(config, last.id).account.same is True


def test_a_journal_that_ends_before_what_was_said_is_said_and_numbers_go_on(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(keep=Keep(power_loss_safe=False))
    node = device(config)
    live(node, 0, 20)
    last = node.engine.store.last_result
    node.kill()
    newest = segments(config.state / "journal")[-1]
    *_, last_batch = records(newest.path.read_bytes(), newest.first)
    os.truncate(newest.path, last_batch.end - 50)

    again = device(config)
    assert "the journal ends before what was said" in caplog.text
    assert again.engine.store.last_result == last
    live(again, 20, 40)
    assert again.engine.store.last_result > last
    lives = [row[2] for row in tables(config)["life"]]
    assert lives, "lives went on"
    state = again.state()
    again.kill()
    caplog.clear()
    assert device(config).state() == state
    assert not [r for r in caplog.records if r.levelname in {"ERROR", "CRITICAL"}]


def test_a_journal_of_before_is_taken_out_of_the_database(
    configure: Configure, device: Open
) -> None:
    config = configure(keep=Keep(power_loss_safe=False))
    node = device(config)
    live(node, 0, 30)
    expected, state = tables(config), node.state()
    node.kill()
    batches = list(JournalReader(config.state).read())
    shutil.rmtree(config.state / "journal")
    with closing(sqlite3.connect(config.state / "store.db")) as db, db:
        db.execute("CREATE TABLE journal (seq INTEGER PRIMARY KEY, bytes INTEGER, body BLOB)")
        db.executemany("INSERT INTO journal VALUES (?, 0, ?)", batches)
        db.execute("UPDATE meta SET value = '26' WHERE key = 'seq'")  # as of a checkpoint
        db.execute("UPDATE result SET seq = 0")
    again = device(config)
    assert again.state() == state
    found = tables(config)
    assert [row[:4] for row in found["result"]] == [row[:4] for row in expected["result"]]
    assert found["verdict"] == expected["verdict"]
    assert list(JournalReader(config.state).read()) == batches


def test_a_lost_database_is_filled_again_from_the_journal(
    configure: Configure, device: Open
) -> None:
    config = configure(keep=Keep(power_loss_safe=False))
    node = device(config)
    live(node, 0, 30, every=1000)
    expected, state = tables(config), node.state()
    node.kill()
    for path in config.state.glob("store.db*"):
        path.unlink()
    again = device(config)
    found = tables(config)
    assert again.state() == state
    for name in ("result", "life", "life_row", "verdict"):
        assert found[name] == expected[name], name

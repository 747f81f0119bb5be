"""An agent that is killed again and again ends where one ends that never was."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.store import read_checkpoint
from simulator.recordings.cmapss import CHANNELS, load

START_S = 1_199_145_600
ENGINES = 6
KILLS = 3


@pytest.fixture(scope="module")
def messages() -> list[tuple[str, str, bytes]]:
    """Return asset, leaf and payload of real engines' lives, interleaved cycle by cycle."""
    root = Path(__file__).parents[2]
    folder = (root / os.environ.get("RUNOUT_DATA", "../shared/data") / "cmapss_fd001").resolve()
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is absent, and CI must run these tests: set RUNOUT_DATA")
        pytest.skip(f"{folder} is absent: set RUNOUT_DATA to the recordings")
    # The shortest lives: most of what is to be got right happens when one ends.
    engines = sorted(load(folder, "FD001", "train"), key=len)[:ENGINES]
    made = []
    for cycle in range(max(len(engine) for engine in engines)):
        t = START_S + 3600 * (cycle + 1)
        for engine in engines:
            asset = f"engine-{engine.unit:03d}"
            if cycle < len(engine):
                row = dict(zip(CHANNELS, engine.values[cycle].tolist(), strict=True))
                made.append((asset, "readings", json.dumps({"t": t, "v": row}).encode()))
            if cycle == len(engine) - 1:
                made.append((asset, "event", json.dumps({"event": "failed", "t": t}).encode()))
    return made


def table(state: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(state / "store.db")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def parts(messages: list[Any], count: int) -> Iterator[list[Any]]:
    size = -(-len(messages) // count)
    for at in range(0, len(messages), size):
        yield messages[at : at + size]


@pytest.mark.data
def test_an_agent_killed_in_mid_replay_ends_bit_for_bit_as_one_that_never_was(
    broker: Any,
    connect: Callable[..., Any],
    agent: Callable[..., Any],
    messages: list[tuple[str, str, bytes]],
    once: Callable[[Any], dict[str, Any]],
) -> None:
    plant = connect(broker)
    steady, killed = (
        agent(node, "agent.turbofan.toml", "keep.checkpoint_s=0.5").start()
        for node in ("steady", "killed")
    )
    for node in ("steady", "killed"):
        plant.wait_for(node, lambda status: status.online)
    # Longer by one than there are kills, so that each falls into the middle of something.
    for number, part in enumerate(parts(messages, KILLS + 1)):
        before = plant.statuses["killed"].readings
        for asset, leaf, payload in part:
            for node in ("steady", "killed"):
                plant.send(node, asset, leaf, payload)
        if number < KILLS:
            plant.wait_for("killed", lambda s, n=before: s.online and s.readings > n)
            killed.kill()
            plant.wait_for("killed", lambda status: not status.online)
            killed.start()
            plant.wait_for("killed", lambda s, n=before: s.online and s.readings > n)
    rows = sum(leaf == "readings" for _, leaf, _ in messages)
    for node in ("steady", "killed"):
        plant.wait_for(
            node, lambda s: s.online and (s.readings, s.events, s.lives) == (rows, ENGINES, ENGINES)
        )
    assert "state restored" in killed.said
    assert steady.end(signal.SIGTERM) == 0
    assert killed.end(signal.SIGTERM) == 0

    for query in (
        "SELECT asset, kind, body FROM result ORDER BY id",
        "SELECT * FROM life ORDER BY id",
        "SELECT * FROM life_row ORDER BY asset, life, t_ns",
    ):
        expected = table(steady.state, query)
        assert len(expected) >= ENGINES
        assert table(killed.state, query) == expected

    expected_head, expected_arrays = read_checkpoint(steady.state / "checkpoint.npz")
    head, arrays = read_checkpoint(killed.state / "checkpoint.npz")
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in expected_arrays.items()
    }
    # What came again is counted as such, and is all that tells the two apart.
    assert once(head.pop("counts")) == once(expected_head.pop("counts"))
    for one in (head, expected_head):
        one.pop("seq")
        one.pop("clock_ns")  # of the device, when the newest message came: each to its own
    assert head == expected_head

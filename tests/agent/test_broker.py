"""The broker comes late, goes and comes back; the agent waits, and loses nothing acknowledged."""

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

Connect = Callable[..., Any]
Make = Callable[..., Any]

START_S = 1_199_145_600


def send_hours(plant: Any, begin: int, end: int) -> None:
    """Publish hourly readings of one pump."""
    for hour in range(begin, end):
        row = {"vibration": 5.0 + hour % 7 / 10, "temperature": 40.0 + hour % 5 / 10}
        payload = json.dumps({"t": START_S + 3600 * hour, "v": row}).encode()
        plant.send("node", "pump-1", "readings", payload)


def test_an_agent_started_without_a_broker_connects_when_it_comes(
    stopped_broker: Any, connect: Connect, agent: Make
) -> None:
    process = agent("node").start()
    process.wait_for("broker unreachable")
    stopped_broker.start()
    plant = connect(stopped_broker)
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 5)
    plant.wait_for("node", lambda status: status.readings == 5)
    assert process.end(signal.SIGTERM) == 0


def test_an_agent_without_a_broker_stops_cleanly(stopped_broker: Any, agent: Make) -> None:
    del stopped_broker  # never started
    process = agent("node").start()
    process.wait_for("broker unreachable")
    assert process.end(signal.SIGTERM) == 0
    assert (process.state / "checkpoint.npz").exists()


def test_a_broker_restarted_in_mid_stream_costs_nothing_that_it_had_acknowledged(
    broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 300)
    plant.settle()
    broker.stop()
    process.wait_for("connection lost")
    send_hours(plant, 300, 400)  # kept by the publisher until somebody is there again
    broker.start()
    send_hours(plant, 400, 500)
    plant.wait_for("node", lambda s: s.online and s.readings == 500)
    status = plant.statuses["node"]
    assert (status.rejected, status.late) == (0, 0)
    # What waited meanwhile follows at a bounded rate, marked as replayed.
    plant.wait(lambda: len({json.loads(body)["t"] for _, body in list(plant.heard)}) == 500)
    assert process.end(signal.SIGTERM) == 0
    # One report for each reading, and the broker has said of every one that it took it on.
    with closing(sqlite3.connect(process.state / "store.db")) as db:
        results, newest = db.execute("SELECT COUNT(*), MAX(id) FROM result").fetchone()
        (sent,) = db.execute("SELECT value FROM meta WHERE key = 'sent'").fetchone()
    assert (results, int(sent)) == (500, newest)


def test_readings_sent_while_the_agent_is_away_are_there_when_it_returns(
    broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 10)
    plant.wait_for("node", lambda status: status.readings == 10)
    assert process.end(signal.SIGTERM) == 0
    plant.wait_for("node", lambda status: not status.online)
    send_hours(plant, 10, 60)
    plant.settle()
    process.start()
    plant.wait_for("node", lambda s: s.online and s.readings == 60)
    assert plant.statuses["node"].repeated == 0
    assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_an_agent_that_is_asked_to_stop_says_that_it_is_offline_and_ends_well(
    number: signal.Signals, broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 20)
    plant.wait_for("node", lambda status: status.readings == 20)
    assert process.end(number) == 0
    assert "Traceback" not in process.said
    # Its own last word, with its counts, and not the will that the broker would have spoken.
    other = connect(broker)
    other.wait_for("node", lambda status: not status.online)
    assert other.statuses["node"].readings == 20


def test_a_killed_agent_is_reported_gone_by_its_last_will(
    broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    process.kill()
    plant.wait_for("node", lambda status: not status.online)


def test_an_unreachable_server_of_the_fleet_does_not_matter_to_the_agent(
    broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node", "agent.minimal.toml", "federation.superlink=127.0.0.1:9").start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 50)
    plant.wait_for("node", lambda status: status.readings == 50)
    plant.wait(lambda: len(plant.heard) >= 50)
    assert process.end(signal.SIGTERM) == 0

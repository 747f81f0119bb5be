"""Evidently's report of a machine, from a fleet's table with what its device showed."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contract import topics
from contract.errors import RunoutError
from contract.picture import Features
from server.cli import main
from server.config import load
from server.drift_report import THRESHOLD, windows
from server.fleet.config import FleetConfig
from server.fleet.reports import read
from server.fleet.store import Store, open_engine
from tests.agent.conftest import (
    SITE,
    AgentProcess,
    Broker,
    agent,
    broker,
    stopped_broker,
    wait_until,
)
from tests.server.fleet import FleetProcess, T, health

__all__ = ["agent", "broker", "stopped_broker"]

HOUR_S = 3600.0
NAMES = ("flow mean_16", "vibration mean_16", "vibration std_16")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Return what makes a server's configuration, whose table knows hours of pump-1."""

    def table(hours: int, moved: float = 0.0) -> Path:
        state = tmp_path / "server"
        state.mkdir()
        config = tmp_path / "server.toml"
        config.write_text(f'state = "{state}"\n')
        engine = open_engine(f"sqlite:///{state / 'fleet.db'}")
        store = Store(engine, FleetConfig())
        # Each point leans on the one before, as a machine's do.
        rng = np.random.default_rng(5)
        x = np.zeros((hours, 3))
        for n in range(1, hours):
            x[n] = 0.8 * x[n - 1] + rng.standard_normal(3)
        x[-7 * 24 :, 1] += moved
        said = [
            (
                topics.asset_topic("s", "n", "pump-1", "health"),
                msgspec.json.encode(health("pump-1")),
            )
        ]
        for n in range(hours):
            one = Features("pump-1", T + HOUR_S * n, NAMES, (*x[n, :2].tolist(), None))
            said.append((topics.picture_topic("s", "n", "pump-1"), msgspec.json.encode(one)))
        found = [read(topic, body) for topic, body in said]
        store.write([one for one in found if one is not None])
        engine.dispose()
        return config

    return table


def test_a_feature_that_moved_is_named_and_one_that_did_not_is_not(
    table: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = table(37 * 24, moved=4.0)
    page, told = tmp_path / "out" / "drift.html", tmp_path / "out" / "drift.json"
    words = ["evidently", "s/n/pump-1", "--out", str(page), "--json", str(told)]
    with network() as asked:
        assert main([*words, "--config", str(config)]) == 0
        assert asked == []
        socket.getaddrinfo("127.0.0.1", 80)
        assert len(asked) == 1  # it would have been seen
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "s/n/pump-1: 168 points now, 720 before"
    assert said[1].split()[1:] == ["drifted", "vibration", "mean_16"]
    assert said[2].split()[1:] == ["flow", "mean_16"]
    assert said[3] == "too few points of vibration std_16"
    values = distances(told)
    assert values["vibration mean_16"] > 1.0
    assert values["flow mean_16"] < 0.5
    text = page.read_text()
    assert "vibration mean_16" in text
    assert 'src="http' not in text  # it opens where there is no network


SCENARIO = f"""
site = "{SITE}"
start = 2026-01-05T00:00:00Z
sample_s = 600
seed = 1
[life]
healthy_h = [190, 200]
[[nodes]]
name = "node-01"
machines = ["pump-1", "pump-2"]
faults = {{ bearing = 1 }}
[[nodes.sensors]]
fault = "drift"
machine = "pump-1"
channel = "bearing_temp"
from_h = 100
per_h = 0.4
"""
CHANNELS = {"bearing_temp": "degC", "motor_current": "A", "flow": "m3/h", "pressure": "bar"}
AGENT = f"""
[[asset_class]]
name = "pump"
every_s = 600
stats = ["last", "mean_6"]
channels = [{", ".join(f'{{ name = "{c}", unit = "{unit}" }}' for c, unit in CHANNELS.items())}]
[asset_class.health]
kind = "moments"
stats = ["mean_6"]
"""


def distances(told: Path) -> dict[str, float]:
    """Return what Evidently's JSON says of each feature."""
    return {
        one["config"]["column"]: one["value"]
        for one in json.loads(told.read_text())["metrics"]
        if "column" in one["config"]
    }


@contextmanager
def network() -> Iterator[list[str]]:
    """Gather what asks for the network, and programs that might."""
    asked: list[str] = []
    watching = True

    def hook(event: str, words: tuple[Any, ...]) -> None:
        beyond = event == "socket.connect" and isinstance(words[1], tuple)
        if watching and (beyond or event in {"socket.getaddrinfo", "subprocess.Popen"}):
            asked.append(f"{event} {words[1:]}")

    sys.addaudithook(hook)  # which stays: there is no way to take one out
    yield asked
    watching = False


def play(folder: Path, port: int) -> None:
    """Play a week of two pumps that are well; a sensor of one begins to drift."""
    scenario = folder / "scenario.toml"
    scenario.write_text(SCENARIO)
    program = Path(sys.executable).with_name("runout-simulator")
    words = ["run", "--phase", "present", "--scenario", scenario, "--broker", f"127.0.0.1:{port}"]
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_what_the_simulator_plays_the_sensor_that_drifts_is_named(
    tmp_path: Path, broker: Broker, agent: Callable[..., AgentProcess]
) -> None:
    server = FleetProcess(tmp_path, broker.port).start()
    server.wait_for("connected to the broker")
    (tmp_path / "agent.toml").write_text(AGENT)
    device = agent("node-01", str(tmp_path / "agent.toml")).start()
    device.wait_for("connected")
    play(tmp_path, broker.port)
    end_s = max(rows.t_ns.max() for batch in device.batches() for rows in batch.rows) / 1e9
    config = tmp_path / "server.toml"

    def has_all(machine: str) -> bool:
        try:
            found = windows(load(config), machine, 2.0, 4.0)
        except RunoutError:  # nothing of it yet
            return False
        return bool(found.current.index.max() > end_s - 2 * HOUR_S)

    drifted = {}
    for name in ("pump-1", "pump-2"):
        machine, told = f"{SITE}/node-01/{name}", tmp_path / f"{name}.json"
        wait_until(partial(has_all, machine))
        words = ["evidently", machine, "--json", str(told), "--days", "2", "--reference-days", "4"]
        assert main([*words, "--config", str(config)]) == 0
        found = distances(told)
        assert found.keys() == {f"{channel} mean_6" for channel in CHANNELS}
        drifted[name] = [feature for feature, value in found.items() if value >= THRESHOLD]
    assert device.end(signal.SIGTERM) == 0
    server.close()
    assert drifted == {"pump-1": ["bearing_temp mean_6"], "pump-2": []}


def test_an_undisturbed_machine_has_not_drifted(
    table: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evidently", "s/n/pump-1", "--config", str(table(37 * 24))]) == 0
    assert "drifted" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("pump-1", ["SITE/NODE/MACHINE"]),
        ("s/n/pump-2", ["'s/n/pump-2'", "there are s/n/pump-1"]),
        ("s/n/pump-1", ["too little is known", "--reference-days"]),
    ],
)
def test_what_cannot_be_said_is_told_with_its_mend(
    table: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    machine: str,
    words: list[str],
) -> None:
    assert main(["evidently", machine, "--config", str(table(30))]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_where_no_fleet_was_heard_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'state = "{tmp_path / "server"}"\n')
    assert main(["evidently", "s/n/pump-1", "--config", str(config)]) == 2
    assert "has runout-server heard a fleet?" in capsys.readouterr().err
    assert not (tmp_path / "server").exists()

"""A real SuperLink, real SuperNodes, real stores: one fleet that goes through what fleets do.

The tests of this file stand in the order of one story and share its processes.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.model_spec import Ridge, Sklearn
from contract.spec import AssetClass, Channel
from server import processes, status
from server.registry import Registry
from server.status import Status
from server.superlink import program

pytestmark = [pytest.mark.flower, pytest.mark.timeout(600)]

DEADLINE_S = 40.0
SPEC = AssetClass(
    "pump",
    (Channel("vibration", "mm/s"), Channel("temperature", "degC")),
    stats=("mean_8", "std_8"),
    cap_h=60.0,
    rul=(Ridge(random=40, shaping=10), Sklearn(hidden=(8,), epochs=2)),
    holdout=3,
)
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
pause = threading.Event().wait


class Fleet:
    """A server and its nodes; every process of them ends with the fixture."""

    def __init__(self, folder: Path, port: int, make: Callable[..., Path]) -> None:
        self.folder = folder
        self.state = folder / "server"
        self.port = port
        self.make = make
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.config = folder / "server.toml"
        self.config.write_text(
            f'state = "{self.state}"\nlisten = "127.0.0.1:{port}"\nmin_nodes = 2\nrounds = 2\n'
            f"deadline_s = {DEADLINE_S}\n"
        )
        self.output = (folder / "server.txt").open("w")
        self.server = subprocess.Popen(
            [program("runout-server"), "run", "--config", str(self.config)],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | QUIET,
        )

    def join(self, name: str, own_port: int, seed: int) -> Path:
        """Start a node; returns its agent's folder."""
        state = self.make(name, SPEC, seed=seed)
        beside = Path(sys.executable).parent
        variables = {
            "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder / f"flwr-{name}"),
        }
        with (self.folder / f"{name}.txt").open("w") as output:
            self.nodes[name] = subprocess.Popen(
                [
                    program("flower-supernode"),
                    *("--insecure", "--superlink", f"127.0.0.1:{self.port}"),
                    *("--port", str(own_port), "--node-config", f'state="{state}"'),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | QUIET | variables,
            )
        return state

    def kill(self, name: str) -> None:
        """End a node and all it started, as a power cut would."""
        node = self.nodes.pop(name)
        for pid in [node.pid, *processes.descendants(node.pid)]:
            os.kill(pid, signal.SIGKILL)
        node.wait()

    def status(self) -> Status:
        """Return what the server says of itself."""
        return status.read(self.state) or Status()

    def wait(self, what: Callable[[Status], object], within_s: float = 250.0) -> Status:
        """Return the status once something holds of it.

        Patience for a busy machine: a stock SuperNode starts a process for each of a training's
        seven messages. What must not take long is asserted where it is.
        """
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            seen = self.status()
            if what(seen):
                return seen
            assert self.server.poll() is None, self.said()
            pause(0.1)
        pytest.fail(f"not within {within_s} s: {self.status()}\n{self.said()}")

    def said(self) -> str:
        """Return what the server wrote on its terminal."""
        return (self.folder / "server.txt").read_text()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what the journal holds of one kind."""
        return [e for e in Registry(self.state, "pump").journal() if e["event"] == kind]

    def end(self) -> None:
        """End everything; safe more than once."""
        for name in list(self.nodes):
            self.kill(name)
        if self.server.poll() is None:
            left = processes.descendants(self.server.pid)
            self.server.terminate()
            self.server.wait(timeout=20)
            for pid in left:
                if processes.runs(pid):
                    os.kill(pid, signal.SIGKILL)
        self.output.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, stores_in: Any) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    make = stores_in(folder / "agents").make
    fleet = Fleet(folder, free_port(), make)
    try:
        fleet.wait(lambda s: s.phase == "waiting")
        yield fleet
    finally:
        fleet.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inbox(state: Path) -> list[str]:
    folder = state / "models" / "inbox"
    return sorted(path.name for path in folder.glob("*.npz")) if folder.exists() else []


def test_a_fleet_trains_and_each_node_gets_the_release(fleet: Fleet) -> None:
    one = fleet.join("rpi-1", free_port(), seed=1)
    two = fleet.join("rpi-2", free_port(), seed=2)
    seen = fleet.wait(lambda s: s.released and len(s.released.delivered) == 2)
    assert seen.released is not None
    assert seen.released.version == 1
    assert seen.released.contributors == ("rpi-1", "rpi-2")
    assert {"rmse/ridge", "rmse/sklearn", "rmse/local"} <= seen.released.metrics.keys()
    assert inbox(one) == inbox(two) == ["pump-v0001.npz"]
    assert seen.bytes_up.keys() == seen.bytes_down.keys() == {"rpi-1", "rpi-2"}
    fleet.wait(lambda s: s.phase == "serving")
    assert "version 1 of pump, from 2 nodes" in fleet.said()


def test_a_node_that_joins_later_gets_the_current_release(fleet: Fleet) -> None:
    three = fleet.join("rpi-3", free_port(), seed=3)
    fleet.wait(lambda s: s.released and len(s.released.delivered) == 3)
    assert inbox(three) == ["pump-v0001.npz"]


def test_a_node_killed_in_mid_round_delays_nothing_beyond_the_deadline(fleet: Fleet) -> None:
    fleet.wait(lambda s: s.phase == "serving" and s.online == 3)
    command = [program("runout-server"), "round", "--config", str(fleet.config)]
    subprocess.run(command, check=True, capture_output=True)
    fleet.wait(lambda s: s.phase == "fit" and s.training == 2)
    fleet.kill("rpi-3")
    began = time.monotonic()
    seen = fleet.wait(lambda s: s.released and s.released.version == 2)
    # One deadline for the phase it was killed in; the phases after that do not wait for it.
    assert time.monotonic() - began < 2 * DEADLINE_S + 20
    assert seen.released is not None
    assert seen.released.contributors == ("rpi-1", "rpi-2", "rpi-3")
    fits = [e for e in fleet.events("phase") if e["training"] == 2 and e["phase"] == "fit 1"]
    assert sorted(fits[0]["accepted"]) == ["rpi-1", "rpi-2"]
    assert fits[0]["failed"].keys() == {"rpi-3"}
    assert fits[0]["seconds"] < DEADLINE_S + 3


def test_a_fleet_tries_models_and_nothing_that_judges_changes(fleet: Fleet, tmp_path: Path) -> None:
    fleet.wait(lambda s: s.phase == "serving" and s.online == 2)
    out = tmp_path / "chosen.toml"
    models = [f'[[asset_class.rul]]\nkind = "ridge"\nrandom = {n}\n' for n in (5, 30)]
    files = [tmp_path / f"of-{i}.toml" for i in range(2)]
    for file, model in zip(files, models, strict=True):
        file.write_text(model, encoding="utf-8")
    command = [program("runout-server"), "select", "--config", str(fleet.config), "--only"]
    for file in files:
        command += ["--candidate", str(file)]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr + fleet.said()
    lines = done.stdout.splitlines()
    assert sorted(line[:24].strip() for line in lines[1:3]) == ["of-0 ridge", "of-1 ridge"]
    (chosen,) = [line for line in lines if line.endswith("<- chosen")]
    number = int(chosen[3])
    assert out.read_text(encoding="utf-8").strip() == models[number].strip()
    assert "1 of 2 tried" in done.stderr
    assert not (fleet.state / "trials").exists()
    seen = fleet.wait(lambda s: s.phase == "serving")
    assert seen.released is not None
    assert seen.released.version == 2


def test_a_run_from_outside_trains_and_ends(fleet: Fleet) -> None:
    fleet.wait(lambda s: s.phase == "serving")
    run = subprocess.run(
        [
            program("flwr"),
            *("run", str(fleet.state / "app"), "runout", "--stream"),
            *("-c", "num-server-rounds=1 min-nodes=2 deadline-s=20.0"),
        ],
        env=os.environ | QUIET | {"FLWR_HOME": str(fleet.state / "flwr")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "version 3 of pump" in run.stdout + run.stderr
    # The serving run sees that there is another version, and stays.
    fleet.wait(lambda s: s.phase == "serving" and s.released and s.released.version == 3)


def test_a_superlink_killed_in_mid_round_loses_no_version_and_makes_none_twice(
    fleet: Fleet,
) -> None:
    before = fleet.wait(lambda s: s.phase == "serving" and s.online == 2).run
    subprocess.run(
        [program("runout-server"), "round", "--config", str(fleet.config)],
        check=True,
        capture_output=True,
    )
    fleet.wait(lambda s: s.phase == "fit" and s.released and s.released.version == 3)
    os.kill(int((fleet.state / "superlink.pid").read_text()), signal.SIGKILL)
    # The nodes come back by themselves, and the training goes on where it was.
    seen = fleet.wait(
        lambda s: s.run != before and s.released and s.released.version == 4 and s.online >= 2
    )
    assert seen.released is not None
    assert "SuperLink ended; starting again" in fleet.said()
    (resumed,) = fleet.events("resumed")
    assert resumed["told"] == 2
    assert [e["version"] for e in fleet.events("release")] == [1, 2, 3, 4]
    assert fleet.events("release")[-1]["why"] == "a person asked for it"


def test_what_judged_before_is_handed_out_again(fleet: Fleet) -> None:
    fleet.wait(lambda s: s.phase == "serving" and s.online == 2)
    command = [program("runout-server"), "models", "rollback", "--config", str(fleet.config)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "version 3: handed out as version 5" in done.stdout
    seen = fleet.wait(
        lambda s: s.released and s.released.version == 5 and len(s.released.delivered) == 2
    )
    assert seen.released is not None
    assert set(seen.released.delivered.values()) == {"delivered"}


def test_the_server_ends_within_seconds_and_leaves_no_process(fleet: Fleet) -> None:
    own = processes.descendants(fleet.server.pid)
    assert len(own) >= 3  # SuperLink, its superexec, the ServerApp
    fleet.server.terminate()
    assert fleet.server.wait(timeout=10) == 0
    assert not [pid for pid in own if processes.runs(pid)]
    assert fleet.status().phase == "stopped"

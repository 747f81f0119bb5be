"""systemd is told by a real agent, over a real datagram socket; a hung loop falls silent."""

import contextlib
import http.client
import json
import os
import select
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from agent.watchdog import STATUS_S, Watchdog

TIMEOUT_S = 0.6
PATIENCE_S = 60


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """Listen as the service manager does; the path of a socket must be short."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening,
    ):
        listening.bind(f"{folder}/notify")
        listening.settimeout(PATIENCE_S)
        yield listening


def hear(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


def hear_until(manager: socket.socket, words: str) -> list[str]:
    heard = []
    while not heard or words not in heard[-1]:
        heard.append(hear(manager))
    return heard


def test_a_beat_is_said_when_it_is_due_and_not_before(manager: socket.socket) -> None:
    manager.setblocking(False)  # what was said is there at once
    with closing(Watchdog(manager.getsockname(), timeout_s=6.0)) as watchdog:
        watchdog.beat(100.0, lambda: "all\nwell")
        assert hear(manager) == "WATCHDOG=1\nSTATUS=all well"
        watchdog.beat(101.9, lambda: "not due")
        with pytest.raises(BlockingIOError):
            hear(manager)
        watchdog.beat(102.0, lambda: "x" * 1000)
        assert len(hear(manager)) < 250


def test_without_a_watchdog_a_line_of_status_is_said_but_no_sign_of_life(
    manager: socket.socket,
) -> None:
    with closing(Watchdog.of({"NOTIFY_SOCKET": manager.getsockname()})) as watchdog:
        watchdog.beat(0.0, lambda: "fine")
        watchdog.beat(STATUS_S - 0.1, lambda: "not due")
        watchdog.beat(STATUS_S, lambda: "still fine")
        assert [hear(manager), hear(manager)] == ["STATUS=fine", "STATUS=still fine"]


def test_an_abstract_socket_is_spoken_to() -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        name = f"runout-test-{os.getpid()}"
        listening.bind("\0" + name)
        listening.settimeout(PATIENCE_S)
        with closing(Watchdog("@" + name)) as watchdog:
            watchdog.ready()
            assert hear(listening) == "READY=1"


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, STATUS_S),  # another process's
        ({"WATCHDOG_USEC": "600000000"}, STATUS_S),
        ({"WATCHDOG_USEC": "many"}, STATUS_S),
        ({}, STATUS_S),
    ],
)
def test_the_beat_follows_what_the_manager_asks_of_this_process(
    environ: dict[str, str], every_s: float
) -> None:
    assert Watchdog.of(environ, pid=7).every_s == pytest.approx(every_s)


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1234"])
def test_a_manager_that_is_not_there_holds_nobody_up(address: str) -> None:
    watchdog = Watchdog(address, timeout_s=1.0)
    watchdog.ready()
    watchdog.beat(0.0, lambda: "fine")
    watchdog.stopping()
    watchdog.close()
    watchdog.close()
    watchdog.beat(10.0, lambda: "nobody hears")


def test_a_manager_that_does_not_listen_any_more_does_not_block_the_loop(
    manager: socket.socket,
) -> None:
    with closing(Watchdog(manager.getsockname(), timeout_s=3.0)) as watchdog:
        for second in range(2000):  # many times what a socket's queue holds
            watchdog.beat(float(second), lambda: "x" * 150)


def test_an_agent_says_that_it_is_ready_alive_and_ending(
    agent: Callable[..., Any], manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", str(round(TIMEOUT_S * 1e6)))
    process = agent("node").start()
    assert hear(manager) == "READY=1"
    beats = [hear(manager) for _ in range(3)]
    assert all(beat.startswith("WATCHDOG=1\nSTATUS=0 readings of 0 machines") for beat in beats)
    assert all("no broker" in beat for beat in beats)  # which is no reason not to be ready
    assert process.end(SIGTERM) == 0
    assert hear_until(manager, "STOPPING=1")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        hear(manager)


STUCK = """
def stuck(x):
    with open({fifo!r}, "rb") as waits:
        waits.read()
    return 1.0
"""


def test_a_loop_that_hangs_falls_silent_though_its_other_threads_live(
    agent: Callable[..., Any],
    free_ports: Callable[[], int],
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "hang.py").write_text(STUCK.format(fifo=str(fifo)))
    port = free_ports()
    config = tmp_path / "agent.toml"
    config.write_text(
        f'functions = "{functions}"\n'
        f'[[source]]\nkind = "http"\nport = {port}\n'
        '[[asset_class]]\nname = "pump"\n'
        'channels = [{ name = "flow", unit = "l/s" }]\n'
        '[[asset_class.functions]]\nname = "stuck"\ncall = "hang:stuck"\n'
        'channels = ["flow"]\nrows = 1\n'
    )
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", str(round(TIMEOUT_S * 1e6)))
    process = agent("node", str(config)).start()
    assert hear(manager) == "READY=1"
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as plant:
        plant.request(
            "POST",
            "/v1/readings?asset=pump-1&channel=flow",
            b'{"t": 1700000000, "v": 1}',
            {"Content-Type": "application/json"},
        )
        with fifo.open("wb"):  # opens when the function does: the loop is in it now
            while select.select([manager], [], [], 0)[0]:
                hear(manager)  # from before
            manager.settimeout(3 * TIMEOUT_S)
            with pytest.raises(TimeoutError):
                hear(manager)
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as other:
                other.request("GET", "/elsewhere")
                assert other.getresponse().status == 404
        assert plant.getresponse().status == 204
    manager.settimeout(PATIENCE_S)
    hear_until(manager, "1 readings of 1 machines")
    assert process.end(SIGTERM) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_an_agent_that_waits_for_room_on_its_disk_is_alive_and_says_so(
    agent: Callable[..., Any],
    free_ports: Callable[[], int],
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    port = free_ports()
    source = f'source=[{{kind="http",port={port},commit_s=60}}]'
    try:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
        monkeypatch.setenv("WATCHDOG_USEC", str(round(TIMEOUT_S * 1e6)))
        state = f"node.state={disk}"
        process = agent("node", "agent.minimal.toml", source, state).start()
        assert hear(manager) == "READY=1"
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as plant:
            rows = [{"t": 1_700_000_000 + i, "v": {"vibration": 5}} for i in range(2000)]
            body = json.dumps(rows).encode()
            kind = {"Content-Type": "application/json"}
            plant.request("POST", "/v1/readings?asset=pump-1", body, kind)
            beats = hear_until(manager, "no room on the disk")
            beats += [hear(manager), hear(manager)]
            assert all(beat.startswith("WATCHDOG=1") for beat in beats)
            filler.unlink()
            assert plant.getresponse().status == 204
        hear_until(manager, "2000 readings of 1 machines")
        assert process.end(SIGTERM) == 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

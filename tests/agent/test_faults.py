"""What a plant does to a small computer: full disks, dying cards, wrong clocks, absent brokers."""

import http.client
import json
import logging
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.assemble import Assembler
from agent.clock import DeviceClock
from agent.config import Keep
from agent.intake import Arrival
from agent.store import Store
from benchmarks.crash import run as run_crash
from contract.errors import ConfigError
from contract.report import Health

Connect = Callable[..., Any]
Make = Callable[..., Any]

ROOT = Path(__file__).parents[2]
START_S = 1_199_145_600
DAY_S = 86_400
YEAR_S = 365 * DAY_S


def row(hour: int) -> bytes:
    """Return an hourly reading of a pump."""
    values = {"vibration": 5.0 + hour % 7 / 10, "temperature": 40.0 + hour % 5 / 10}
    return json.dumps({"t": START_S + 3600 * hour, "v": values}).encode()


def send_hours(plant: Any, begin: int, end: int) -> None:
    for hour in range(begin, end):
        plant.send("node", "pump-1", "readings", row(hour))


def times(process: Any) -> list[int]:
    """Return the hours of which a result was kept, in its order."""
    bodies = process.table("SELECT body FROM result WHERE kind = 'health' ORDER BY id")
    return [round((msgspec.json.decode(b, type=Health).t - START_S) / 3600) for (b,) in bodies]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a disk of 2 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    found = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)],
        capture_output=True,
        check=False,
    )
    if found.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"a disk cannot be mounted, and CI must run this test: {found.stderr!r}")
        pytest.skip(f"a disk cannot be mounted here: {found.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def fill(path: Path) -> None:
    """Leave no room on a disk."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 1024, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_a_full_disk_stops_the_acknowledging_and_not_the_agent(
    broker: Any, connect: Connect, agent: Make, small_disk: Path
) -> None:
    plant = connect(broker)
    state = small_disk / "state"
    process = agent("node", "agent.minimal.toml", f"node.state={state}", "keep.checkpoint_s=0.2")
    process.state = state
    process.start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 50)
    plant.wait_for("node", lambda status: status.readings == 50)
    filler = small_disk / "filler"
    fill(filler)
    send_hours(plant, 50, 1000)
    process.wait_for("nothing can be stored")
    plant.settle()
    assert "no room on the disk" in process.said
    assert plant.statuses["node"].readings < 1000
    filler.unlink()
    process.wait_for("can be written to again")
    plant.wait_for("node", lambda status: status.readings == 1000)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.said
    assert times(process) == list(range(1000))


def test_an_agent_killed_while_the_disk_is_full_gets_again_what_it_had_not_acknowledged(
    broker: Any, connect: Connect, agent: Make, small_disk: Path
) -> None:
    plant = connect(broker)
    state = small_disk / "state"
    process = agent("node", "agent.minimal.toml", f"node.state={state}")
    process.state = state
    process.start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 50)
    plant.wait_for("node", lambda status: status.readings == 50)
    filler = small_disk / "filler"
    fill(filler)
    send_hours(plant, 50, 600)
    process.wait_for("nothing can be stored")
    plant.settle()
    process.kill()
    plant.wait_for("node", lambda status: not status.online)
    filler.unlink()
    process.start()
    plant.wait_for("node", lambda status: status.online and status.readings == 600)
    assert process.end(signal.SIGTERM) == 0
    assert times(process) == list(range(600))


def test_a_disk_that_takes_no_more_writes_while_the_agent_runs_is_waited_for(
    broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 50)
    plant.wait_for("node", lambda status: status.readings == 50)
    # Each write is refused from here on, as by a card that has turned read-only.
    _, most = resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (0, most))
    send_hours(plant, 50, 200)
    process.wait_for("nothing can be stored")
    plant.settle()
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (most, most))
    plant.wait_for("node", lambda status: status.readings == 200)
    assert "the disk takes no more" in process.said
    assert process.end(signal.SIGTERM) == 0
    assert times(process) == list(range(200))


def test_an_agent_that_cannot_store_says_so_to_the_broker_and_ends_when_it_is_asked_to(
    broker: Any, connect: Connect, agent: Make, free_ports: Callable[[], int]
) -> None:
    plant = connect(broker)
    port = free_ports()
    process = agent("node", "agent.minimal.toml", f"web.port={port}").start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 50)
    plant.wait_for("node", lambda status: status.readings == 50 and not status.problem)
    _, most = resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (0, most))
    send_hours(plant, 50, 200)
    plant.wait_for("node", lambda status: "the disk takes no more" in status.problem)
    assert plant.statuses["node"].readings == 50
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as asking:
        asking.request("GET", "/healthz")
        answer = asking.getresponse()
        assert answer.status == 503
        assert any("the disk takes no more" in why for why in json.load(answer)["reasons"])
    assert process.end(signal.SIGTERM) == 1
    assert "ended as asked, while nothing could be stored" in process.said
    assert "Traceback" not in process.said
    plant.wait_for("node", lambda status: not status.online)
    assert "the disk takes no more" in plant.statuses["node"].problem
    process.start()
    plant.wait_for("node", lambda status: status.online and status.readings == 200)
    assert plant.statuses["node"].problem == ""
    assert process.end(signal.SIGTERM) == 0
    assert times(process) == list(range(200))


def test_an_agent_that_is_asked_to_end_before_it_could_store_anything_ends(
    agent: Make, stopped_broker: Any
) -> None:
    del stopped_broker
    process = agent("node").start()
    process.wait_for("broker unreachable")
    assert process.end(signal.SIGTERM) == 0
    with closing(sqlite3.connect(process.state / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process.start()
        process.wait_for("another program holds the file")
        assert process.end(signal.SIGTERM) == 1
        assert "ended as asked" in process.said
        other.execute("ROLLBACK")
    process.start()
    process.wait_for("broker unreachable")
    assert process.end(signal.SIGTERM) == 0


def test_a_checkpoint_that_finds_no_room_is_left_out_and_said(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(small_disk / "state", Keep(power_loss_safe=False))
    store.begin()
    store.journal(b"first")
    store.commit()
    store.checkpoint({"of": 1}, {"x": np.zeros(10)})
    store.begin()
    store.journal(b"second")
    store.commit()
    store.checkpoint({"of": 2}, {"x": np.zeros(400_000)})
    assert "no checkpoint was written" in caplog.text
    ((head, _),) = store.checkpoints()
    assert head["of"] == 1
    assert list(store.replay(int(str(head["seq"])))) == [(2, b"second")]
    store.checkpoint({"of": 3}, {"x": np.zeros(10)})
    assert next(store.checkpoints())[0]["of"] == 3
    store.close()


def test_a_state_folder_that_cannot_be_written_is_refused_with_the_mend(
    agent: Make, stopped_broker: Any, tmp_path: Path
) -> None:
    del stopped_broker
    folder = tmp_path / "readonly"
    folder.mkdir()
    if os.geteuid() == 0:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], check=False
        )
        if done.returncode:
            pytest.skip("root may write everywhere, and a read-only disk cannot be mounted here")
    else:
        folder.chmod(0o500)
    try:
        process = agent("node", "agent.minimal.toml", f"node.state={folder / 'state'}").start()
        process.wait_for("node.state")
        assert process.end() == 2
        assert "give the agent's user" in process.said
        assert "Traceback" not in process.said
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o700)


def test_a_store_that_has_become_read_only_is_refused_with_the_mend(
    small_disk: Path,
) -> None:
    Store(small_disk / "state", Keep(power_loss_safe=False)).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigError, match="mounted read-only"):
        Store(small_disk / "state", Keep(power_loss_safe=False))


def damage(path: Path, begin: int, size: int) -> None:
    """Overwrite some of a file."""
    with path.open("r+b") as file:
        file.seek(begin, os.SEEK_END if begin < 0 else os.SEEK_SET)
        file.write(b"\xa5" * size)


def test_a_damaged_last_page_sets_the_store_aside_and_the_models_go_on(
    device: Callable[..., Any], configure: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = configure()
    first = device(config)
    first.live("pump-1", np.tile([5.0, 40.0], (100, 1)) + np.arange(100)[:, None] % 7 / 10)
    expected = first.state()
    first.close()
    database = config.state / "store.db"
    page = int.from_bytes(database.read_bytes()[16:18], "big")
    damage(database, -page, page)
    again = device(config)
    assert again.engine.store.set_aside == config.state / "store.damaged-1.db"
    assert "damaged and was set aside" in caplog.text
    assert again.state()[1] == expected[1]
    said = again.live("pump-1", np.tile([5.0, 40.0], (10, 1)), begin=100)
    assert len(said) == 10
    again.close()
    assert device(config).engine.store.set_aside is None


FRAME = 24 + 1024

# A process that is killed leaves its log; one that closes the file does not.
KILLED = """
import os, sys, numpy
from pathlib import Path
from agent.config import Keep
from agent.store import Store
store = Store(Path(sys.argv[1]), Keep())
store.checkpoint({'of': 0}, {'x': numpy.zeros(3)})
for n in range(20):
    store.begin()
    store.journal(b'body %d' % n)
    store.add_results([('pump-1', 'health', b'{"of": %d}' % n)])
    store.commit()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("back", [1, 12], ids=["last frame", "in the midst"])
def test_what_a_damaged_write_ahead_log_lacks_is_in_the_journal(
    back: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=ROOT)
    wal = tmp_path / "store.db-wal"
    frames = (wal.stat().st_size - 32) // FRAME
    header = wal.read_bytes()[:32]
    damage(wal, 32 + (frames - back) * FRAME + 500, 100)
    with caplog.at_level(logging.WARNING):
        store = Store(tmp_path, Keep())
    assert 0 < store.done < 20, "some of what came of the batches is gone"
    assert store.last_result == store.done
    assert list(store.replay(0)) == [(n + 1, b"body %d" % n) for n in range(20)]
    assert next(store.checkpoints())[0]["of"] == 0
    copied = tmp_path / "store.damaged-1.db-wal"
    if back == 1:
        assert "the last transaction is not whole" in caplog.text
        assert not copied.exists()
    else:
        assert "the write-ahead log is damaged" in caplog.text
        assert copied.read_bytes()[:32] == header
    store.begin()
    store.journal(b"and on")
    store.commit()
    store.close()


def test_a_log_that_a_kill_left_whole_is_read_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from agent.config import Keep\n"
        "from agent.store import Store\n"
        "store = Store(Path(sys.argv[1]), Keep(power_loss_safe=False))\n"
        "for n in range(9000):\n"
        "    store.begin(); store.journal(b'x' * 700); store.commit()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=ROOT)
    store = Store(tmp_path, Keep())
    assert store.seq == 9000
    assert not caplog.records
    store.close()


def test_two_agents_never_share_a_folder(tmp_path: Path) -> None:
    one = Store(tmp_path, Keep())
    with pytest.raises(ConfigError, match="in use by another agent"):
        Store(tmp_path, Keep())
    one.close()
    Store(tmp_path, Keep()).close()


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["a year forward", "a year back"])
def test_a_clock_that_jumps_changes_no_time_of_the_data(
    jump_s: int, configure: Callable[..., Any], device: Callable[..., Any]
) -> None:
    device_here = device(configure())
    # A time server says that it is right: what is a year ahead of it is its sender's fault.
    clock = DeviceClock(300 * 10**9, is_set=lambda: True)
    assembler = Assembler(device_here.config, clock)

    def come(hours: range, clock_s: int) -> None:
        arrivals = [
            Arrival(
                "runout/v1/test/node/pump-1/readings",
                row(hour),
                hour + 1,
                (START_S + hour * 3600 + clock_s) * 10**9,
            )
            for hour in hours
        ]
        device_here.engine.process(*assembler.assemble(arrivals))

    come(range(50), 0)
    come(range(50, 100), jump_s)
    come(range(100, 150), 0)
    status = device_here.engine.status(online=True)
    ahead = 50 if jump_s < 0 else 0  # by the clock, the sender's time is a year ahead
    assert status.rejected == ahead
    assert device_here.engine.rejected == ({"future": 50} if ahead else {})
    assert (status.readings, status.late, status.repeated) == (150, 0, 0)
    told = [
        msgspec.json.decode(body, type=Health).t
        for *_, body in device_here.engine.store.results(device_here.engine.store.unsent[-1], 1000)
    ]
    expected = [START_S + 3600 * h for h in range(150) if not ahead or not 50 <= h < 100]
    assert told == expected


def test_results_of_an_hour_without_the_broker_wait_and_come_in_order_afterwards(
    broker: Any, connect: Connect, agent: Make, tmp_path: Path, small_port: int
) -> None:
    text = (ROOT / "configs" / "agent.minimal.toml").read_text(encoding="utf-8")
    config = tmp_path / "http.toml"
    config.write_text(text + f'\n[[source]]\nkind = "http"\nport = {small_port}\n')
    plant = connect(broker)
    process = agent("node", str(config)).start()
    plant.wait_for("node", lambda status: status.online)

    def post(begin: int, end: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", small_port, timeout=60)) as posting:
            for second in range(begin, end, 60):
                rows = [
                    {"t": START_S + s, "v": {"vibration": 5.0, "temperature": 40.0}}
                    for s in range(second, min(second + 60, end))
                ]
                head = {"Content-Type": "application/json"}
                posting.request("POST", "/v1/readings?asset=pump-1", json.dumps(rows), head)
                answer = posting.getresponse()
                answer.read()
                assert answer.status < 300

    post(0, 60)
    plant.wait_for("node", lambda status: status.readings == 60)
    plant.wait(lambda: len(plant.heard) >= 60)
    broker.stop()
    process.wait_for("connection lost")
    post(60, 60 + 3600)
    broker.start()
    plant.wait_for("node", lambda status: status.online and status.readings == 3660)
    post(3660, 3720)
    plant.wait_for("node", lambda status: status.readings == 3720)
    plant.wait(lambda: len(plant.heard) >= 3720)
    assert process.end(signal.SIGTERM) == 0
    said = [msgspec.json.decode(payload, type=Health) for _, payload in plant.heard]
    replayed = [report.t - START_S for report in said if report.replayed is True]
    # The broker that came back may say again what it had said.
    live = list(dict.fromkeys(r.t - START_S for r in said if r.replayed is not True))
    assert sorted({*replayed, *live}) == list(range(3720))
    assert set(range(60, 3660)) <= set(replayed)
    assert replayed == sorted(replayed)
    assert live == sorted(live)
    assert set(range(3660, 3720)) <= set(live)


def test_an_agent_killed_at_random_instants_loses_nothing_and_counts_nothing_twice(
    broker: Any, tmp_path: Path
) -> None:
    del broker  # that there is one is known by it
    found = run_crash(tmp_path, kills=5, seed=7)
    assert (found["lost"], found["duplicated"], found["differing_outputs"]) == (0, 0, 0)

"""The doctor finds each fault on real brokers, ports, disks and stores; on a sound device none."""

import contextlib
import datetime as dt
import grp
import http.server
import ipaddress
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.assemble import Assembler
from agent.clock import DeviceClock
from agent.config import AgentConfig, Federation, Keep, Mqtt, Tls
from agent.doctor import broker as broker_check
from agent.doctor import examine, federation, machine, sources, state
from agent.doctor.certificates import validity
from agent.doctor.finding import Finding
from agent.intake import Arrival
from agent.sources import Http, Modbus, Serial
from tests.agent.conftest import wait_until

COMMAND = str(Path(sys.executable).with_name("runout-agent"))
ROOT = Path(__file__).parents[2]
NOBODY = 65534
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
Configure = Callable[..., AgentConfig]
Make = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # see as_nobody
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make this fault")


def as_nobody(check: Callable[[], Finding]) -> Finding:
    """Return what a user finds who may do nothing in particular."""
    if os.geteuid() != 0:
        return check()
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writes, msgspec.json.encode(check()))
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return msgspec.json.decode(said, type=Finding)


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def at(config: AgentConfig, folder: Path, **changes: object) -> AgentConfig:
    node = msgspec.structs.replace(config.node, state=str(folder))
    return msgspec.structs.replace(config, node=node, **changes)


# -- the machine ---------------------------------------------------------------------------------


def test_this_machine_is_one_that_runs_an_agent() -> None:
    for check in (machine.architecture, machine.python, machine.numpy):
        assert check().level == "ok", check()


def test_a_32_bit_system_on_a_64_bit_kernel_is_a_fault() -> None:
    found = machine.architecture("aarch64", 2**31 - 1)
    assert found.level == "fault"
    assert "64-bit Raspberry Pi OS" in found.mend


def test_numpy_whose_blas_is_missing_is_a_fault_that_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(
        "raise ImportError('libopenblas.so.0: cannot open shared object file')\n"
    )
    found = machine.numpy(environ={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert found.level == "fault"
    assert "libopenblas.so.0" in found.text
    assert "apt install libopenblas0" in found.mend


def test_numpy_for_another_processor_is_a_fault_that_does_not_take_the_doctor_along(
    tmp_path: Path,
) -> None:
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    found = machine.numpy(environ={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert found.level == "fault"
    assert "another processor" in found.text


def test_a_numpy_without_a_fast_blas_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(
        "__version__ = '2.0'\n"
        "class X:\n  def __matmul__(self, other): return {(0, 0): 64}\n"
        "ones = lambda shape: X()\n"
        "show_config = lambda mode: {'Build Dependencies': {'blas': {'name': 'none'}}}\n"
    )
    assert machine.numpy(environ={**os.environ, "PYTHONPATH": str(tmp_path)}).level == "warning"


MEMINFO = "MemTotal: {} kB\nMemFree: 1 kB\nMemAvailable: {} kB\nSwapTotal: {} kB\nSwapFree: {} kB\n"


@pytest.mark.parametrize(
    ("kilobytes", "level"),
    [
        ((948_000, 600_000, 0, 0), "ok"),
        ((948_000, 40_000, 0, 0), "fault"),
        ((948_000, 600_000, 524_288, 500_000), "ok"),
        ((948_000, 600_000, 524_288, 200_000), "warning"),
    ],
)
def test_memory_that_is_short_or_swapped_is_said(
    kilobytes: tuple[int, ...], level: str, tmp_path: Path
) -> None:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO.format(*kilobytes))
    assert machine.memory(path, tmp_path).level == level


def test_a_kernel_that_cannot_limit_memory_is_a_warning_with_the_word_to_add(
    tmp_path: Path,
) -> None:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO.format(948_000, 600_000, 0, 0))
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io pids\n")
    assert "cgroup_enable=memory" in machine.memory(path, tmp_path).mend
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert machine.memory(path, tmp_path).level == "ok"


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("throttled=0x0", "ok"),
        ("throttled=0x50005", "fault"),
        ("throttled=0x50000", "warning"),
        ("throttled=0x8", "warning"),
        ("VCHI initialization failed", "ok"),
    ],
)
def test_a_supply_that_does_not_hold_is_said(said: str, level: str, tmp_path: Path) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    assert machine.power(lambda name: str(tmp_path / name)).level == level


def test_a_clock_behind_the_files_it_stamped_is_a_fault(configure: Configure) -> None:
    config = configure()
    config.state.mkdir()
    (config.state / "store.db").touch()
    assert machine.clock(config).level in {"ok", "warning"}  # is it synchronised?
    found = machine.clock(config, lambda: time.time() - 7 * 86400)
    assert found.level == "fault"
    assert "7.0 days before newest file" in found.text


def test_a_clock_that_starts_in_1970_is_a_fault_without_any_file() -> None:
    assert machine.clock(None, lambda: 100.0).level == "fault"


def test_a_clock_behind_the_readings_is_a_fault_unless_a_server_has_set_it(
    configure: Configure, device: Make
) -> None:
    config = configure()
    one = device(config)
    one.live("pump-1", np.ones((20, 2)), begin=20 * 8766)  # hours, from 2008 on
    one.close()
    newest = state.newest_reading_s(config.state)
    day_before = newest - 86400
    for path in config.state.glob("*"):
        os.utime(path, (day_before, day_before))
    for said, level in ((False, "fault"), (None, "fault"), (True, "warning")):
        found = machine.clock(config, lambda: day_before, lambda said=said: said)
        assert (found.level, "behind the data" in found.text) == (level, True)
        assert "behind the data" not in machine.clock(config, lambda: newest).text
    assert "sender" in found.mend


def test_messages_refused_as_of_the_future_are_told_with_the_clock(
    configure: Configure, device: Make
) -> None:
    config = configure()
    one = device(config)
    clock = DeviceClock(300 * 10**9, is_set=lambda: True)
    body = b'{"t": %d, "v": {"vibration": 1.0, "temperature": 2.0}}' % (time.time() + 7 * 86400)
    topic = "runout/v1/test/node/pump-1/readings"
    ahead = [Arrival(topic, body, n, time.time_ns()) for n in range(1, 21)]
    one.engine.process(*Assembler(config, clock).assemble(ahead))
    one.close()
    found = machine.clock(config)
    assert found.level == "warning"
    assert f"20 messages of the last day were refused, the newest of {topic}" in found.text
    assert "refused" not in machine.clock(config, lambda: time.time() + 3 * 86400).text


# -- the state folder ----------------------------------------------------------------------------


def test_a_sound_state_folder_raises_nothing(configure: Configure, device: Make) -> None:
    config = configure()
    one = device(config)
    one.live("pump-1", np.ones((20, 2)))
    one.close()
    before = {path: path.stat().st_mtime_ns for path in config.state.iterdir()}
    for check in (state.state, state.disk, state.agents, state.store, state.checkpoint):
        assert check(config).level == "ok", check(config)
    after = {path: path.stat().st_mtime_ns for path in config.state.iterdir()}
    assert {path: after[path] for path in before} == before


def test_before_the_first_start_there_is_nothing_to_find(configure: Configure) -> None:
    config = configure()
    for check in (state.state, state.disk, state.agents, state.store, state.checkpoint):
        assert check(config).level == "ok", check(config)
    assert not config.state.exists()


def test_a_state_folder_of_another_user_is_a_fault_that_names_both(
    configure: Configure, public: Path
) -> None:
    folder = public / "state"
    folder.mkdir(mode=0o555)
    found = as_nobody(lambda: state.state(at(configure(), folder)))
    assert found.level == "fault"
    assert "cannot write it" in found.text
    assert "chown" in found.mend


def test_a_state_folder_that_cannot_be_made_is_a_fault(configure: Configure, public: Path) -> None:
    public.chmod(0o555)
    found = as_nobody(lambda: state.state(at(configure(), public / "deep" / "state")))
    assert found.level == "fault"
    assert "install -d" in found.mend
    public.chmod(0o755)


@as_root
def test_a_file_of_another_user_in_the_state_folder_is_a_fault(
    configure: Configure, tmp_path: Path
) -> None:
    for name in ("store.db", "checkpoint.npz"):
        (tmp_path / name).touch()
    os.chown(tmp_path / "store.db", NOBODY, NOBODY)
    found = state.state(at(configure(), tmp_path))
    assert found.level == "fault"
    assert "not store.db in it" in found.text


def test_a_full_disk_is_a_fault(configure: Configure, small_disk: Path) -> None:
    config = at(configure(), small_disk)
    with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert "full" in state.state(config).text
    found = state.disk(config)
    assert found.level == "fault"
    assert "journalctl --vacuum" in found.mend


def test_a_disk_that_has_turned_read_only_is_a_fault_that_suspects_the_card(
    configure: Configure, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    config = at(configure(), small_disk)
    for found in (state.state(config), state.disk(config)):
        assert found.level == "fault"
        assert "read-only" in found.text
        assert "card" in found.mend


def test_a_disk_smaller_than_what_is_kept_is_a_warning(configure: Configure) -> None:
    config = configure(keep=Keep(journal_mb=1e9))
    assert state.disk(config).level == "warning"


def test_a_state_folder_in_memory_is_a_warning(configure: Configure, small_disk: Path) -> None:
    found = state.card(at(configure(), small_disk))
    assert found.level == "warning"
    assert "tmpfs" in found.text
    assert "gone" in found.text


def test_one_agent_at_a_state_folder_is_well_and_another_does_not_join_it(
    agent: Make, configure: Configure
) -> None:
    one, two = agent("node"), agent("node")
    config = at(configure(), one.state)
    assert state.agents(config).text == "does not run"
    one.start().wait_for("started")
    wait_until(lambda: state.agents(config).text.startswith("runs (pid"))
    two.start().wait_for("in use by another agent")
    assert two.end() == 2
    assert state.agents(config).text.startswith("runs (pid")


def test_a_damaged_store_is_a_fault_and_one_set_aside_a_warning(
    configure: Configure, device: Make
) -> None:
    config = configure()
    one = device(config)
    one.live("pump-1", np.random.default_rng(1).normal(size=(2000, 2)))
    one.close()
    path = config.state / "store.db"
    whole = path.read_bytes()
    middle = len(whole) // 2 & ~4095
    path.write_bytes(whole[:middle] + bytes([0xA5]) * 8192 + whole[middle + 8192 :])
    found = state.store(config)
    assert found.level == "fault"
    assert "sets it aside" in found.mend
    path.write_bytes(b"not a database at all, but as long as a head of one, and longer" * 10)
    assert state.store(config).level == "fault"
    path.write_bytes(whole)
    assert state.store(config).level == "ok"
    path.with_name("store.damaged-1.db").touch()
    assert "damaged before: store.damaged-1.db" in state.store(config).text


def test_a_journal_that_outgrew_its_bound_is_a_warning(configure: Configure, device: Make) -> None:
    config = configure()
    device(config).live("pump-1", np.random.default_rng(1).normal(size=(2000, 2)))
    small = msgspec.structs.replace(config, keep=Keep(journal_mb=0.001))
    assert state.store(config).level == "ok"
    assert state.store(small).level == "warning"


def test_a_truncated_checkpoint_is_a_warning_while_there_is_one_before(
    configure: Configure, device: Make
) -> None:
    config = configure()
    one = device(config)
    one.live("pump-1", np.ones((20, 2)))
    one.engine.checkpoint()
    one.live("pump-1", np.ones((20, 2)), begin=20)
    one.close()
    newest = config.state / "checkpoint.npz"
    assert state.checkpoint(config).level == "ok"
    newest.write_bytes(newest.read_bytes()[:-20])
    assert state.checkpoint(config).level == "warning"
    (config.state / "checkpoint.prev.npz").write_bytes(b"")
    found = state.checkpoint(config)
    assert found.level == "fault"
    assert "checkpoint.npz" in found.text


# -- sources -------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[Path]:
    """Return a serial port: one end of a pseudo-terminal."""
    ours, theirs = pty.openpty()
    yield Path(os.ttyname(theirs))
    os.close(ours)
    os.close(theirs)


def serial(url: str) -> Serial:
    return Serial(url=url, asset="pump-1", columns=("vibration",))


HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_serial_port_that_another_program_holds_is_a_fault_that_names_it() -> None:
    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    os.close(theirs)  # else this very process has it open, and is left out
    with ExitStack() as opened:
        opened.callback(os.close, ours)
        assert sources.source(serial(path)).level == "ok"
        command = [sys.executable, "-c", HOLD, path]
        pipe = subprocess.PIPE
        holder = opened.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe))
        assert holder.stdout is not None
        holder.stdout.readline()
        found = sources.source(serial(path))
        assert found.level == "fault"
        assert f"pid {holder.pid}" in found.text
        # The lock is seen by those, too, who may not look into the other's files.
        assert str(holder.pid) in as_nobody_locks(Path(path))
        holder.communicate()


def as_nobody_locks(path: Path) -> str:
    def look() -> Finding:
        from agent.doctor.processes import lock_holders

        return Finding("locks", "ok", str(lock_holders(path)))

    return as_nobody(look).text


def test_the_agents_own_hold_on_a_port_is_no_fault(agent: Make) -> None:
    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    os.close(theirs)
    setting = f'source=[{{kind="serial",url="{path}",asset="p",columns=["vibration"]}}]'
    process = agent("node", "agent.minimal.toml", setting).start()
    process.wait_for("port open")
    found = sources.source(serial(path))
    assert process.end(signal.SIGTERM) == 0
    os.close(ours)
    assert (found.level, found.text) == ("ok", f"{path}, in use by the agent")


@as_root
def test_a_serial_port_without_permission_is_a_fault_that_names_the_group(terminal: Path) -> None:
    terminal.chmod(0o600)
    found = as_nobody(lambda: sources.port(terminal, "source serial"))
    assert found.level == "fault"
    assert "may not use" in found.text
    assert "usermod -a -G dialout" in found.mend
    os.chown(terminal, 0, grp.getgrnam("audio").gr_gid)
    terminal.chmod(0o660)
    found = as_nobody(lambda: sources.port(terminal, "source serial"))
    assert "usermod -a -G audio" in found.mend


def test_a_port_that_is_not_there_or_is_none_is_a_fault(tmp_path: Path) -> None:
    assert "plug it in" in sources.source(serial(str(tmp_path / "ttyUSB0"))).mend
    (tmp_path / "file").touch()
    assert "no serial port" in sources.source(serial(str(tmp_path / "file"))).text


def test_the_systems_console_is_a_warning(terminal: Path, tmp_path: Path) -> None:
    cmdline = tmp_path / "cmdline"
    cmdline.write_text(f"console={terminal.name},115200 console=tty1 root=/dev/mmcblk0p2\n")
    found = sources.port(terminal, "source serial", cmdline)
    assert found.level == "warning"
    assert "raspi-config" in found.mend


def test_an_address_that_nobody_listens_at_is_a_fault(free_ports: Callable[[], int]) -> None:
    port = free_ports()
    assert sources.source(serial(f"socket://127.0.0.1:{port}")).level == "fault"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen()
        assert sources.source(serial(f"socket://127.0.0.1:{port}")).level == "ok"
        poll = msgspec.convert([{"channel": "flow", "register": 0}], Modbus.__annotations__["poll"])
        modbus = Modbus(url=f"tcp://127.0.0.1:{port}", poll=poll, asset="p")
        assert sources.source(modbus).level == "ok"


def test_an_address_that_is_taken_is_a_fault_unless_the_agent_has_it() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = Http(port=listening.getsockname()[1])
        assert sources.source(config).level == "fault"
        assert sources.source(config, at_work=True).level == "ok"
    assert sources.source(config).level == "ok"


# -- the broker ----------------------------------------------------------------------------------


def asking(config: AgentConfig, port: int, **changes: object) -> AgentConfig:
    return msgspec.structs.replace(config, mqtt=Mqtt(port=port, **changes))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_broker_is_let_know_who_asks_and_refuses_the_wrong_password(
    version: str, configure: Configure, new_broker: Make, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    command = ["mosquitto_passwd", "-b", str(passwords), "node", "the right one"]
    subprocess.run(command, check=True, capture_output=True)
    broker = new_broker(f"allow_anonymous false\npassword_file {passwords}\n")
    mine = tmp_path / "mine"
    mine.write_text("the right one\n")
    mine.chmod(0o600)
    login = {"version": version, "username": "node", "password_file": str(mine)}
    config = asking(configure(), broker.port, **login)
    assert broker_check.login(config).level == "ok"
    assert broker_check.files(config).level == "ok"
    mine.write_text("a wrong one\n")
    found = broker_check.login(config)
    assert (found.level, "refuses user 'node'" in found.text) == ("fault", True)
    assert "mqtt.password_file" in found.mend
    nameless = asking(configure(), broker.port, version=version)
    assert "without a user name" in broker_check.login(nameless).text
    mine.write_text("\n")
    assert broker_check.files(config).level == "fault"
    assert broker_check.same_name(config).level == "ok"  # and does not try to log in
    mine.write_text("the right one\n")
    mine.chmod(0o644)
    assert "everybody may read" in broker_check.files(config).text


def test_a_broker_that_is_not_there_is_a_fault_with_the_command_that_starts_it(
    configure: Configure, free_ports: Callable[[], int]
) -> None:
    found = broker_check.login(asking(configure(), free_ports()))
    assert found.level == "fault"
    assert "systemctl start mosquitto" in found.mend
    nowhere = broker_check.login(asking(configure(), 1883, host="no.such.host.invalid"))
    assert "spelt right" in nowhere.mend


def test_what_is_no_broker_is_a_fault(configure: Configure) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = broker_check.login(asking(configure(), server.server_port))
        server.shutdown()
        thread.join()
    assert found.level == "fault"


def test_another_agent_of_the_same_name_is_a_fault(
    configure: Configure, broker: Any, connect: Make, agent: Make, tmp_path: Path
) -> None:
    config = asking(configure("node"), broker.port)
    assert broker_check.same_name(config).level == "ok"
    plant = connect(broker)
    other = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    here = at(config, tmp_path / "elsewhere")
    found = broker_check.same_name(here)
    assert (found.level, "is online" in found.text) == ("fault", True)
    assert broker_check.same_name(at(config, other.state)).level == "ok"  # that is it
    assert other.end(signal.SIGTERM) == 0
    assert broker_check.same_name(here).level == "ok"


def test_the_name_that_every_new_device_has_is_a_warning(configure: Configure, broker: Any) -> None:
    found = broker_check.same_name(asking(configure("raspberrypi"), broker.port))
    assert found.level == "warning"


def test_mosquittos_defaults_are_a_warning_and_our_drop_in_mends_it(
    configure: Configure, tmp_path: Path
) -> None:
    config, conf = configure(), tmp_path / "mosquitto.conf"
    conf.write_text(f"persistence true\ninclude_dir {tmp_path}/conf.d\n")
    assert "max_inflight_messages is 20" in broker_check.keeps(config, conf).text
    (tmp_path / "conf.d").mkdir()
    drop_in = (ROOT / "deploy" / "pi" / "mosquitto-runout.conf").read_text()
    (tmp_path / "conf.d" / "runout.conf").write_text(drop_in)
    found = broker_check.keeps(config, conf)
    assert (found.level, found.text) == ("ok", "1000 in flight, 100000 queued, persistent")
    conf.write_text(f"include_dir {tmp_path}/conf.d\n")
    assert "queue is lost" in broker_check.keeps(config, conf).text


def test_mosquittos_configuration_says_nothing_of_a_broker_at_another_port(
    configure: Configure, tmp_path: Path
) -> None:
    conf = tmp_path / "mosquitto.conf"
    other = asking(configure(), 1999)
    for text, known in (
        ("persistence true\n", False),
        ("listener 1883 127.0.0.1\n", False),
        ("port 1999\n", True),
        ("listener 1883\nlistener 1999 127.0.0.1\n", True),
    ):
        conf.write_text(text)
        found = broker_check.keeps(other, conf)
        assert (found.level == "warning") is known, text
        assert ("another broker's" in found.text) is not known


# -- TLS -----------------------------------------------------------------------------------------


class Authority:
    """Issues certificates, valid when it is told to."""

    def __init__(self, folder: Path, name: str, until: dt.datetime = NOW + 900 * DAY) -> None:
        self._folder, self._key, self._name = folder, ec.generate_private_key(ec.SECP256R1()), name
        self.ca = folder / f"{name}.crt"
        self.ca.write_bytes(self._sign(name, self._key, NOW - 999 * DAY, until, issues=True))

    def issue(
        self,
        name: str,
        begin: dt.datetime = NOW - 900 * DAY,
        until: dt.datetime = NOW + 400 * DAY,
        address: str = "127.0.0.1",
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        paths = (self._folder / f"{name}.pem", self._folder / f"{name}.key")
        paths[0].write_bytes(self._sign(name, key, begin, until, address=address))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        begin: dt.datetime,
        until: dt.datetime,
        *,
        issues: bool = False,
        address: str = "",
    ) -> bytes:
        def called(word: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)])

        builder = (
            x509.CertificateBuilder(called(self._name), called(name), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=issues, path_length=None), critical=True)
        )
        if address:
            alternative = x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(address))]
            )
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("until", [NOW + 3 * DAY, dt.datetime(2061, 2, 3, 4, 5, 6, tzinfo=dt.UTC)])
def test_the_validity_of_a_certificate_is_read_from_its_file(
    tmp_path: Path, until: dt.datetime
) -> None:
    path, _ = Authority(tmp_path, "plant").issue("broker", until=until)
    begin, end = validity(path)
    assert end == until.replace(microsecond=0)
    assert begin == (NOW - 900 * DAY).replace(microsecond=0)
    for bad in (b"", b"-----BEGIN CERTIFICATE-----\n", path.read_bytes()[:200]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="certificate"):
            validity(path)


def test_files_of_tls_that_have_expired_or_do_not_fit_are_faults(tmp_path: Path) -> None:
    plant = Authority(tmp_path, "plant")
    fine, key = plant.issue("node")
    old, old_key = plant.issue("old", until=NOW - 3 * DAY)
    soon, soon_key = plant.issue("soon", until=NOW + 3 * DAY)
    later, later_key = plant.issue("later", begin=NOW + 3 * DAY)

    def check(certificate: Path, key: Path, ca: Path = plant.ca) -> tuple[str, str]:
        found = broker_check.certificates(Tls(str(ca), str(certificate), str(key)), "files")
        return found.level, found.text

    assert check(fine, key)[0] == "ok"
    assert check(old, old_key)[0] == "fault"
    assert "expired on" in check(old, old_key)[1]
    assert check(soon, soon_key)[0] == "warning"
    assert check(later, later_key)[0] == "fault"
    assert "do not go together" in check(fine, soon_key)[1]
    assert "no certificate" in check(key, key)[1]
    gone = Authority(tmp_path, "gone", until=NOW - DAY)
    assert "gone.crt expired" in check(fine, key, gone.ca)[1]


def secured(new_broker: Make, plant: Authority, **when: Any) -> Any:
    certificate, key = plant.issue("broker", **when)
    return new_broker(f"cafile {plant.ca}\ncertfile {certificate}\nkeyfile {key}\n")


@pytest.mark.parametrize(
    ("when", "other_ca", "words"),
    [
        ({}, False, ""),
        ({"until": NOW - 3 * DAY}, False, "has expired"),
        ({"begin": NOW + 3 * DAY}, False, "not valid yet"),
        ({"address": "192.0.2.7"}, False, "another name"),
        ({}, True, "not trusted"),
    ],
    ids=["sound", "expired", "not yet", "another name", "another authority"],
)
def test_a_brokers_certificate_that_is_not_right_is_a_fault_that_says_why(
    when: dict[str, Any],
    other_ca: bool,
    words: str,
    configure: Configure,
    new_broker: Make,
    tmp_path: Path,
) -> None:
    plant = Authority(tmp_path, "plant")
    broker = secured(new_broker, plant, **when)
    ca = Authority(tmp_path, "other").ca if other_ca else plant.ca
    found = broker_check.login(asking(configure(), broker.port, tls=Tls(str(ca))))
    assert found.level == ("fault" if words else "ok")
    assert words in found.text


def test_tls_with_a_broker_that_has_none_is_a_fault(
    configure: Configure, broker: Any, tmp_path: Path
) -> None:
    ca = Authority(tmp_path, "plant").ca
    assert broker_check.login(asking(configure(), broker.port, tls=Tls(str(ca)))).level == "fault"


@pytest.fixture
def new_broker(tmp_path: Path, broker_type: Any) -> Iterator[Make]:
    """Start brokers that end with the test."""
    with ExitStack() as opened:

        def make(more: str) -> Any:
            made = broker_type(tmp_path / "new-broker", more)
            opened.callback(made.stop)
            made.start()
            return made

        yield make


@pytest.fixture
def broker_type(stopped_broker: Any) -> Any:
    return type(stopped_broker)


# -- the fleet -----------------------------------------------------------------------------------


def test_a_server_that_is_away_is_a_warning_since_the_agent_works_without(
    configure: Configure, free_ports: Callable[[], int], tmp_path: Path
) -> None:
    assert federation.server(configure()).level == "ok"
    port = free_ports()
    fleet = Federation(superlink=f"127.0.0.1:{port}")
    found = federation.server(configure(federation=fleet))
    assert (found.level, "works without" in found.text) == ("warning", True)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen()
        assert federation.server(configure(federation=fleet)).level == "ok"
    old = Authority(tmp_path, "old", until=NOW - DAY)
    expired = msgspec.structs.replace(fleet, ca=str(old.ca))
    assert "expired" in federation.server(configure(federation=expired)).text


def test_an_app_of_another_version_is_a_warning(configure: Configure) -> None:
    config = configure()
    assert federation.bundle(config).level == "ok"
    apps = config.state / "flwr" / "apps"
    (apps / "runout.runout.99.1.2.0123abcd").mkdir(parents=True)
    found = federation.bundle(config)
    assert (found.level, "99.1.2" in found.text) == ("warning", True)


def test_a_release_that_was_refused_is_a_warning_with_the_reason(
    configure: Configure, device: Make
) -> None:
    config = configure()
    one = device(config)
    assert federation.releases(config).level == "ok"
    one.engine.store.note_rollout(1, "pump", 7, "d", "rejected", "of contract 9, this is 1")
    one.close()
    found = federation.releases(config)
    assert (found.level, "of contract 9" in found.text) == ("warning", True)


# -- the command ---------------------------------------------------------------------------------


def doctor(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [COMMAND, "doctor", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_beside_an_agent_that_runs_the_doctor_finds_no_fault_and_disturbs_nothing(
    agent: Make, broker: Any, connect: Make
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    settings = [f"mqtt.port={broker.port}", f"node.state={process.state}", "node.name=node"]
    words = [word for setting in [*settings, "node.site=test"] for word in ("--set", setting)]
    config = str(ROOT / "configs" / "agent.minimal.toml")
    code, said = doctor("--config", config, *words, "--json")
    told = json.loads(said)
    assert (code, told["faults"]) == (0, 0), told
    found = {one["check"]: one for one in told["findings"]}
    assert found["agent"]["text"].startswith("runs (pid")
    assert len(found) >= 18
    code, said = doctor("--config", config, *words)
    assert code == 0
    assert len(said.splitlines()) == len(told["findings"])
    assert process.end(signal.SIGTERM) == 0
    assert "connection lost" not in process.said
    assert process.said.count("connected") == 1


def test_with_a_broken_configuration_the_machine_is_looked_at_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[node]\nnmae = 'x'\n")
    code, said = doctor("--config", str(path))
    assert code == 1
    assert said.startswith("FAULT    config: ")
    assert "did you mean 'name'?" in said
    assert "\nok       numpy: " in said


@as_root
def test_root_looks_at_a_device_as_the_user_of_its_state_folder(
    public: Path,
) -> None:
    folder = public / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    config = public / "agent.toml"
    config.write_text((ROOT / "configs" / "agent.minimal.toml").read_text())
    config.chmod(0o600)

    def look() -> Finding:
        return next(f for f in examine(config, [f"node.state={folder}"]) if f.check == "user")

    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.write(writes, msgspec.json.encode(look()))
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        found = msgspec.json.decode(pipe.read(), type=Finding)
    os.waitpid(child, 0)
    assert (found.level, found.text) == ("fault", f"nobody cannot read {config}")

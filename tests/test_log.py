"""Logs as systemd's journal and collectors take them: a real socket, real programs."""

import array
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.log import Journal, Json, Text, is_journal
from tests.agent.conftest import Broker, broker, stopped_broker
from tests.server.fleet import FleetProcess

__all__ = ["broker", "stopped_broker"]


def fields(datagram: bytes) -> dict[str, str]:
    """Read what was sent to the journal, by the protocol's own rules."""
    found = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, has_value, value = line.partition(b"=")
        if not has_value:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[8 + size :]
            assert datagram[:1] == b"\n"
            datagram = datagram[1:]
        found[name.decode()] = value.decode()
    return found


class Receiver:
    """A socket where the journal's would be."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(60)

    def take(self) -> dict[str, str]:
        """Return the next entry: of a datagram, or of the file whose descriptor came."""
        size = array.array("i").itemsize
        body, told, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(size))
        if not told:
            return fields(body)
        assert body == b""
        number = array.array("i", told[0][2])[0]
        with open(number, "rb") as file:  # noqa: PTH123  # a descriptor, and no path
            file.seek(0)
            return fields(file.read())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def logger() -> Iterator[Callable[[logging.Handler], logging.Logger]]:
    log = logging.getLogger("runout.of_a_test")
    log.setLevel(logging.DEBUG)
    log.propagate = False

    def with_handler(handler: logging.Handler) -> logging.Logger:
        log.addHandler(handler)
        return log

    yield with_handler
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def test_a_record_comes_with_its_facts_as_fields(
    receiver: Receiver, logger: Callable[[logging.Handler], logging.Logger]
) -> None:
    log = logger(Journal("runout-agent", receiver.path))
    log.warning("late: %d", 3, extra={"asset": "pump=1\nü", "no-name": None})
    found = receiver.take()
    assert found["MESSAGE"] == "late: 3 asset=pump=1\nü no-name=None"
    assert found["PRIORITY"] == "4"
    assert found["SYSLOG_IDENTIFIER"] == "runout-agent"
    assert found["LOGGER"] == "runout.of_a_test"
    assert found["RUNOUT_ASSET"] == "pump=1\nü"
    assert found["RUNOUT_NO_NAME"] == "None"
    assert Path(found["CODE_FILE"]) == Path(__file__)
    assert found["CODE_FUNC"] == "test_a_record_comes_with_its_facts_as_fields"
    assert int(found["CODE_LINE"]) > 0


def test_text_that_is_no_unicode_is_written_too(receiver: Receiver) -> None:
    # Past the logger: what a test logs is told on, and could not be.
    handler = Journal("runout-agent", receiver.path)
    text = f"no such file: {os.fsdecode(bytes([99, 97, 102, 233]))}"
    handler.emit(logging.makeLogRecord({"msg": text, "levelno": 30, "text": chr(0xD800)}))
    handler.close()
    found = receiver.take()
    assert found["MESSAGE"].startswith(r"no such file: caf\udce9")
    assert found["RUNOUT_TEXT"] == r"\ud800"


def test_an_error_brings_its_traceback(
    receiver: Receiver, logger: Callable[[logging.Handler], logging.Logger]
) -> None:
    log = logger(Journal("runout-agent", receiver.path))
    try:
        int("of old")
    except ValueError:
        log.exception("broken")
    found = receiver.take()
    assert found["PRIORITY"] == "3"
    assert found["MESSAGE"].startswith("broken\nTraceback")
    assert found["MESSAGE"].rstrip().endswith("'of old'")


def test_what_is_too_long_for_a_datagram_comes_as_a_file(
    receiver: Receiver, logger: Callable[[logging.Handler], logging.Logger]
) -> None:
    log = logger(Journal("runout-agent", receiver.path))
    log.info("x" * 3_000_000)
    assert len(receiver.take()["MESSAGE"]) == 3_000_000
    log.info("and on")
    assert receiver.take()["MESSAGE"] == "and on"


def test_where_there_is_no_journal_standard_error_gets_priorities(
    tmp_path: Path,
    logger: Callable[[logging.Handler], logging.Logger],
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logger(Journal("runout-agent", str(tmp_path / "none")))
    log.error("two\nlines")
    log.debug("one")
    assert capsys.readouterr().err == "<3>two\n<3>lines\n<7>one\n"


# A journal of its own, on a /run that is this program's alone; what it is asked for is printed.
_JOURNALD = r"""
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
echo 0123456789abcdef0123456789abcdef >/run/machine-id
mount --bind /run/machine-id /etc/machine-id
mount -t tmpfs none /var/log
"$1" 2>/run/errors &
journald=$!
trap 'kill $journald; wait $journald' EXIT
until [ -S /run/systemd/journal/socket ]; do
  kill -0 $journald || { cat /run/errors >&2; exit 1; }
done
"$2" -c "$3"
journalctl --sync
journalctl -D /run/log/journal --no-pager -o json --all RUNOUT_ASSET=pump-1
journalctl -D /run/log/journal --no-pager -o cat -p warning -t runout-agent
"""
_LOGS = """
import logging
from contract.log import set_up
set_up(logging.INFO, "journal", "runout-agent")
log = logging.getLogger("runout.agent")
log.warning("late", extra={"asset": "pump-1", "text": "two\\nlines"})
log.info("y" * 1_000_000, extra={"asset": "pump-1"})
"""


def test_a_real_journal_finds_entries_by_their_facts() -> None:
    journald = Path("/lib/systemd/systemd-journald")
    if os.geteuid() or not journald.exists():
        pytest.skip("needs root and systemd-journald: a journal of the test's own is started")
    apart = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounts of one's own are not allowed here: no journal is started")
    done = subprocess.run(
        [*apart, "sh", "-c", _JOURNALD, "sh", journald, sys.executable, _LOGS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    late, long, *warnings = done.stdout.splitlines()
    found = json.loads(late)
    assert found["MESSAGE"] == "late asset=pump-1 text=two\nlines"
    assert found["RUNOUT_TEXT"] == "two\nlines"
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("4", "runout-agent")
    assert (found["LOGGER"], found["_TRANSPORT"]) == ("runout.agent", "journal")
    assert json.loads(long)["MESSAGE"] == "y" * 1_000_000 + " asset=pump-1"
    assert warnings == found["MESSAGE"].splitlines()


def test_an_object_a_line_with_facts_that_keep_their_kind() -> None:
    record = logging.makeLogRecord(
        {
            "name": "runout.agent",
            "levelno": 20,
            "levelname": "INFO",
            "msg": "a\nb",
            "created": 1_800_000_000.25,
            "msecs": 250.0,
            "hours": 3.5,
            "time": 7,
            "state": Path("x"),
            "scores": {"pump": (float("nan"), 1.5)},
        }
    )
    line = Json().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "logger": "runout.agent",
        "message": "a\nb",
        "hours": 3.5,
        "time_": 7,
        "state": "x",
        "scores": {"pump": [None, 1.5]},
    }
    assert "NaN" not in line
    del record.scores
    assert Text("%(message)s").format(record) == "a\nb hours=3.5 time=7 state=x"


def test_the_journal_is_known_by_the_stream_that_systemd_names(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        found = os.fstat(file.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(named, file.fileno())
        assert not is_journal({"JOURNAL_STREAM": f"{found.st_dev}:1"}, file.fileno())
    assert not is_journal({})


def test_agent_and_server_log_as_they_are_told(tmp_path: Path, broker: Broker) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[node]\nname = "n"\nstate = "{tmp_path / "n"}"\n[mqtt]\nport = {broker.port}\n'
        '[[asset_class]]\nname = "pump"\nchannels = [{ name = "v", unit = "mm/s" }]\n'
    )
    program = Path(sys.executable).with_name("runout-agent")
    process = subprocess.Popen(
        [program, "run", "--config", config, "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["message"] == "connected":
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stderr.close()
    assert lines[0]["message"] == "started"
    assert lines[0]["node"] == "n"
    assert lines[-1]["broker"] == f"127.0.0.1:{broker.port}"

    server = FleetProcess(tmp_path, broker.port, options=["--log-format", "json"])
    server.start().wait_for("connected to the broker")
    server.wait_for("fleet page: ")  # either may come first
    assert server.end() == 0
    said = [json.loads(line) for line in server.said.splitlines()]
    assert {one["logger"] for one in said} <= {"runout.server", "runout.fleet"}
    assert any(one["message"].startswith("fleet page: ") for one in said)

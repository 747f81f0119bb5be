"""``runout-node`` against a stock SuperLink, with TLS and keys: the contract of ``flowerapp.link``.

The tests of this file stand in the order of one story and share its processes.
"""

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.error import ApiErrorCode

from agent.cli import main as agent_main
from agent.clock import right_since
from contract.update import Readiness
from flowerapp import link as flower
from flowerapp.cli import main
from flowerapp.link import AwayError, Link, RefusedError
from flowerapp.node import Node, wait_for_clock
from server.enrol import init
from tests.agent.conftest import (
    ROOT,
    AgentProcess,
    Broker,
    Plant,
    Reading,
    free_port,
    wait_until,
)
from tests.server.superlink import StockSuperLink

MOST_MB = 110
TOLD_S = 300.0

echo = ClientApp()


@echo.train()
def train(message: Message, context: Context) -> Message:
    content = RecordDict({"from": ConfigRecord({"code": str(context.node_config["node"])})})
    content["arrays"] = message.content["arrays"]
    return Message(content, reply_to=message)


@echo.query("fail")
def fail(_message: Message, _context: Context) -> Message:
    raise KeyError("no such bearing")


@echo.query("refuse")
def refuse(message: Message, _context: Context) -> Message:
    return Message(Error(100, "another contract"), reply_to=message)


class _Stop(BaseException):
    """Ends a node in a thread, as ``KeyboardInterrupt`` does in a process."""


class Running:
    """A node in a thread of its own."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.opened: list[int] = []
        self._end = threading.Event()
        open_link = link.open

        def counted() -> int:
            self.opened.append(open_link())
            return self.opened[-1]

        link.open = counted  # type: ignore[method-assign]
        self.node = Node(
            link,
            echo,
            {"node": "echo"},
            remember=lambda _number: None,
            poll_s=1.0,
            busy_s=0.2,
            wait=self._wait,
            rng=random.Random(1),  # noqa: S311
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _wait(self, seconds: float) -> None:
        # A server that is away is asked again at once: the test waits for it, too.
        if self._end.wait(min(seconds, 0.2)):
            raise _Stop

    def _run(self) -> None:
        try:
            self.node.run()
        except _Stop:
            self.node.close()

    def end(self) -> None:
        self._end.set()
        self._thread.join()


class Devices:
    """SuperLink and two nodes: one in a thread with an app of the test, one with its agent."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self.superlink = StockSuperLink(folder / "fleet")
        opened.callback(self.superlink.close)
        self.broker = Broker(folder / "broker")
        opened.callback(self.broker.stop)
        self.broker.start()
        settings = [
            f"mqtt.port={self.broker.port}",
            "report.status_s=0.02",
            f"federation.superlink={self.superlink.outside}",
            f"federation.ca={folder / 'fleet' / 'ca.crt'}",
            f"federation.key={folder / 'fleet' / 'rpi-1.key'}",
            "federation.poll_s=1.0",
        ]
        self.superlink.start()
        self.superlink.start_proxy()
        self.echo_key = self.superlink.enrol("echo")
        self.superlink.enrol("rpi-1")
        self.agent = AgentProcess(
            "rpi-1", ROOT / "configs" / "agent.minimal.toml", folder, settings
        )
        opened.callback(self.agent.kill)
        self.agent.start()
        self.plant = Plant(self.broker.port)
        opened.callback(self.plant.close)
        self.plant.wait_for("rpi-1", lambda status: status.online)
        self.echo = Running(Link(self.superlink.address, ca=self.superlink.ca, key=self.echo_key))
        opened.callback(self.echo.end)
        command = [str(Path(sys.executable).with_name("runout-agent")), "node"]
        self.process = subprocess.Popen(
            [*command, *self.agent.words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.reading = Reading(self.process)
        opened.callback(self.process.wait)
        opened.callback(self.reading.close)
        opened.callback(self.process.kill)


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    with ExitStack() as opened:
        yield Devices(tmp_path_factory.mktemp("devices"), opened)


@contextmanager
def link_to(
    devices: Devices, key: ec.EllipticCurvePrivateKey | None, **more: object
) -> Iterator[Link]:
    options = {"ca": devices.superlink.ca, **more}
    with closing(Link(devices.superlink.address, key=key, **options)) as link:  # type: ignore[arg-type]
        yield link


def patiently(ready: Callable[[], bool]) -> None:
    """Wait for a run: three processes are started for one."""
    end, pause = time.monotonic() + TOLD_S, threading.Event().wait
    while not ready():
        assert time.monotonic() < end
        pause(0.1)


def test_a_server_that_is_not_there_is_waited_for() -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        closing(Link(address)) as link,
        pytest.raises(AwayError, match=f"{address} cannot be reached"),
    ):
        link.open()


def test_the_codes_are_those_of_this_flower() -> None:
    mine = (flower.KEY_IN_USE, flower.VERSION_APART, flower.NO_REGISTRATION, flower.NOT_ACTIVATED)
    assert mine == (
        ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE,
        ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE,
        ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED,
        ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,
    )


@pytest.mark.flower
def test_who_is_not_let_in_is_told_why(devices: Devices, tmp_path: Path) -> None:
    wait_until(lambda: bool(devices.echo.opened))
    unknown = ec.generate_private_key(ec.SECP384R1())
    init(tmp_path / "other", "127.0.0.1:1", ["127.0.0.1"])
    other = (tmp_path / "other" / "ca.crt").read_text()
    cases = [
        (link_to(devices, None), "enrolled nodes alone: give federation.key"),
        (link_to(devices, unknown), "it was not enrolled yet"),
        (link_to(devices, devices.echo_key), "another node has it, too"),
        (link_to(devices, devices.echo_key, ca=other), "not the server that federation.ca vouches"),
        (link_to(devices, devices.echo_key, now=lambda: time.time() + 3600), "s ahead of the"),
        (link_to(devices, devices.echo_key, now=lambda: time.time() - 3600), "s behind the"),
    ]
    for case, said in cases:
        with case as link, pytest.raises(RefusedError, match=re.escape(said)) as caught:
            link.open()
        assert caught.value.clock == ("s clock is" in str(caught.value))


@pytest.mark.flower
def test_after_a_superlink_was_killed_a_node_is_the_same_node(devices: Devices) -> None:
    devices.superlink.kill()
    devices.superlink.start()
    wait_until(lambda: len(devices.echo.opened) == 2)
    first, second = devices.echo.opened
    assert first == second != 0
    assert devices.superlink.states()[first] == "online"


@pytest.mark.flower
@pytest.mark.timeout(400)
def test_messages_are_answered_by_what_is_installed_here(devices: Devices, tmp_path: Path) -> None:
    devices.superlink.ask(tmp_path, 2, patiently)
    answers = json.loads((tmp_path / "answers.json").read_text())
    arrays = np.load(tmp_path / "arrays.npz", allow_pickle=False)
    number = devices.echo.link.node_id
    said = [answers[f"{number}/{i}"] for i in range(6)]
    assert said[0] == said[1] == {"code": "echo"}
    np.testing.assert_array_equal(arrays[f"{number}/0"], np.arange(5.0))
    np.testing.assert_array_equal(arrays[f"{number}/1"], np.arange(3_000_000.0) + 1)
    assert said[2] == {"code": 2, "reason": "KeyError: 'no such bearing'"}
    assert said[3] == {"code": 100, "reason": "another contract"}
    assert said[4]["code"] == 2
    # The other answers from the state of its agent, and refuses what is no request of ours.
    (other,) = {key.split("/")[0] for key in answers} - {str(number)}
    ready = msgspec.json.decode(answers[f"{other}/5"]["status"], type=Readiness)
    assert ready.node == "rpi-1"
    assert answers[f"{other}/0"]["code"] == 100


@pytest.mark.flower
def test_a_node_is_one_small_process_that_holds_no_code_of_the_server(devices: Devices) -> None:
    process = psutil.Process(devices.process.pid)
    assert process.children(recursive=True) == []
    assert process.memory_info().rss < MOST_MB * 1e6
    assert not (devices.agent.state / "flwr").exists()


@pytest.mark.flower
def test_an_agent_works_on_when_its_node_and_the_server_die(devices: Devices) -> None:
    devices.process.kill()
    devices.process.wait()
    devices.superlink.kill()
    for value in range(20):
        devices.plant.send("rpi-1", "pump-1", "vibration", b"%d" % value)
    # What comes in the same millisecond is a repetition.
    devices.plant.wait_for("rpi-1", lambda status: status.readings + status.repeated >= 20)
    devices.superlink.start()


@pytest.mark.flower
def test_a_revoked_key_is_out_at_once_and_for_good(
    devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "runout.node")
    wait_until(lambda: len(devices.echo.opened) == 3)
    devices.superlink.revoke(devices.echo.link.node_id)
    wait_until(lambda: "was revoked (runout-server enrol" in caplog.text)
    assert len(devices.echo.opened) == 3


@pytest.mark.flower
def test_a_node_that_is_asked_to_end_tells_the_server(devices: Devices, tmp_path: Path) -> None:
    devices.superlink.enrol("rpi-2")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[node]\nname = "rpi-2"\nstate = "{tmp_path}"\n[federation]\n'
        f'superlink = "{devices.superlink.address}"\nca = "{devices.superlink.folder}/ca.crt"\n'
        f'key = "{devices.superlink.folder}/rpi-2.key"\n'
        '[[asset_class]]\nname = "pump"\nchannels = [{ name = "vibration", unit = "mm/s" }]\n'
    )
    program = str(Path(sys.executable).with_name("runout-node"))
    process = subprocess.Popen(
        [program, "--config", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    reading = Reading(process)
    try:
        reading.wait_for("connected")
        before = devices.superlink.states()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        reading.close()
    after = devices.superlink.states()
    assert [(before[n], after[n]) for n in before if before[n] != after[n]] == [
        ("online", "offline")
    ]


def test_either_node_is_started_by_the_agents_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ROOT / "configs" / "agent.minimal.toml"
    words = ["node", "--config", str(config), "--set", f"node.state={tmp_path}", "--print"]
    assert agent_main(words) == 0
    said = capsys.readouterr().out
    assert said == f"runout-node --config {config} --set node.state={tmp_path}\n"
    assert agent_main([*words, "--stock", "--set", "federation.port=9099"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("flower-supernode --superlink 127.0.0.1:9092 --insecure --port 9099 ")
    assert f'state="{tmp_path}"' in said


def test_a_clock_that_is_behind_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runout.node")
    store = tmp_path / "store.db"
    store.write_bytes(b"")
    now = time.time()
    os.utime(store, (now + 4000, now + 4000))
    times = iter([now, now + 10, now + 4001])
    waited: list[float] = []
    wait_for_clock(tmp_path, waited.append, lambda: next(times), lambda: False)
    assert len(waited) == 2
    assert caplog.text.count("waiting for the clock") == 1
    assert "the clock is set" in caplog.text
    assert right_since(tmp_path) == pytest.approx(now + 4000)
    # Whom a time server vouches for is not held up by a file from the future.
    wait_for_clock(tmp_path, waited.append, lambda: now, lambda: True)
    assert len(waited) == 2
    # And nobody is held up for ever: the server is the judge of it.
    wait_for_clock(tmp_path, waited.append, lambda: now, lambda: False)
    assert "was not set; asking the server all the same" in caplog.text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('superlink = "plant.example:9092"', "is beyond loopback: give federation.ca"),
        ('superlink = "plant.example"', "is no address: write host:port"),
        ('key = "x.key"', "key: there is no file 'x.key'"),
        ('key = "{config}"', "it takes federation.ca"),
        ('ca = "{config}"', "is no PEM file of certificates"),
        ("poll_s = 0", "poll_s"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, said: str
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[node]\nname = "rpi-1"\nstate = "{tmp_path}"\n'
        f"[federation]\n{lines.format(config=config)}\n"
        '[[asset_class]]\nname = "pump"\nchannels = [{ name = "vibration", unit = "mm/s" }]\n'
    )
    assert main(["--config", str(config)]) == 2
    assert said in capsys.readouterr().err

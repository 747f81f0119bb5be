"""npm's ``sparkplug-client``, another implementation, and lines to a broker beside it.

It is installed once into a folder of its own, ``RUNOUT_NPM`` or ``~/.cache/runout-test-npm``.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.block import Block
from agent.sparkplug.host import Host
from agent.sparkplug.schema import Message
from agent.sparkplug.session import Gone

FOLDER = Path(os.environ.get("RUNOUT_NPM") or Path.home() / ".cache/runout-test-npm")
PACKAGE = "sparkplug-client@3.2.4"
PATIENCE_S = 60

READ_JS = """
const payload = require("sparkplug-payload").get("spBv1.0");
const proto = require("sparkplug-payload/lib/sparkplugPayloadProto");
const raw = (data) => proto.org.eclipse.tahu.protobuf.Payload.decode(data).metrics;
const client = require("mqtt").connect(process.argv[1]);
client.on("connect", () => client.subscribe("spBv1.0/#", () => console.log("ready")));
client.on("message", (topic, data) => console.log(JSON.stringify(
  {topic, raw: raw(data), ...payload.decodePayload(data)},
  (_, v) => v && v.toNumber ? v.toNumber() : v)));
process.stdin.on("end", () => client.end(true)).resume();
"""


def absent(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must run these tests")
    pytest.skip(what)


@pytest.fixture(scope="module")
def node() -> str:
    """Return the path of node, with the package installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        absent("node and npm are not on PATH")
    if not (FOLDER / "node_modules/sparkplug-client").is_dir():
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            absent(f"npm could not install {PACKAGE}: {done.stderr[-300:]}")
    return node


class Script:
    """A script of the other implementation; lines go in and come out."""

    def __init__(self, node: str, text: str, port: int) -> None:
        self._process = subprocess.Popen(
            [node, "-e", text, f"mqtt://127.0.0.1:{port}"],
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the script has ended"
        return line.strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=PATIENCE_S)
        self._process.stdout.close()


class Line:
    """An MQTT connection of ours: what comes is kept, and can be waited for."""

    def __init__(self, port: int, name: str, will: Message) -> None:
        self.arrived: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=True)
        self._client.will_set(will.topic, will.payload, will.qos, will.retain)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def subscribe(self, topics: list[str]) -> None:
        self._client.subscribe([(topic, 1) for topic in topics])
        assert self._ready.wait(PATIENCE_S)

    def publish(self, messages: list[Message]) -> None:
        for message in messages:
            self._client.publish(*message)

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, PATIENCE_S), self.arrived

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self.arrived.append((message.topic, message.payload))
            self._changed.notify_all()


@pytest.fixture
def script(node: str, broker: Any) -> Iterator[Callable[[str], Script]]:
    started: list[Script] = []

    def start(text: str) -> Script:
        started.append(Script(node, text, broker.port))
        return started[-1]

    yield start
    for one in started:
        one.close()


class Listener:
    """A host application on a line; messages are read one at a time, as they come."""

    def __init__(self, port: int) -> None:
        self.host = Host("scada", ("plant",), rebirth_s=0)
        self.line = Line(port, "scada", self.host.will(time.time_ns()))
        self.line.subscribe(self.host.subscriptions())
        self.line.publish([self.host.birth()])
        self.values: list[tuple[str, str, str, float]] = []
        self.gone: list[Gone] = []
        self.asked = 0
        self._read = 0

    def wait(self, ready: Callable[[], bool]) -> None:
        self.line.wait(lambda: self._hear() or ready())

    def _hear(self) -> bool:
        for topic, payload in self.line.arrived[self._read :]:
            self._read += 1
            heard = self.host.receive(topic, payload, time.time_ns())
            self.line.publish(heard.say)
            self.asked += len(heard.say)
            self.gone += heard.gone
            for block in heard.readings:
                assert isinstance(block, Block)
                self.values += [
                    (block.asset, channel, block.units[j], value)
                    for row in block.values.tolist()
                    for j, (channel, value) in enumerate(zip(block.channels, row, strict=True))
                ]
        return False

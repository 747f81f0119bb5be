"""Against another implementation, npm's ``sparkplug-client``, over a real broker.

It is installed once into a folder of its own, ``RUNOUT_NPM`` or ``~/.cache/runout-test-npm``.
"""

import json
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
from agent.sparkplug.edge import EdgeNode, Metric
from agent.sparkplug.host import Host
from agent.sparkplug.schema import DataType, Message
from agent.sparkplug.session import Gone

FOLDER = Path(os.environ.get("RUNOUT_NPM") or Path.home() / ".cache/runout-test-npm")
PACKAGE = "sparkplug-client@3.2.4"
PATIENCE_S = 60

NODE_JS = """
const client = require("sparkplug-client").newClient({
  serverUrl: process.argv[1], username: "", password: "", groupId: "plant", edgeNode: "hall",
  clientId: "hall", version: "spBv1.0", publishDeath: true,
});
const now = () => Date.now();
client.on("birth", () => {
  client.publishNodeBirth({timestamp: now(), metrics: [
    {name: "Node Control/Rebirth", type: "Boolean", value: false},
    {name: "Load", type: "Float", value: 0.5},
  ]});
  client.publishDeviceBirth("pump", {timestamp: now(), metrics: [
    {name: "Process/Offset", type: "Int32", value: -5, alias: 7,
     properties: {engUnit: {type: "String", value: "mm"}}},
    {name: "Tiny", type: "Int8", value: -1},
    {name: "Count", type: "UInt64", value: 3},
    {name: "On", type: "Boolean", value: true},
    {name: "Label", type: "String", value: "x"},
  ]});
  for (const value of [-6, -7])
    client.publishDeviceData("pump", {timestamp: now(), metrics: [
      {name: "Process/Offset", type: "Int32", value}]});
});
client.on("ncmd", () => console.log("asked"));
process.stdin.on("data", (line) => {
  if (line.toString().includes("bury"))
    client.publishDeviceDeath("pump", {timestamp: now(), metrics: []});
  if (line.toString().includes("birth")) client.emit("birth");
  if (line.toString().includes("stop")) { client.stop(); process.stdin.pause(); }
});
"""

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


BORN = [
    ("hall", "Load", "", 0.5),
    ("pump", "Process.Offset", "mm", -5),
    ("pump", "Tiny", "", -1),
    ("pump", "Count", "", 3),
    ("pump", "On", "", 1),
    ("pump", "Process.Offset", "mm", -6),
    ("pump", "Process.Offset", "mm", -7),
]


def test_the_host_understands_another_edge_node(
    broker: Any, script: Callable[[str], Script]
) -> None:
    listener = Listener(broker.port)
    try:
        other = script(NODE_JS)
        listener.wait(lambda: len(listener.values) >= 7)
        assert listener.values == BORN
        other.say("bury")
        listener.wait(lambda: bool(listener.gone))
        other.say("stop")
        listener.wait(lambda: len(listener.gone) >= 2)
        assert [gone.asset for gone in listener.gone] == ["pump", "hall"]
    finally:
        listener.line.close()


def test_another_edge_node_understands_that_it_is_to_be_born_again(
    broker: Any, script: Callable[[str], Script]
) -> None:
    early = Listener(broker.port)
    other = script(NODE_JS)
    early.wait(lambda: len(early.values) >= 7)
    early.line.close()
    # A host that comes after the births hears only data, and asks.
    late = Listener(broker.port)
    try:
        other.say("bury")
        late.wait(lambda: late.asked > 0)
        assert other.line() == "asked"
        other.say("birth")
        late.wait(lambda: len(late.values) >= 7)
        assert late.values == BORN
    finally:
        late.line.close()


def test_another_implementation_understands_our_edge_node(
    broker: Any, script: Callable[[str], Script]
) -> None:
    other = script(READ_JS)
    assert other.line() == "ready"
    edge = EdgeNode("plant", "runout-1")
    metrics = (
        Metric("Health/Index"),
        Metric("Alarm", DataType.Boolean),
        Metric("Cause", DataType.String),
        Metric("Remaining", DataType.Int64, "h"),
    )
    at_ns = 1_767_225_600 * 10**9
    edge.declare("pump", metrics, at_ns)
    line = Line(broker.port, "runout-1", edge.will(at_ns))
    try:
        line.subscribe(edge.subscriptions())
        line.publish(edge.connected(at_ns))
        values = {"Health/Index": 0.75, "Alarm": True, "Cause": "wear", "Remaining": 40}
        line.publish(edge.publish("pump", values, at_ns))
        line.publish(edge.gone("pump", at_ns))
        line.publish(edge.death(at_ns))
        said = [json.loads(other.line()) for _ in range(5)]
    finally:
        line.close()
    nbirth, dbirth, ddata, ddeath, ndeath = said
    assert [one["topic"].split("/")[2] for one in said] == [
        "NBIRTH", "DBIRTH", "DDATA", "DDEATH", "NDEATH"
    ]  # fmt: skip
    assert [one.get("seq") for one in said] == [0, 1, 2, 3, None]
    assert {m["name"]: m["value"] for m in nbirth["metrics"]} == {
        "bdSeq": 0,
        "Node Control/Rebirth": False,
    }
    aliases = {m["alias"]: m["name"] for m in dbirth["metrics"]}
    assert [m["type"] for m in dbirth["metrics"]] == ["Double", "Boolean", "String", "Int64"]
    assert dbirth["metrics"][3]["properties"]["engUnit"]["value"] == "h"
    # Data bears no datatypes, and this reader looks values up by them: so they are taken raw.
    kinds = ("doubleValue", "booleanValue", "stringValue", "longValue")
    found = {
        aliases[int(m["alias"])]: next(m[kind] for kind in kinds if m.get(kind) is not None)
        for m in ddata["raw"]
    }
    assert found == {**values, "Remaining": "40"}
    assert ddeath["timestamp"] == ndeath["timestamp"] == 1_767_225_600_000
    assert ndeath["metrics"][0]["value"] == 0

"""Against another implementation, npm's ``sparkplug-client``, over a real broker."""

import json
from collections.abc import Callable
from typing import Any

from agent.sparkplug.edge import EdgeNode, Metric
from agent.sparkplug.schema import DataType
from tests.agent.decode.conftest import READ_JS, Line, Listener, Script

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

"""The agent in a Sparkplug plant, over a real broker: what it hears of others and says itself."""

import http.client
import json
import math
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.sparkplug.host import Host
from agent.sparkplug.schema import REBIRTH, DataType, Message, Payload
from tests.agent.decode.conftest import PATIENCE_S, READ_JS, Line, Listener, Script

Connect = Callable[..., Any]
Make = Callable[..., Any]
START_S = 1_700_000_000
JSON = {"Content-Type": "application/json"}

EDGE = """
[[asset_class]]
name = "pump"
channels = [{ name = "flow", unit = "m3/h" }]
stats = ["last"]
[asset_class.health]
kind = "moments"
baseline = 8
learn = 8
[mqtt.sparkplug_edge]
group_id = "plant"
edge_node_id = "runout-1"
[report]
health_every_s = 0
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def written(*parts: str) -> str:
        path = tmp_path / "agent.toml"
        path.write_text("\n".join(parts))
        return str(path)

    return written


class Scada:
    """A host application that keeps all that edge nodes publish, as it is.

    Args:
        port: of the broker.
        online: whether it says so at once.
    """

    def __init__(self, port: int, *, online: bool = True) -> None:
        self.host = Host("scada", ("plant",))
        self.line = Line(port, "scada", self.host.will(time.time_ns()))
        self.line.subscribe(self.host.subscriptions())
        if online:
            self.line.publish([self.host.birth()])

    def said(self, verb: str = "") -> list[tuple[str, Any]]:
        """Return verb and payload of what came from the agent."""
        found = [
            (topic.split("/")[2], Payload.FromString(payload))
            for topic, payload in self.line.arrived
            if topic.split("/")[3:4] == ["runout-1"]
        ]
        return [one for one in found if one[0].startswith(verb)]

    def wait(self, ready: Callable[[], bool]) -> None:
        self.line.wait(ready)

    def names(self) -> dict[int, str]:
        return {m.alias: m.name for _, p in self.said("DBIRTH") for m in p.metrics}

    def told(self, name: str, *, historical: bool = False) -> list[tuple[int, Any]]:
        """Return time in seconds and value of each data of a metric."""
        names = self.names()
        return [
            (m.timestamp // 1000, None if m.is_null else getattr(m, m.WhichOneof("value")))
            for _, p in self.said("DDATA")
            for m in p.metrics
            if names.get(m.alias) == name and m.is_historical == historical
        ]


@pytest.fixture
def scada(broker: Any) -> Iterator[Callable[..., Scada]]:
    with ExitStack() as opened:

        def open_scada(**options: Any) -> Scada:
            made = Scada(broker.port, **options)
            opened.callback(made.line.close)
            return made

        yield open_scada


def feed(plant: Any, first: int, last: int, asset: str = "pump-1") -> None:
    for n in range(first, last):
        row = b'{"t": %d, "v": %d}' % (START_S + n, n % 3)
        plant.send("node", asset, "flow", row)


def by_name(payload: Any) -> dict[str, Any]:
    return {m.name: m for m in payload.metrics}


def sequence(scada: Scada) -> list[int]:
    return [payload.seq for verb, payload in scada.said() if verb != "NDEATH"]


def rebirth() -> bytes:
    request = Payload(timestamp=1)
    request.metrics.add(name=REBIRTH, datatype=DataType.Boolean, boolean_value=True)
    data: bytes = request.SerializeToString()
    return data


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_the_agent_tells_its_results_as_an_edge_node(
    version: str, broker: Any, connect: Connect, agent: Make, written: Any, scada: Any
) -> None:
    host, plant = scada(), connect(broker)
    process = agent("node", written(EDGE), f'mqtt.version="{version}"').start()
    host.wait(lambda: [verb for verb, _ in host.said()] == ["NBIRTH"])
    plant.wait_for("node", lambda status: status.online)
    feed(plant, 0, 20)
    host.wait(lambda: len(host.told("Health/State")) >= 2)  # learning, healthy
    host.wait(
        lambda: bool(host.told("Health/Score")) and host.told("Health/Score")[-1][0] > START_S + 17
    )
    (_, device) = host.said("DBIRTH")[0]
    metrics = by_name(device)
    assert len({m.alias for m in device.metrics}) == len(device.metrics) == 16
    hours = metrics["Remaining/Hours"]
    assert (hours.datatype, hours.properties.values[0].string_value) == (DataType.Double, "h")
    assert [value for _, value in host.told("Health/State")] == ["learning", "healthy"]
    assert [value for _, value in host.told("Alert/Active")] == [False]
    assert host.told("Health/State", historical=True) == []
    # Asked for, all is said again, with what is now.
    plant.publish("spBv1.0/plant/NCMD/runout-1", rebirth())
    host.wait(lambda: len(host.said("DBIRTH")) == 2)
    again = by_name(host.said("DBIRTH")[1][1])
    assert again["Health/State"].string_value == "healthy"
    assert again["Health/Score"].alias == metrics["Health/Score"].alias
    births = [payload for _, payload in host.said("NBIRTH")]
    assert [by_name(birth)["bdSeq"].long_value for birth in births] == [0, 0]
    numbers = sequence(host)
    assert numbers == [*range(numbers.index(0, 1)), *range(len(numbers) - numbers.index(0, 1))]

    process.kill()  # the broker says that it is gone
    host.wait(lambda: len(host.said("NDEATH")) == 1)
    assert by_name(host.said("NDEATH")[0][1])["bdSeq"].long_value == 0
    process.start()
    host.wait(lambda: len(host.said("DBIRTH")) == 3)
    assert by_name(host.said("DBIRTH")[2][1])["Health/State"].string_value == "healthy"
    feed(plant, 20, 22)
    host.wait(lambda: host.told("Health/Score")[-1][0] == START_S + 21)
    assert process.end(signal.SIGTERM) == 0
    host.wait(lambda: len(host.said("NDEATH")) >= 2)
    last = by_name(host.said("NBIRTH")[-1][1])["bdSeq"].long_value
    assert by_name(host.said("NDEATH")[-1][1])["bdSeq"].long_value == last


def test_results_wait_for_the_primary_host_and_are_told_as_historical(
    broker: Any, connect: Connect, agent: Make, written: Any, scada: Any
) -> None:
    """tck-id-operational-behavior-edge-node-termination-host-offline-reconnect"""
    host, plant = scada(online=False), connect(broker)
    config = written(EDGE.replace('"runout-1"', '"runout-1"\nprimary_host_id = "scada"'))
    process = agent("node", config).start()
    plant.wait_for("node", lambda status: status.online)
    feed(plant, 0, 6)
    plant.wait_for("node", lambda status: status.readings == 6)
    assert host.said() == []
    host.line.publish([host.host.birth()])
    host.wait(lambda: len(host.told("Health/State", historical=True)) == 6)
    # The birth says what is now; what was follows, in its order.
    assert by_name(host.said("DBIRTH")[0][1])["Health/State"].timestamp == (START_S + 5) * 1000
    times = [t for t, _ in host.told("Health/State", historical=True)]
    assert times == [START_S + n for n in range(6)]
    feed(plant, 6, 8)
    # It learns all the time, and nothing changes that would have to be said.
    plant.wait_for("node", lambda status: status.readings == 8)

    host.line.publish([host.host.death(time.time_ns())])
    host.wait(lambda: len(host.said("NDEATH")) == 1)
    feed(plant, 8, 12)
    plant.wait_for("node", lambda status: status.readings == 12)
    host.host.will(time.time_ns())
    host.line.publish([host.host.birth()])
    host.wait(lambda: len(host.told("Health/State", historical=True)) >= 10)
    births = [by_name(payload)["bdSeq"].long_value for _, payload in host.said("NBIRTH")]
    assert births == [0, 1]  # it left, and connected again
    told = [t for t, _ in host.told("Health/State", historical=True)]
    assert told[6:] == [START_S + n for n in range(8, 12)]
    assert process.end(signal.SIGTERM) == 0


def test_results_of_the_time_without_a_broker_are_told_as_historical(
    broker: Any, connect: Connect, agent: Make, written: Any, scada: Any, free_ports: Any
) -> None:
    plant, port = connect(broker), free_ports()
    source = f'[[source]]\nkind = "http"\nport = {port}\n'
    edge = EDGE.replace('"runout-1"', '"runout-1"\nprimary_host_id = "scada"')
    process = agent("node", written(edge, source)).start()
    plant.wait_for("node", lambda status: status.online)
    process.wait_for("listening")
    broker.stop()
    for n in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        body = b'{"t": %d, "v": {"flow": %d}}' % (START_S + n, n % 3)
        connection.request("POST", "/v1/readings?asset=pump-1", body, JSON)
        assert connection.getresponse().status == 204
        connection.close()
    broker.start()
    host = scada()
    host.wait(lambda: len(host.told("Health/State", historical=True)) == 5)
    assert [t for t, _ in host.told("Health/State", historical=True)] == [
        START_S + n for n in range(5)
    ]
    # Told is told: another process does not begin again.
    assert process.end(signal.SIGTERM) == 0
    process.start()
    host.wait(lambda: len(host.said("DBIRTH")) == 2)
    plant.wait_for("node", lambda status: status.online)
    assert process.end(signal.SIGTERM) == 0
    host.wait(lambda: len(host.said("NDEATH")) >= 2)
    assert len(host.told("Health/State", historical=True)) == 5


def test_another_implementation_reads_what_the_agent_tells(
    broker: Any, connect: Connect, agent: Make, written: Any, script: Callable[[str], Script]
) -> None:
    other = script(READ_JS)
    assert other.line() == "ready"
    plant = connect(broker)
    process = agent("node", written(EDGE)).start()
    plant.wait_for("node", lambda status: status.online)
    feed(plant, 0, 3)
    said = [json.loads(other.line()) for _ in range(3)]
    assert [one["topic"] for one in said] == [
        "spBv1.0/plant/NBIRTH/runout-1",
        "spBv1.0/plant/DBIRTH/runout-1/pump-1",
        "spBv1.0/plant/DDATA/runout-1/pump-1",
    ]
    types = {m["name"]: m["type"] for m in said[1]["metrics"]}
    assert types["Health/Index"] == "Double"
    assert types["Alert/Active"] == "Boolean"
    aliases = {m["alias"]: m["name"] for m in said[1]["metrics"]}
    states = [m["stringValue"] for m in said[2]["raw"]
              if aliases[int(m["alias"])] == "Health/State"]  # fmt: skip
    assert states == ["learning"]
    assert process.end(signal.SIGTERM) == 0


def test_our_own_host_reads_what_the_agent_tells(
    broker: Any, connect: Connect, agent: Make, written: Any
) -> None:
    listener = Listener(broker.port)
    try:
        plant = connect(broker)
        process = agent("node", written(EDGE)).start()
        plant.wait_for("node", lambda status: status.online)
        feed(plant, 0, 20)
        # Of text there is nothing to read, and NaN is what is not known yet.
        listener.wait(lambda: any(one[:3] == SCORE and one[3] > 0 for one in listener.values))
        assert ("pump-1", "Health.Life", "", 0) in listener.values
        hours = [one[3] for one in listener.values if one[:3] == ("pump-1", "Remaining.Hours", "h")]
        assert all(math.isnan(value) for value in hours)
        process.kill()
        listener.wait(lambda: [gone.asset for gone in listener.gone] == ["runout-1", "pump-1"])
    finally:
        listener.line.close()


SCORE = ("pump-1", "Health.Score", "")


# -- as a host -------------------------------------------------------------------------------------

HOST = """
[[asset_class]]
name = "pump"
channels = [{ name = "Flow", unit = "m3/h" }]
stats = ["last"]
[mqtt.sparkplug]
groups = ["plant"]
history_s = 0.3
[mqtt.sparkplug_edge]
group_id = "plant"
edge_node_id = "runout-1"
[report]
health_every_s = 0
"""


def message(verb: str, seq: int | None, *metrics: dict[str, Any], device: str = "") -> Message:
    payload = Payload(timestamp=START_S * 1000)
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        payload.metrics.add(**metric)
    end = f"/{device}" if device else ""
    topic = f"spBv1.0/plant/{verb}/hall{end}"
    return Message(topic, payload.SerializeToString(), 0, retain=False)


BD_SEQ = {"name": "bdSeq", "datatype": DataType.Int64, "long_value": 0}


def flow(s: float, value: float, *, historical: bool = False) -> dict[str, Any]:
    metric = {
        "name": "Flow",
        "datatype": DataType.Double,
        "double_value": value,
        "timestamp": round((START_S + s) * 1000),
    }
    return metric | ({"is_historical": True} if historical else {})


@pytest.fixture
def hall(broker: Any) -> Iterator[Line]:
    line = Line(broker.port, "hall", message("NDEATH", None, BD_SEQ))
    yield line
    line.close()


def states(plant: Any, host: str = "runout") -> list[bool]:
    return [
        json.loads(payload)["online"]
        for topic, payload in plant.heard
        if topic == f"spBv1.0/STATE/{host}"
    ]


def reports(plant: Any) -> list[tuple[float, str]]:
    found = [json.loads(body) for topic, body in plant.heard if topic.endswith("/pump-1/health")]
    return [(one["t"] - START_S, one["state"]) for one in found]


def test_an_asset_whose_device_or_node_died_is_stale_until_it_is_heard_again(
    broker: Any, connect: Connect, agent: Make, written: Any, hall: Line, scada: Any
) -> None:
    """tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale"""
    plant = connect(broker, also=["spBv1.0/STATE/runout"])
    process = agent("node", written(HOST)).start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])
    listener = scada()

    def hear(*messages: Message) -> None:
        hall.publish(list(messages))

    hear(message("NBIRTH", 0, BD_SEQ), message("DBIRTH", 1, flow(0, 1.0), device="pump-1"))
    plant.wait(lambda: reports(plant) == [(0, "learning")])
    hear(message("DDEATH", 2, device="pump-1"))
    plant.wait(lambda: len(reports(plant)) == 2)
    assert reports(plant)[1] == (0, "stale")
    # As an edge node the agent says so, too.
    listener.wait(lambda: len(listener.said("DDEATH")) == 1)
    hear(message("DBIRTH", 3, flow(5, 1.0), device="pump-1"))
    plant.wait(lambda: reports(plant)[2:] == [(5, "learning")])
    process.kill()
    process.start()  # what it knows of the asset comes from the journal
    plant.wait(lambda: states(plant)[-2:] == [False, True])
    hear(message("NBIRTH", 0, BD_SEQ), message("DBIRTH", 1, flow(6, 1.0), device="pump-1"))
    plant.wait(lambda: (6, "learning") in reports(plant))
    hear(message("NDEATH", None, BD_SEQ))
    plant.wait(lambda: [state for _, state in reports(plant)].count("stale") == 2)
    plant.wait_for("node", lambda status: status.marked.get("Flow.stale") == 2)
    assert process.end(signal.SIGTERM) == 0
    kinds = [event.event for batch in process.batches() for event in batch.events]
    assert kinds.count("gone") >= 2


def test_without_the_broker_all_assets_of_the_plant_are_stale(
    broker: Any, connect: Connect, agent: Make, written: Any
) -> None:
    plant = connect(broker, also=["spBv1.0/STATE/runout"])
    process = agent("node", written(HOST)).start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])
    line = Line(broker.port, "hall", message("NDEATH", None, BD_SEQ))
    line.publish(
        [message("NBIRTH", 0, BD_SEQ), message("DBIRTH", 1, flow(0, 1.0), device="pump-1")]
    )
    plant.wait(lambda: reports(plant) == [(0, "learning")])
    line.close()
    broker.stop()
    process.wait_for("connection lost")
    broker.start()
    plant.wait(lambda: "stale" in [state for _, state in reports(plant)])
    assert process.end(signal.SIGTERM) == 0


def test_what_a_node_stored_is_used_and_what_comes_too_late_is_told(
    broker: Any, connect: Connect, agent: Make, written: Any, hall: Line
) -> None:
    plant = connect(broker, also=["spBv1.0/STATE/runout"])
    process = agent("node", written(HOST)).start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])
    past = [flow(-3600 + n, float(n), historical=True) for n in range(3)]
    hall.publish(
        [
            message("NBIRTH", 0, BD_SEQ),
            message("DBIRTH", 1, flow(1, 9.0), device="pump-1"),
            *(message("DDATA", 2 + n, one, device="pump-1") for n, one in enumerate(past)),
        ]
    )
    plant.wait_for("node", lambda status: status.readings == 4)
    assert (plant.statuses["node"].late, plant.statuses["node"].rejected) == (0, 0)
    hall.publish([message("DDATA", 5, flow(-1800, 5.0, historical=True), device="pump-1")])
    plant.wait_for("node", lambda status: status.rejected == 1)
    assert process.end(signal.SIGTERM) == 0
    assert process.values("pump-1", 0) == [0.0, 1.0, 2.0, 9.0]
    ((reason, text),) = process.table("SELECT reason, text FROM quarantine")
    assert reason == "historical"
    assert "sent before what is new" in text


def test_what_is_left_out_is_counted(
    broker: Any, connect: Connect, agent: Make, written: Any, hall: Line, free_ports: Any
) -> None:
    port = free_ports()
    plant = connect(broker, also=["spBv1.0/STATE/runout"])
    process = agent("node", written(HOST), f"web.port={port}").start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])
    label = {"name": "Label", "datatype": DataType.String, "string_value": "x"}
    hours = {**flow(0, 5.0), "name": "Hours"}
    hall.publish(
        [
            message("NBIRTH", 0, BD_SEQ),
            message("DBIRTH", 1, flow(0, 1.0), label, hours, device="pump-1"),
        ]
    )
    plant.wait_for("node", lambda status: status.readings == 1)
    expected = [
        'runout_values_left_out_total{reason="sparkplug"} 1',
        'runout_values_left_out_total{reason="unknown channel"} 1',
        'runout_asset_stale{asset="pump-1"} 0',
    ]

    def shown() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    deadline = time.monotonic() + PATIENCE_S
    while not all(line in shown() for line in expected):
        assert time.monotonic() < deadline, shown()
    assert process.end(signal.SIGTERM) == 0


FAILING = """
import sys
from agent.app import run
from agent.config import AgentConfig, Mqtt, Node, Sparkplug, Web
from agent.intake import Intake
from contract.spec import AssetClass, Channel

class Failing(Intake):  # the plant's messages bring its fault to light
    def put_all(self, arrivals):
        if any(arrival.topic.startswith("spBv1.0/plant/") for arrival in arrivals):
            raise RuntimeError("out of order")
        super().put_all(arrivals)

run(
    AgentConfig(
        asset_class=(AssetClass("pump", (Channel("flow", "l/s"),)),),
        node=Node(name="node", state=sys.argv[2]),
        mqtt=Mqtt(port=int(sys.argv[1]), sparkplug=Sparkplug()),
        web=Web(enabled=False),
    ),
    lambda: False,
    Failing(1000),
)
"""


def test_an_agent_whose_connection_to_the_plant_has_died_ends(
    broker: Any, connect: Connect, hall: Line, tmp_path: Path
) -> None:
    plant = connect(broker, also=["spBv1.0/STATE/runout"])
    command = [sys.executable, "-c", FAILING, str(broker.port), str(tmp_path / "state")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        plant.wait(lambda: states(plant) == [True])
        hall.publish([message("NBIRTH", 0, BD_SEQ)])
        _, said = process.communicate(timeout=PATIENCE_S)
    assert "BrokenError: the network's thread has ended" in said

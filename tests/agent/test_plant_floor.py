"""Everything a plant may speak, in the agent that runs: formats, gateways, ports, all at once."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import cbor2
import numpy as np
import pytest

from agent.assemble import Assembler
from agent.batch import Batch
from agent.config import load
from agent.decode.cobs import encode_record
from agent.decode.csv import add_checksum
from agent.decode.waveform import encode
from agent.intake import Arrival
from agent.sparkplug.schema import REBIRTH, DataType, Payload
from agent.store import read_checkpoint

Connect = Callable[..., Any]
Make = Callable[..., Any]
PATIENCE_S = 60
START_S = 1_700_000_000
START_NS = START_S * 10**9
RATE_HZ = 2048.0
SAMPLES = 1024
STATE = "spBv1.0/STATE/runout"


def states(plant: Any) -> list[bool]:
    return [json.loads(payload)["online"] for topic, payload in plant.heard if topic == STATE]


def burst(seed: int, n: int, *, amplitude: float = 1.0) -> bytes:
    """Return a second's burst of a machine that turns at 25 Hz, in g."""
    rng = np.random.default_rng([seed, n])
    t = np.arange(SAMPLES) / RATE_HZ
    wave = amplitude * np.sin(2 * np.pi * 25.0 * t) + 0.1 * rng.normal(size=SAMPLES)
    return encode(wave.astype(np.float32), RATE_HZ, t_ns=START_NS + n * 10**9, unit="g")


WAVES = """
[[asset_class]]
name = "pump"
stats = ["last", "mean_4"]
every_s = 1.0
channels = [
  { name = "flow", unit = "m3/h", resample = "mean" },
  { name = "temperature", unit = "degC" },
]
[asset_class.health]
kind = "moments"
baseline = 16
learn = 24
smoothing = 1.0

[[asset_class.waveforms]]
name = "vib"
unit = "m/s2"
rate_hz = 2048.0
samples = 1024
features = ["rms", "kurtosis", "velocity_rms"]
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a configuration."""

    def written(*parts: str) -> str:
        path = tmp_path / "agent.toml"
        path.write_text("\n".join(parts))
        return str(path)

    return written


# -- formats over MQTT -----------------------------------------------------------------------------


def flows(n: int) -> list[float]:
    rng = np.random.default_rng([7, n])
    return [float(value) for value in 12.0 + rng.normal(size=4)]


def test_senml_columns_and_waveforms_meet_in_one_row_and_the_vibration_is_blamed_by_name(
    broker: Any, connect: Connect, agent: Make, written: Any
) -> None:
    plant = connect(broker)
    process = agent("node", written(WAVES)).start()
    plant.wait_for("node", lambda status: status.online)
    seconds = 60
    for n in range(seconds):
        t = START_S + n
        warm = 40.0 + n % 5 / 10
        pack: list[dict[Any, Any]] = [{"bn": "pump-1/", "bt": t, "n": "temperature", "u": "Cel"}]
        if n % 2:
            pack[0]["v"] = warm
            plant.send("node", "pump-1", "temperature", json.dumps(pack).encode())
        else:
            pack = [{-2: "pump-1/", -3: t, 0: "temperature", 1: "Cel", 2: warm}]
            plant.send("node", "pump-1", "temperature", cbor2.dumps(pack))
        columns = {"t0": t - 0.75, "dt": 0.25, "v": flows(n)}
        plant.send("node", "pump-1", "flow", json.dumps(columns).encode())
        loud = 6.0 if n >= seconds - 10 else 1.0
        plant.send("node", "pump-1", "vib", burst(1, n, amplitude=loud))
    plant.wait_for("node", lambda status: status.readings == 6 * seconds)
    assert (plant.statuses["node"].rejected, plant.statuses["node"].bad) == (0, 0)
    assert process.end(signal.SIGTERM) == 0

    bodies = process.table("SELECT body FROM result WHERE kind = 'health' ORDER BY id")
    reports = [json.loads(body) for (body,) in bodies]
    # A row a second, each closed by the first reading of the next.
    assert [report["t"] for report in reports] == list(range(START_S, START_S + len(reports)))
    assert len(reports) == seconds - 1
    quiet, loud_ones = reports[seconds - 12], reports[seconds - 8 :]
    assert quiet["score"] < 1.0
    assert all(report["score"] > 1.0 for report in loud_ones)
    # 6 g and not 1 g of 25 Hz: the sum of squares and the velocity, not the shape.
    assert {report["why"][0]["channel"] for report in loud_ones} <= {"vib.rms", "vib.velocity_rms"}
    assert {"vib.rms", "vib.velocity_rms"} <= {w["channel"] for r in loud_ones for w in r["why"]}
    raised = process.table("SELECT body FROM result WHERE kind = 'alert'")
    assert "vib" in json.loads(raised[0][0])["text"]


# -- what cannot be used ---------------------------------------------------------------------------


MORE = """
[mqtt.sparkplug]
groups = ["plant"]
[[mqtt.subscribe]]
topic = "lines/{asset}"
format = "csv"
columns = ["time", "flow"]
time = "time"
[[mqtt.subscribe]]
topic = "records/{asset}"
format = "cobs"
columns = ["flow", "temperature"]
"""


def crooked() -> list[tuple[str, bytes, str]]:
    """Return payloads that cannot be used: topic, payload, and the reason each must be given."""
    good = burst(1, 0)
    zeros = np.zeros(SAMPLES, dtype=np.float32)
    sure = encode(zeros, RATE_HZ, checksum=True)
    record = {"bn": "pump-1/", "bt": START_S, "n": "temperature", "v": 40.0}
    rough = {"t": [START_S, START_S + 1, START_S + 5], "v": {"vib": [1, 2, 3]}}
    framed = encode_record([12.0, 40.0])
    waveforms = [
        (good[:-1], "length"),
        (good[:20], "length"),
        (good[:2] + b"\x09" + good[3:], "waveform"),
        (sure[:100] + b"\x01" + sure[101:], "checksum"),
        (encode(zeros[:100], RATE_HZ), "length"),
        (encode(zeros, 1000.0), "rate"),
        (encode(zeros, RATE_HZ, unit="V"), "unit"),
    ]
    packs = [
        ({**record, "x_": 1}, "field"),
        ({**record, "bver": 99}, "version"),
        ({**record, "n": "tempe rature"}, "name"),
        ({**record, "vs": "warm"}, "value"),
        ({**record, "u": "V"}, "unit"),
        ({**record, "bt": START_S + 10**9}, "future"),
        ({**record, "bn": "fan/1/"}, "asset"),
        ({**record, "n": "level"}, "channel"),
    ]
    own = "runout/v1/test/node/pump-1"
    return [
        *[(f"{own}/vib", payload, reason) for payload, reason in waveforms],
        (f"{own}/flow", good, "channel"),
        (f"{own}/readings", json.dumps(rough).encode(), "rate"),
        *[(f"{own}/readings", json.dumps([pack]).encode(), reason) for pack, reason in packs],
        (f"{own}/readings", b"\x81\xa1\x00", "cbor"),
        (f"{own}/readings", b"\x81\x01", "type"),
        ("lines/pump-1", b"%d,1,2" % START_S, "csv"),
        ("lines/pump-1", b"%d,warm" % START_S, "number"),
        ("lines/pump-1", b"yesterday,1", "time"),
        ("lines/pump-1", b"%d,1*00" % START_S, "checksum"),
        ("records/pump-1", framed[:-4] + b"\x55" + framed[-3:], "checksum"),
        ("records/pump-1", framed[:-1], "cobs"),
        ("records/pump-1", encode_record([1.0]), "record"),
        ("spBv1.0/plant/DDATA/hall/pump-1", b"\xff\xff", "protobuf"),
        ("spBv1.0/plant/NBIRTH/hall", b"", "seq"),
    ]


def test_each_crooked_payload_is_kept_aside_with_its_reason_and_the_good_go_on(
    broker: Any, connect: Connect, agent: Make, written: Any
) -> None:
    plant = connect(broker, also=[STATE])
    process = agent("node", written(MORE, WAVES)).start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])  # its second connection stands, too
    sent = crooked()
    for n, (topic, payload, _) in enumerate(sent):
        plant.publish(topic, payload)
        plant.send("node", "pump-1", "temperature", b'{"t": %d, "v": 40}' % (START_S + n))
    plant.wait_for("node", lambda status: status.readings == 2 * len(sent))
    assert plant.statuses["node"].rejected == len(sent)
    assert process.end(signal.SIGTERM) == 0
    kept = process.table("SELECT topic, payload, reason FROM quarantine")
    # A record is kept without its zero; of all, the first bytes for a look.
    expected = [
        (topic, payload.removesuffix(b"\0") if topic == "records/pump-1" else payload[:4096], why)
        for topic, payload, why in sent
    ]
    # Sparkplug has a connection of its own: in the order of each.
    assert sorted(kept) == sorted(expected)
    assert process.values("pump-1", 1) == [40.0] * len(sent)


# -- killed in mid-stream ------------------------------------------


def test_killed_among_waveforms_and_a_grid_it_ends_bit_for_bit_as_one_that_never_was(
    broker: Any, connect: Connect, agent: Make, written: Any, once: Any
) -> None:
    plant = connect(broker)
    config = written(WAVES)
    nodes = ("steady", "killed", "featured")
    # The third keeps features only, and must come back with them alone.
    processes = {
        node: agent(
            node,
            config,
            "keep.checkpoint_s=0.3",
            f"keep.waveforms={'false' if node == 'featured' else 'true'}",
        ).start()
        for node in nodes
    }
    for node in nodes:
        plant.wait_for(node, lambda status: status.online)
    seconds, kills, sent = 300, 3, 0
    for part in range(kills + 1):
        before = {node: plant.statuses[node].readings for node in nodes}
        for n in range(part * seconds // 4, (part + 1) * seconds // 4):
            t = START_S + n
            messages = [
                ("temperature", b'{"t": %d, "v": %.1f}' % (t, 40 + n % 5 / 10)),
                ("flow", json.dumps({"t0": t - 0.75, "dt": 0.25, "v": flows(n)}).encode()),
                ("vib", burst(2, n, amplitude=6.0 if n > 250 else 1.0)),
            ]
            if n == 200:
                messages.append(("event", b'{"t": %d, "event": "maintained"}' % t))
            for node in nodes:
                for leaf, payload in messages:
                    plant.send(node, "pump-1", leaf, payload)
            sent += 6
        if part < kills:
            for node in ("killed", "featured"):
                plant.wait_for(node, lambda s, b=before[node]: s.online and s.readings > b)
                processes[node].kill()
                plant.wait_for(node, lambda status: not status.online)
                processes[node].start()
                plant.wait_for(node, lambda s, b=before[node]: s.online and s.readings > b)
    for node in nodes:
        plant.wait_for(node, lambda s: s.online and (s.readings, s.events) == (sent, 1))
        assert processes[node].end(signal.SIGTERM) == 0
    steady = processes["steady"]
    expected_head, expected = read_checkpoint(steady.state / "checkpoint.npz")
    results = "SELECT asset, kind, body FROM result ORDER BY id"
    assert len(steady.table(results)) > seconds / 2
    for node in ("killed", "featured"):
        other = processes[node]
        assert "state restored" in other.said
        assert other.table(results) == steady.table(results)
        head, arrays = read_checkpoint(other.state / "checkpoint.npz")
        assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()} == {
            name: (a.dtype, a.shape, a.tobytes()) for name, a in expected.items()
        }
        # What came again is counted as such, and is all that tells them apart.
        assert once(head["counts"]) == once(expected_head["counts"])
    kept = [shot for batch in processes["featured"].batches() for shot in batch.shots]
    assert kept
    assert all(not len(shot.samples) and shot.features is not None for shot in kept)


# -- ports and posts, beside MQTT ------------------------------------------

SOURCES = """
[[asset_class]]
name = "press"
channels = [{{ name = "pressure", unit = "bar" }}, {{ name = "oil", unit = "degC" }}]

[[source]]
kind = "serial"
url = "{serial}"
asset = "press-1"
columns = ["time", "pressure", "oil"]
units = {{ pressure = "psi" }}
time = "time"
checksum = true

[[source]]
kind = "modbus"
url = "tcp://127.0.0.1:{modbus}"
asset = "press-2"
poll = [
  {{ channel = "pressure", register = 0, type = "float32", every_s = 0.05 }},
  {{ channel = "oil", register = 2, type = "int16", scale = 0.1, every_s = 0.05 }},
  {{ channel = "pressure", asset = "press-5", register = 0, type = "float32", unit = "psi" }},
]

[[source]]
kind = "http"
port = {http}
columns = ["ts", "pressure", "oil"]
time = "ts"
"""


class Plc:
    """A Modbus server in a thread with a loop of its own."""

    def __init__(self, port: int, registers: list[int]) -> None:
        self._port = port
        self._registers = registers
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def _run(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        async def serve() -> None:
            bits = SimData(0, values=[False] * 8, datatype=DataType.BITS)
            held = SimData(0, values=self._registers, datatype=DataType.REGISTERS)
            device = SimDevice(1, simdata=([bits], [bits], [held], [held]))
            self._server = ModbusTcpServer(device, address=("127.0.0.1", self._port))
            await self._server.serve_forever(background=True)
            self._ready.set()
            await self._server.serving

        self._loop.run_until_complete(serve())
        self._loop.close()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop)
        self._thread.join(PATIENCE_S)


@pytest.fixture
def pty(tmp_path: Path) -> Iterator[int]:
    """Return our end of a serial line, whose other is ``tmp_path / "port"``."""
    master, slave = os.openpty()
    tty.setraw(slave)
    (tmp_path / "port").symlink_to(os.ttyname(slave))
    yield master
    os.close(master)
    os.close(slave)


def post(port: int, asset: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        head = {"Content-Type": kind}
        connection.request("POST", f"/v1/readings?asset={asset}", body, head)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_serial_port_a_modbus_device_posts_and_mqtt_feed_one_agent_at_once(
    broker: Any,
    connect: Connect,
    agent: Make,
    written: Any,
    pty: int,
    tmp_path: Path,
    free_ports: Callable[[], int],
) -> None:
    pytest.importorskip("pymodbus")
    modbus, http_port = free_ports(), free_ports()
    registers = [*struct.unpack(">HH", struct.pack(">f", 100.5)), 455]
    plc = Plc(modbus, registers)
    try:
        plant = connect(broker)
        config = written(SOURCES.format(serial=tmp_path / "port", modbus=modbus, http=http_port))
        process = agent("node", config).start()
        process.wait_for("port open")
        process.wait_for("listening")
        plant.wait_for("node", lambda status: status.online)
        os.write(pty, b"the end of a line\n")
        for n in range(20):
            line = add_checksum(b"%d,%d,40" % (START_S + n, 14500 + n))
            os.write(pty, line + b"\n")
            row = b'{"t": %d, "v": {"pressure": %d, "oil": 50}}' % (START_S + n, n)
            plant.send("node", "press-4", "readings", row)
            status, why = post(http_port, "press-3", row)
            assert (status, why) == (204, "")
            # It is there by the time the answer is.
            assert len(process.values("press-3", 0)) == n + 1
        os.write(pty, b"1,2,3*00\n")
        status, why = post(http_port, "press-3", b'{"t": 1, "v": {"torque": 1}}')
        assert status == 400
        assert "has no channel 'torque'; it has pressure, oil" in why
        lines = b"%d,7,50\n%d,8,50\n" % (START_S, START_S + 1)
        assert post(http_port, "press-6", lines, "text/csv") == (204, "")
        plant.wait_for("node", lambda s: s.assets == 6 and s.rejected == 2 and s.readings > 70)
        assert process.end(signal.SIGTERM) == 0
    finally:
        plc.stop()
    assert "Traceback" not in process.said
    psi_in_bar = 0.0689475729
    assert process.values("press-1", 0) == pytest.approx(
        [psi_in_bar * (14500 + n) for n in range(20)]
    )
    assert set(process.values("press-2", 0)) == {100.5}
    assert set(process.values("press-2", 1)) == {45.5}
    (pressure,) = set(process.values("press-5", 0))
    assert pressure == pytest.approx(100.5 * psi_in_bar)
    posted = [r for b in process.batches() for r in b.rows if r.asset == "press-6"]
    assert [t // 10**9 - START_S for r in posted for t in r.t_ns.tolist()] == [0, 1]
    assert process.values("press-3", 0) == process.values("press-4", 0) == list(range(20))
    assert sorted(process.table("SELECT reason, topic FROM quarantine")) == [
        ("channel", "source/http/json/press-3/readings"),
        ("checksum", "source/serial"),
    ]


# -- Sparkplug: another implementation's edge node ------------------------------------------

FOLDER = Path(os.environ.get("RUNOUT_NPM") or Path.home() / ".cache/runout-test-npm")
PACKAGE = "sparkplug-client@3.2.4"

EDGE_JS = """
const client = require("sparkplug-client").newClient({
  serverUrl: process.argv[1], username: "", password: "", groupId: "plant", edgeNode: "hall",
  clientId: "hall", version: "spBv1.0", publishDeath: true,
});
let born = 0, n = 0, ms = 1700000000000;
const now = () => (ms += 1000);
client.on("birth", () => {
  client.publishNodeBirth({timestamp: now(), metrics: [
    {name: "Node Control/Rebirth", type: "Boolean", value: false}]});
  client.publishDeviceBirth("pump-1", {timestamp: now(), metrics: [
    {name: "Process/Flow", type: "Double", value: 1000, properties: {
      engUnit: {type: "String", value: "l/min"}}},
    {name: "Temperature", type: "Int32", value: -5},
    {name: "Pump/Hours", type: "Double", value: 0},
    {name: "Label", type: "String", value: "x"}]});
  console.log("born " + (++born));
});
client.on("ncmd", (payload) => {
  if (payload.metrics.some((m) => m.name == "Node Control/Rebirth" && m.value))
    client.emit("birth");
});
process.stdin.on("data", (said) => {
  for (const word of said.toString().trim().split("\\n")) {
    if (word == "data") {
      n += 1;
      client.publishDeviceData("pump-1", {timestamp: now(), metrics: [
        {name: "Process/Flow", type: "Double", value: 1000 + n},
        {name: "Temperature", type: "Int32", value: -n},
        {name: "Pump/Hours", type: "Double", value: n, timestamp: now()}]});
      console.log("data " + n);
    }
    if (word == "stop") { client.stop(); process.stdin.pause(); }
  }
});
"""

SPARKPLUG = """
[[asset_class]]
name = "pump"
channels = [{ name = "Process.Flow", unit = "m3/h" }, { name = "Temperature", unit = "degC" }]
stats = ["last"]
[mqtt.sparkplug]
groups = ["plant"]
[report]
health_every_s = 0
"""


def absent(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must run these tests")
    pytest.skip(what)


class Edge:
    """The other implementation's edge node; it does as it is told, and says so."""

    def __init__(self, port: int) -> None:
        node = shutil.which("node")
        if node is None or not (FOLDER / "node_modules/sparkplug-client").is_dir():
            absent(f"node, or {PACKAGE} in {FOLDER}: test_sparkplug_peer.py installs it")
        self._process = subprocess.Popen(
            [node, "-e", EDGE_JS, f"mqtt://127.0.0.1:{port}"],
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        assert word in (line.strip() for line in self._process.stdout), word

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_S)
        self._process.stdout.close()


@pytest.fixture
def edge(broker: Any) -> Iterator[Edge]:
    edge = Edge(broker.port)
    yield edge
    edge.close()


def test_an_edge_node_that_was_there_before_is_asked_for_its_births_and_judged(
    broker: Any, connect: Connect, agent: Make, written: Any, edge: Edge
) -> None:
    edge.wait_for("born 1")
    plant = connect(broker, also=[STATE, "spBv1.0/plant/NCMD/hall"])
    process = agent("node", written(SPARKPLUG)).start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])
    edge.tell("data")  # of a node that the agent knows nothing of
    edge.wait_for("born 2")
    plant.wait(lambda: any("NCMD" in topic for topic, _ in plant.heard))
    asked = [payload for topic, payload in plant.heard if "NCMD" in topic]
    assert [metric.name for metric in Payload.FromString(asked[0]).metrics] == [REBIRTH]
    for n in range(2, 12):
        edge.tell("data")
        edge.wait_for(f"data {n}")
    plant.wait_for("node", lambda status: status.readings >= 11)
    plant.wait(lambda: any(topic.endswith("/pump-1/health") for topic, _ in plant.heard))

    process.kill()
    plant.wait(lambda: states(plant)[-1:] == [False])
    process.start()
    plant.wait(lambda: states(plant)[-1:] == [True])
    edge.tell("data")
    edge.wait_for("born 3")
    edge.tell("data")
    plant.wait_for("node", lambda status: status.online and status.readings >= 12)
    assert process.end(signal.SIGTERM) == 0
    plant.wait(lambda: states(plant)[-1:] == [False])
    assert plant.statuses["node"].rejected == 0
    flows = process.values("pump-1", 0)
    # Litres a minute, by the birth's property, in cubic metres an hour.
    assert flows[:11] == pytest.approx([60.0, *(0.06 * (1000 + n) for n in range(2, 12))])
    assert process.values("pump-1", 1)[:3] == [-5, -2, -3]


def test_a_live_check_asks_an_edge_node_for_its_births_and_says_nothing_as_a_host(
    broker: Any, connect: Connect, written: Any, edge: Edge
) -> None:
    edge.wait_for("born 1")
    plant = connect(broker, also=[STATE])
    command = [str(Path(sys.executable).with_name("runout-agent")), "check", "--live", "--json"]
    command += ["--config", written(SPARKPLUG), "--set", f"mqtt.port={broker.port}"]
    command += ["--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
        edge.tell("data")
        edge.wait_for("born 2")
        for n in range(2, 5):
            edge.tell("data")
            edge.wait_for(f"data {n}")
        plant.publish("spBv1.0/plant/NBIRTH/other", b"")
        plant.settle()
        process.send_signal(signal.SIGINT)
        found = json.loads(process.stdout.read())
    flow, temperature, hours = found["lines"]
    assert (flow["asset"], flow["channel"], flow["given"]) == ("pump-1", "Process.Flow", ["l/min"])
    assert (flow["verdict"], temperature["verdict"]) == ("ok", "ok")
    assert (hours["channel"], hours["verdict"]) == ("Pump.Hours", "ignored")
    assert flow["least"] == pytest.approx(60.0)
    assert states(plant) == []


def sparkplug(seq: int, *metrics: tuple[str, object], birth: bool = False) -> bytes:
    payload = Payload(timestamp=START_S * 1000 + seq, seq=seq)
    if birth:
        payload.metrics.add(name="bdSeq", datatype=DataType.Int64, long_value=0)
    for name, value in metrics:
        metric = payload.metrics.add(name=name, datatype=DataType.Double)
        if isinstance(value, float):
            metric.double_value = value
        else:
            metric.string_value = value
    data: bytes = payload.SerializeToString()
    return data


def test_what_waited_for_a_message_that_never_came_is_read_and_what_is_wrong_in_it_is_told(
    broker: Any, connect: Connect, agent: Make, written: Any
) -> None:
    plant = connect(broker, also=[STATE])
    process = agent("node", written(SPARKPLUG)).start()
    plant.wait_for("node", lambda status: status.online)
    plant.wait(lambda: states(plant) == [True])
    flow = "Process/Flow"
    plant.publish("spBv1.0/plant/NBIRTH/hall", sparkplug(0, birth=True))
    plant.publish("spBv1.0/plant/DBIRTH/hall/pump-1", sparkplug(1, (flow, 1.0)))
    # Number 2 is missing, and after these two nothing comes for which they would be looked at.
    plant.publish("spBv1.0/plant/DDATA/hall/pump-1", sparkplug(3, (flow, 7.0)))
    plant.publish("spBv1.0/plant/DDATA/hall/pump-1", sparkplug(4, (flow, "full")))
    plant.wait_for("node", lambda status: status.readings == 3 and status.rejected == 1)
    # Number 7 waits for 6; what is wrong with it is found when that is there.
    plant.publish("spBv1.0/plant/DDATA/hall/pump-1", sparkplug(5, (flow, 8.0)))
    plant.publish("spBv1.0/plant/DDATA/hall/pump-1", sparkplug(7, (flow, "empty")))
    plant.publish("spBv1.0/plant/DDATA/hall/pump-1", sparkplug(6, (flow, 9.0)))
    plant.wait_for("node", lambda status: status.readings == 6 and status.rejected == 2)
    assert process.end(signal.SIGTERM) == 0
    assert process.values("pump-1", 0) == [1.0, 7.0, 8.0, 9.0]
    reasons = process.table("SELECT reason FROM quarantine")
    assert reasons == [("value",), ("value",)]


def test_a_pack_is_used_for_the_channels_that_are_known(written: Any) -> None:
    assembler = Assembler(load(Path(written(WAVES))))

    def take(*records: dict[str, Any]) -> tuple[Batch, list[str]]:
        payload = json.dumps([{"bn": "pump-1/", "bt": START_S}, *records]).encode()
        arrival = Arrival("runout/v1/test/node/pump-1/readings", payload, 0, START_NS)
        batch, rejected = assembler.assemble([arrival])
        return batch, [one.reason for one in rejected]

    level = {"n": "level", "t": -1, "v": 2.0}
    batch, reasons = take({"n": "flow", "v": 1.0}, level)
    assert [rows.values[:, 0].tolist() for rows in batch.rows] == [[1.0]]
    assert (reasons, assembler.unknown_channels) == ([], {"level": 1})
    # Alone it is rejected: somebody meant it to be read.
    batch, reasons = take(level)
    assert (batch.rows, reasons) == ([], ["channel"])

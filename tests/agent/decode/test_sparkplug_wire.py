"""What the agent's two Sparkplug connections put on the wire, packet by packet."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from agent.config import Keep, Mqtt, SparkplugEdge
from agent.intake import Intake
from agent.plant import EdgeLink, HostLink
from agent.sparkplug.host import Host
from agent.sparkplug.schema import REBIRTH, DataType, Payload
from agent.store import Store
from contract.report import Health

PATIENCE_S = 30
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 8, 12, 14
T_S = 1_767_225_600


class Packet(NamedTuple):
    """A packet of MQTT: its type, the flags beside it, and its body."""

    kind: int
    flags: int
    body: bytes


class Connect(NamedTuple):
    """What a CONNECT says, as far as Sparkplug cares."""

    clean: bool
    expiry: int
    will_qos: int
    will_retain: bool
    will_topic: str
    will: bytes


def text(body: bytes, at: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from(">H", body, at)
    return body[at + 2 : at + 2 + size], at + 2 + size


def read_connect(body: bytes, *, v5: bool) -> Connect:
    flags, at, expiry = body[7], 10, 0
    assert body[6] == (5 if v5 else 4)
    assert flags & 0x04, "there is no will"
    if v5:
        properties = body[at + 1 : at + 1 + body[at]]
        at += 1 + body[at]
        if b"\x11" in properties[:1]:
            (expiry,) = struct.unpack(">I", properties[1:5])
    _, at = text(body, at)  # the client's id
    at += 1 if v5 else 0  # no properties of the will
    topic, at = text(body, at)
    will, at = text(body, at)
    return Connect(
        bool(flags & 2), expiry, flags >> 3 & 3, bool(flags & 0x20), topic.decode(), will
    )


class Published(NamedTuple):
    """What a PUBLISH says."""

    topic: str
    qos: int
    retain: bool
    payload: bytes


def read_publish(packet: Packet, *, v5: bool) -> Published:
    topic, at = text(packet.body, 0)
    qos = packet.flags >> 1 & 3
    at += 2 if qos else 0
    at += 1 if v5 else 0
    return Published(topic.decode(), qos, bool(packet.flags & 1), packet.body[at:])


class Wire:
    """A broker's end: it lets in and subscribes whoever asks, and keeps what it was sent.

    Args:
        v5: speak version 5.
    """

    def __init__(self, *, v5: bool) -> None:
        self._v5 = v5
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.packets: list[Packet] = []
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                self._socket, _ = self._listener.accept()
            except OSError:
                return  # closed
            # Who has said all leaves without waiting for what we answer.
            with suppress(ConnectionError), self._socket as sock, sock.makefile("rb") as stream:
                while (packet := self._read(stream)) is not None:
                    self._answer(sock, packet)
                    with self._changed:
                        self.packets.append(packet)
                        self._changed.notify_all()

    def _read(self, stream: Any) -> Packet | None:
        first = stream.read(1)
        if not first:
            return None
        size = shift = 0
        while True:
            (byte,) = stream.read(1)
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return Packet(first[0] >> 4, first[0] & 0x0F, stream.read(size))

    def _answer(self, sock: socket.socket, packet: Packet) -> None:
        kind, _, body = packet
        none = b"\0" if self._v5 else b""
        if kind == CONNECT:
            sock.sendall(b"\x20" + bytes([2 + len(none)]) + b"\0\0" + none)
        elif kind == SUBSCRIBE:
            topics = body.count(b"spBv1.0")
            sock.sendall(
                b"\x90" + bytes([2 + len(none) + topics]) + body[:2] + none + b"\1" * topics
            )
        # No PUBACK: who closes before reading it resets the connection, and what is unread is lost.
        elif kind == PINGREQ:
            sock.sendall(b"\xd0\0")

    def publish(self, topic: str, payload: bytes) -> None:
        assert self._socket is not None
        name = topic.encode()
        body = struct.pack(">H", len(name)) + name + (b"\0" if self._v5 else b"") + payload
        self._socket.sendall(b"\x30" + bytes([len(body)]) + body)

    def ask(self) -> None:
        """Ask for a rebirth: who answers has read all that was sent before."""
        request = Payload(timestamp=1)
        request.metrics.add(name=REBIRTH, datatype=DataType.Boolean, boolean_value=True)
        self.publish("spBv1.0/plant/NCMD/runout-1", request.SerializeToString())

    def wait(self, ready: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        """Wait until something is so; the agent's main thread turns meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < deadline, self.packets
            meanwhile()
            with self._changed:
                self._changed.wait(0.02)

    def kinds(self) -> list[int]:
        return [packet.kind for packet in self.packets if packet.kind != PINGREQ]

    def published(self) -> list[Published]:
        return [read_publish(p, v5=self._v5) for p in self.packets if p.kind == PUBLISH]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(params=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def wire(version: Any) -> Iterator[Wire]:
    wire = Wire(v5=version == "5")
    yield wire
    wire.close()


def test_a_host_says_that_it_is_there_first_and_that_it_leaves_last(
    version: Any, wire: Wire
) -> None:
    """tck-id-intro-sparkplug-host-state tck-id-components-ph-state tck-id-conformance-primary-host
    tck-id-host-topic-phid-birth-message tck-id-host-topic-phid-birth-required
    tck-id-host-topic-phid-death-required tck-id-message-flow-phid-sparkplug-clean-session-311
    tck-id-message-flow-phid-sparkplug-clean-session-50
    tck-id-message-flow-phid-sparkplug-state-publish
    tck-id-operational-behavior-host-application-connect-will
    tck-id-operational-behavior-host-application-connect-birth
    tck-id-operational-behavior-host-application-termination
    tck-id-operational-behavior-host-application-disconnect-intentional
    tck-id-payloads-state-will-message tck-id-payloads-state-birth
    tck-id-operational-behavior-primary-application-state-with-multiple-servers-state
    """
    intake = Intake(100)
    link = HostLink(Mqtt(port=wire.port, version=version), "host", Host("scada"), intake)
    link.open()
    wire.wait(lambda: PUBLISH in wire.kinds(), lambda: link.tend([]))
    wire.publish("spBv1.0/plant/NDATA/hall", b"")
    wire.wait(lambda: len(intake) == 1, lambda: None)  # all that was sent was read
    link.close()
    wire.wait(lambda: DISCONNECT in wire.kinds(), lambda: None)
    assert wire.kinds() == [CONNECT, SUBSCRIBE, PUBLISH, PUBLISH, DISCONNECT]
    connect = read_connect(wire.packets[0].body, v5=version == "5")
    assert (connect.clean, connect.expiry) == (True, 0)
    assert (connect.will_topic, connect.will_qos, connect.will_retain) == (
        "spBv1.0/STATE/scada", 1, True
    )  # fmt: skip
    will = json.loads(connect.will)
    born, dead = wire.published()
    assert born[:3] == dead[:3] == ("spBv1.0/STATE/scada", 1, True)
    assert json.loads(born.payload) == {"online": True, "timestamp": will["timestamp"]}
    assert json.loads(dead.payload)["online"] is will["online"] is False
    assert b"spBv1.0/STATE/scada" in wire.packets[1].body


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", Keep(power_loss_safe=False))
    yield store
    store.close()


def report(asset: str, seconds: int, state: Any = "learning") -> Health:
    return Health(asset, T_S + seconds, state, None, None, None, None, None, 0, "", 0, ())


def tell(store: Store, *reports: Health) -> None:
    store.begin()
    store.add_results([(one.asset, "health", msgspec.json.encode(one)) for one in reports])
    store.commit()


def verbs(wire: Wire) -> list[str]:
    return [one.topic.split("/")[2] for one in wire.published()]


def test_an_edge_node_is_born_first_and_dies_last(version: Any, wire: Wire, store: Store) -> None:
    """tck-id-principles-birth-certificates-order tck-id-principles-persistence-clean-session-311
    tck-id-principles-persistence-clean-session-50
    tck-id-message-flow-edge-node-birth-publish-will-message tck-id-payloads-ndeath-will-message
    tck-id-payloads-dbirth-order tck-id-payloads-ndata-order
    tck-id-operational-behavior-edge-node-intentional-disconnect-packet
    tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311
    tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50
    tck-id-payloads-ndeath-will-message-publisher
    """
    edge = SparkplugEdge("plant", "runout-1")
    link = EdgeLink(Mqtt(port=wire.port, version=version), edge, "edge", store, Intake(100))
    link.open()
    wire.wait(lambda: verbs(wire) == ["NBIRTH"], link.pump)
    tell(store, report("pump", 0))
    wire.wait(lambda: verbs(wire) == ["NBIRTH", "DBIRTH", "DDATA"], link.pump)
    wire.ask()
    wire.wait(lambda: verbs(wire)[3:] == ["NBIRTH", "DBIRTH"], link.pump)
    tell(store, report("pump", 1, "stale"))
    wire.wait(
        lambda: verbs(wire)[5:] == ["DDATA", "DDEATH"] or verbs(wire)[5:] == ["DDEATH"], link.pump
    )
    link.close()
    wire.wait(lambda: DISCONNECT in wire.kinds(), lambda: None)
    assert wire.kinds()[:3] == [CONNECT, SUBSCRIBE, PUBLISH]
    assert wire.kinds()[-2:] == [PUBLISH, DISCONNECT]
    v5 = version == "5"
    # In version 5 the broker is told to publish the will, too.
    assert wire.packets[-1].body[:1] == (b"\x04" if v5 else b"")
    connect = read_connect(wire.packets[0].body, v5=v5)
    assert (connect.clean, connect.expiry) == (True, 0)
    assert (connect.will_topic, connect.will_qos, connect.will_retain) == (
        "spBv1.0/plant/NDEATH/runout-1", 1, False
    )  # fmt: skip
    said = wire.published()
    assert {(one.qos, one.retain) for one in said[:-1]} == {(0, False)}
    (will,) = Payload.FromString(connect.will).metrics
    births = [Payload.FromString(one.payload) for one in said if "/NBIRTH/" in one.topic]
    assert [birth.metrics[0].long_value for birth in births] == [will.long_value] * 2 == [0, 0]
    numbers = [Payload.FromString(one.payload).seq for one in said[:-1]]
    assert numbers == [0, 1, 2, *range(len(numbers) - 3)]
    assert said[-1].topic == connect.will_topic
    assert Payload.FromString(said[-1].payload).metrics[0].long_value == 0


def test_an_edge_node_counts_its_connections_through_its_processes(
    version: Any, wire: Wire, store: Store
) -> None:
    edge = SparkplugEdge("plant", "runout-1")
    for _ in range(3):
        link = EdgeLink(Mqtt(port=wire.port, version=version), edge, "edge", store, Intake(100))
        link.open()
        before = len(wire.published())
        wire.wait(lambda n=before: len(wire.published()) == n + 1, link.pump)
        wire.ask()
        wire.wait(lambda n=before: len(wire.published()) == n + 2, link.pump)
        link.close()
    wire.wait(lambda: wire.kinds().count(DISCONNECT) == 3, lambda: None)
    births = [one for one in wire.published() if "/NBIRTH/" in one.topic]
    numbers = [Payload.FromString(one.payload).metrics[0].long_value for one in births]
    assert numbers == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("known", [True, False])
def test_a_device_that_is_stale_is_born_for_its_backlog_and_then_dies(
    wire: Wire, store: Store, version: Any, known: bool
) -> None:
    edge, config = SparkplugEdge("plant", "runout-1"), Mqtt(port=wire.port, version=version)
    first = EdgeLink(config, edge, "edge", store, Intake(100))
    first.save()
    first.close()
    results = report("pump", 0), report("pump", 1), report("pump", 2, "stale")
    if known:
        tell(store, *results)
    link = EdgeLink(config, edge, "edge", store, Intake(100))
    if not known:  # or it went while there was no connection yet
        tell(store, *results)
    link.open()
    wire.wait(lambda: "DDEATH" in verbs(wire), link.pump)
    wire.ask()
    wire.wait(lambda: len(verbs(wire)) == 7, link.pump)
    link.close()
    assert verbs(wire)[:6] == ["NBIRTH", "DBIRTH", "DDATA", "DDATA", "DDATA", "DDEATH"]
    assert verbs(wire)[6] == "NBIRTH"  # the dead are not born again
    data = [Payload.FromString(one.payload) for one in wire.published() if "/DDATA/" in one.topic]
    assert all(m.is_historical for payload in data for m in payload.metrics)
    times = [payload.metrics[0].timestamp for payload in data]
    assert times == [1000 * (T_S + n) for n in range(3)]

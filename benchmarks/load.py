"""The two ends that ``throughput`` needs beside an agent: a fast publisher, a plain subscriber.

    python -m benchmarks.load send --port 1883 --node agent --shape single --first 0 --count 9000
    python -m benchmarks.load count --port 1883 --node plain --shape single

Both speak MQTT 3.1.1 at QoS 1. The publisher writes packets made beforehand to a bare socket, and
waits by what its receiver says of itself on the retained status topic, so that nothing is lost and
no queue grows. Messages are numbered: the same number is the same message, in every process.
"""

import argparse
import functools
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.decode import waveform
from contract import topics
from contract.errors import RunoutError
from contract.report import Health, NodeStatus

SITE = "bench"
START_S = 1_767_225_600
"""Time of the first row; the rows follow each other by a millisecond."""
UNACKED = 1000
"""Messages handed to the broker and not yet taken on."""
OUTSTANDING = 5000
"""Messages sent and not yet committed by the receiver."""
BURST = 200
TOLD_S = 0.05
"""How often a receiver says how far it is."""
PATIENCE_S = 15.0

_PUBACK, _PUBLISH, _CONNACK = 4, 3, 2


@dataclass(frozen=True)
class Shape:
    """One form of message.

    Attributes:
        name: for people.
        channels: in a row.
        rows: in a message.
        hop: rows from one score to the next.
        span: rows that a statistic looks back on.
        told: scores from one that is published to the next.
        samples: of a waveform, in a message; 0: it is none.
        assets: that speak in turns, a row a message.
    """

    name: str
    channels: int
    rows: int
    hop: int
    span: int
    told: int = 1
    samples: int = 0
    assets: int = 1

    @property
    def names(self) -> list[str]:
        """Return the names of the channels."""
        return [f"c{i:02d}" for i in range(1, self.channels + 1)]

    def topic(self, node: str, number: int = 0) -> str:
        """Return where the messages go."""
        leaf = self.names[0] if self.channels == 1 else topics.READINGS
        return topics.asset_topic(SITE, node, self.asset(number), leaf)

    def asset(self, number: int) -> str:
        """Return which asset a message is of."""
        return f"pump-{number % self.assets + 1}"

    def row(self, number: int) -> int:
        """Return the number of a message's first row among those of its asset."""
        return number // self.assets * self.rows

    def payload(self, number: int) -> bytes:
        """Return the message of a number.

        >>> SHAPES["single"].payload(1500)
        b'{"t":1767225601.500,"v":21.9118}'
        """
        if self.samples:
            return self._burst(number)
        row = self.row(number)
        t = f"{START_S + row // 1000}.{row % 1000:03d}"
        at = row * self.channels % _POOL
        if self.rows > 1:
            return (
                f'{{"t0":{t},"dt":0.001,"v":[{",".join(_VALUES[at : at + self.rows])}]}}'.encode()
            )
        if self.channels == 1:
            return f'{{"t":{t},"v":{_VALUES[at]}}}'.encode()
        values = zip(self.names, _VALUES[at : at + self.channels], strict=True)
        pairs = ",".join(f'"{name}":{value}' for name, value in values)
        return f'{{"t":{t},"v":{{{pairs}}}}}'.encode()

    def _burst(self, number: int) -> bytes:
        at = number * 97 % (_POOL - 100)
        t_ns = (START_S * 1000 + number) * 10**6
        return waveform.encode(_noise(self.samples)[at : at + self.samples], RATE_HZ, t_ns=t_ns)

    def tells(self, row: int) -> bool:
        """Return whether the agent publishes the score of the vector that a row completes."""
        vector, rest = divmod(row + 1, self.hop)
        return rest == 0 and (vector - 1) % self.told == 0


RATE_HZ = 25_600.0


@functools.cache
def _noise(samples: int) -> NDArray[np.float32]:
    t = np.arange(samples + 9973) / RATE_HZ
    noise = np.random.default_rng(1).normal(size=len(t))
    return (noise + np.sin(2 * np.pi * 50.0 * t)).astype(np.float32)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("single", channels=1, rows=1, hop=16, span=64),
        # Health once a second, as configured by default: every 63rd vector of 16 ms.
        Shape("batch100", channels=1, rows=100, hop=16, span=64, told=63),
        Shape("rows24", channels=24, rows=1, hop=1, span=16),
        # A burst a millisecond, health ten times a second.
        Shape("waveform4096", channels=1, rows=1, hop=1, span=16, told=100, samples=4096),
    )
}
SCALES = {
    shape.name: shape
    for shape in (
        *(
            Shape(f"assets{n}", 8, 1, hop=4, span=16, told=250, assets=n)
            for n in (1, 10, 100, 1000)
        ),
        *(Shape(f"channels{n}", n, 1, hop=4, span=16, told=250) for n in (2, 16, 64)),
    )
}
"""A row of 8 channels a message from ever more assets, and ever more channels of one."""

_POOL = 9973  # a prime: windows come again only after that many
_rng = random.Random(1)  # noqa: S311  # noise, no secret
_VALUES = [f"{_rng.gauss(20.0, 1.0):.4f}" for _ in range(_POOL)]
_VALUES += _VALUES[:100]


class Wire:
    """An MQTT 3.1.1 connection with nothing between the caller and the bytes."""

    def __init__(self, port: int, name: str, subscribe: list[str]) -> None:
        """Connect; waits for a broker that is just starting."""
        self._socket = _dial(port)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self.send(_packet(0x10, _text("MQTT") + b"\x04\x02\x00\x00" + _text(name)))
        if (_CONNACK, b"\x00\x00") not in self.receive(PATIENCE_S):
            raise RunoutError("the broker refused the connection")
        for topic in subscribe:
            self.send(_packet(0x82, b"\x00\x01" + _text(topic) + b"\x00"))

    def send(self, data: bytes) -> None:
        """Write bytes, all of them."""
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> list[tuple[int, bytes]]:
        """Return the whole packets that have come, kind and body; waits for some at most so long.

        ``select`` and no timeout of the socket: that one counts in whole milliseconds.
        """
        if not select.select([self._socket], [], [], max(timeout_s, 0.0))[0]:
            return []
        chunk = self._socket.recv(65536)
        if not chunk:
            raise RunoutError("the broker closed the connection")
        data = self._data + chunk
        found = []
        at = 0
        while (head := _head(data, at)) is not None:
            kind, begin, end = head
            found.append((kind, data[begin:end]))
            at = end
        self._data = data[at:]
        return found

    def close(self) -> None:
        """Say goodbye and close."""
        self.send(_packet(0xE0, b""))
        self._socket.close()


def _dial(port: int) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _head(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return kind, begin and end of the packet at ``at``, None if it is not whole."""
    length = 0
    for i in range(1, 5):
        if at + i >= len(data):
            return None
        byte = data[at + i]
        length |= (byte & 0x7F) << 7 * (i - 1)
        if byte < 0x80:
            begin = at + i + 1
            return (data[at] >> 4, begin, begin + length) if begin + length <= len(data) else None
    raise RunoutError("not MQTT")


def _packet(first: int, body: bytes) -> bytes:
    length = bytearray()
    left = len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (0x80 if left else 0))
        if not left:
            return bytes([first]) + bytes(length) + body


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _published(body: bytes) -> tuple[str, bytes]:
    """Return topic and payload of a message that came at QoS 0."""
    end = 2 + int.from_bytes(body[:2], "big")
    return body[2:end].decode(), body[end:]


def cpu_s(pid: int) -> float:
    """Return the processor time of a process, user and system, all its threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Sent(msgspec.Struct, frozen=True):
    """What became of a stretch of messages, from the first sent to the last committed and scored.

    Attributes:
        messages: how many.
        wall_s: it took.
        cpu_s: of the receiver.
        latencies_ms: from publishing the row that completes a score to the score, per score.
    """

    messages: int
    wall_s: float
    cpu_s: float
    latencies_ms: list[float]


class Publisher:
    """Sends messages ``first`` to ``first + count``, and waits until a node has done with them.

    Args:
        port: of the broker.
        node: which.
        shape: of the messages.
        first: number of the first one; the node has committed those before.
        count: how many.
        scored: whether the node scores; its scores are then waited for too.
    """

    def __init__(
        self, port: int, node: str, shape: Shape, first: int, count: int, *, scored: bool
    ) -> None:
        self._shape = shape
        self._first = first
        self._count = count
        self._packets = []
        self._scores = 0
        self._sent_as: dict[tuple[str, int], int] = {}
        """Place among our messages of the one with a score's row, by asset and row."""
        for i in range(count):
            number = first + i
            head = _text(shape.topic(node, number)) + (i % 65535 + 1).to_bytes(2, "big")
            self._packets.append(_packet(0x32, head + shape.payload(number)))
            row = shape.row(number)
            for told in filter(shape.tells, range(row, row + shape.rows)):
                self._sent_as[shape.asset(number), told] = i
        self._scores = len(self._sent_as) if scored else 0
        self._status: NodeStatus | None = None
        self._stamps: list[float] = []
        self._acked = 0
        self._heard: list[tuple[float, bytes]] = []
        self._status_topic = topics.status_topic(SITE, node)
        health = topics.asset_topic(SITE, node, "+", topics.HEALTH)
        wanted = [self._status_topic, health] if scored else [self._status_topic]
        self._wire = Wire(port, f"bench-send-{os.getpid()}", wanted)

    def run(self, rate: float, pid: int) -> Sent:
        """Send at a rate, messages a second, or as fast as the receiver takes them (0)."""
        self._wait(lambda: self._status is not None and self._status.online, "no status")
        if self._committed:
            raise RunoutError(f"{self._committed} messages more than were sent are committed")
        cpu_before, began = cpu_s(pid) if pid else 0.0, time.perf_counter()
        while (sent := len(self._stamps)) < self._count:
            room = min(
                self._count - sent,
                UNACKED - (sent - self._acked),
                OUTSTANDING - (sent - self._committed),
                1 if rate else BURST,
            )
            if room <= 0:
                self._wait(self._moved(), "nothing is taken")
                continue
            if rate:
                ahead = began + sent / rate - time.perf_counter()
                if ahead > 0:
                    self._take(ahead)
                    continue
            self._stamps += [time.perf_counter()] * room
            self._wire.send(b"".join(self._packets[sent : sent + room]))
            self._take(0.0)
        self._wait(lambda: self._committed >= self._count, "not all is committed")
        self._wait(lambda: len(self._heard) >= self._scores, "not all is scored")
        ended = time.perf_counter()
        cpu_after = cpu_s(pid) if pid else 0.0
        self._check()
        self._wire.close()
        return Sent(self._count, ended - began, cpu_after - cpu_before, self._latencies())

    @property
    def _committed(self) -> int:
        """Return how many of our messages are."""
        readings = 0 if self._status is None else self._status.readings
        return readings // self._shape.rows - self._first

    def _moved(self) -> Callable[[], bool]:
        before = (self._acked, self._committed)
        return lambda: (self._acked, self._committed) != before

    def _wait(self, until: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            self._take(0.5)
            if time.monotonic() > deadline:
                raise RunoutError(
                    f"{otherwise} for {PATIENCE_S:.0f} s: of {self._count} messages "
                    f"{len(self._stamps)} sent, {self._acked} with the broker, "
                    f"{self._committed} committed; {len(self._heard)} of {self._scores} scores"
                )

    def _take(self, timeout_s: float) -> None:
        for kind, body in self._wire.receive(timeout_s):
            if kind == _PUBACK:
                self._acked += 1
            elif kind == _PUBLISH:
                topic, payload = _published(body)
                if topic == self._status_topic:
                    self._status = msgspec.json.decode(payload, type=NodeStatus)
                else:
                    self._heard.append((time.perf_counter(), payload))

    def _check(self) -> None:
        status = self._status
        assert status is not None
        wrong = status.rejected + status.repeated + status.late + status.bad
        if self._committed != self._count or wrong or len(self._heard) != self._scores:
            raise RunoutError(f"sent {self._count} messages, {len(self._heard)} scores: {status}")

    def _latencies(self) -> list[float]:
        decoder = msgspec.json.Decoder(Health)
        latencies = []
        for at, payload in self._heard:
            health = decoder.decode(payload)
            row = round((health.t - START_S) * 1000)
            stamp = self._stamps[self._sent_as[health.asset, row]]
            latencies.append((at - stamp) * 1e3)
        return latencies


def count(port: int, node: str, shape: Shape) -> None:
    """Receive with paho as it comes and say how much: what any subscriber in Python pays."""
    seen = 0

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe(topics.subscription(SITE, node), 1)

    def on_message(*_: Any) -> None:
        nonlocal seen
        seen += 1

    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"bench-{node}",
        clean_session=False,
        protocol=paho.MQTTv311,
    )
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    said = -1
    while True:
        if client.is_connected() and seen != said:
            said = seen
            status = NodeStatus(node, online=True, readings=said * shape.rows)
            topic = topics.status_topic(SITE, node)
            client.publish(topic, msgspec.json.encode(status), qos=1, retain=True)
        time.sleep(TOLD_S)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=["send", "count"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--shape", choices=[*SHAPES, *SCALES], required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first message")
    parser.add_argument("--count", type=int, default=0, help="messages; 0: only wait for the node")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; 0: the most")
    parser.add_argument("--pid", type=int, default=0, help="whose processor time is measured")
    parser.add_argument("--scored", action="store_true", help="wait for the scores too")
    arguments = parser.parse_args()
    shape = (SHAPES | SCALES)[arguments.shape]
    if arguments.do == "count":
        count(arguments.port, arguments.node, shape)
    try:
        publisher = Publisher(
            arguments.port,
            arguments.node,
            shape,
            arguments.first,
            arguments.count,
            scored=arguments.scored,
        )
        sent = publisher.run(arguments.rate, arguments.pid)
    except (RunoutError, OSError) as error:
        print(f"{arguments.node}, {shape.name}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(msgspec.to_builtins(sent)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Sparkplug B 3.0: each node an edge node, each machine a device of it; births before data.

Written by hand: seven fields of the payload are all that is needed. A rebirth is given where it is
asked for, with the next numbers, so it belongs to the thread that sends.
"""

import struct
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from simulator.message import Message

_NAMESPACE = "spBv1.0"
_INT64, _DOUBLE, _BOOLEAN, _STRING = 4, 10, 11, 12


class Sparkplug:
    """The edge nodes of one site.

    Args:
        site: the group.
        nodes: all there will be.
    """

    def __init__(self, site: str, nodes: Iterable[str]) -> None:
        self._site = site
        self._nodes = {node: _Node() for node in nodes}

    def encode(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield births and data in place of rows; a death of each node in the end."""
        last_t = 0.0
        for message in messages:
            last_t = message.t
            if message.values is None:
                yield message
                continue
            node = self._nodes[message.node]
            ms = round(1000 * (message.t if message.said_t is None else message.said_t))
            if not node.born:
                yield from self._births(message.node, ms, message)
            if message.asset not in node.devices:
                units = message.units or {}
                first = len(node.aliases)
                for at, name in enumerate(message.values):
                    node.aliases[message.asset, name] = first + at
                node.devices[message.asset] = {n: units.get(n, "") for n in message.values}
                node.last[message.asset] = ms, message.values
                # A birth says the values that are: it is the first row.
                birth = self._device_birth(message.node, message.asset, message)
                yield replace(birth, rows=message.rows)
                continue
            node.last[message.asset] = ms, message.values
            body = b"".join(
                _bytes(2, _int(2, node.aliases[message.asset, n]) + _int(3, ms) + _double(13, v))
                for n, v in message.values.items()
            )
            yield replace(
                message,
                payload=self._numbered(node, ms, body),
                topic=self._topic(message.node, "DDATA", message.asset),
                qos=0,
            )
        for name, node in self._nodes.items():
            if node.born:
                yield _plain(last_t, name, *self.death(name))

    def death(self, node: str) -> tuple[str, bytes]:
        """Return topic and payload of a node's death, its will, too."""
        metric = _text(1, "bdSeq") + _int(4, _INT64) + _int(11, 0)
        return self._topic(node, "NDEATH"), _bytes(2, metric)

    def command_topic(self, node: str) -> str:
        """Return where a rebirth of a node is asked for."""
        return self._topic(node, "NCMD")

    def rebirth(self, node: str) -> list[tuple[str, bytes]]:
        """Return births of a node and its devices anew; none where nothing was born yet."""
        of = self._nodes[node]
        if not of.born:
            return []
        like = Message(of.ms / 1000, node, "", "", b"", 0, 0)
        births = list(self._births(node, of.ms, like))
        births += [self._device_birth(node, device, like) for device in of.devices]
        return [(str(birth.topic), birth.payload) for birth in births]

    def _births(self, name: str, ms: int, like: Message) -> Iterator[Message]:
        node = self._nodes[name]
        node.born, node.seq = True, 0
        metrics = (
            _text(1, "bdSeq") + _int(3, ms) + _int(4, _INT64) + _int(11, 0),
            _text(1, "Node Control/Rebirth") + _int(3, ms) + _int(4, _BOOLEAN) + _int(14, 0),
        )
        body = b"".join(_bytes(2, metric) for metric in metrics)
        yield _plain(like.t, name, self._topic(name, "NBIRTH"), self._numbered(node, ms, body))

    def _device_birth(self, name: str, device: str, like: Message) -> Message:
        node = self._nodes[name]
        ms, values = node.last[device]
        body = b""
        for channel, unit in node.devices[device].items():
            metric = _text(1, channel) + _int(2, node.aliases[device, channel]) + _int(3, ms)
            metric += _int(4, _DOUBLE) + _double(13, values[channel])
            if unit:
                value = _int(1, _STRING) + _text(8, unit)
                metric += _bytes(9, _text(1, "engUnit") + _bytes(2, value))
            body += _bytes(2, metric)
        payload = self._numbered(node, ms, body)
        return _plain(like.t, name, self._topic(name, "DBIRTH", device), payload)

    def _numbered(self, node: "_Node", ms: int, body: bytes) -> bytes:
        payload = _int(1, ms) + body + _int(3, node.seq)
        node.seq, node.ms = (node.seq + 1) % 256, ms
        return payload

    def _topic(self, node: str, verb: str, device: str = "") -> str:
        end = f"/{device}" if device else ""
        return f"{_NAMESPACE}/{self._site}/{verb}/{node}{end}"


class _Node:
    """What an edge node has said of itself."""

    def __init__(self) -> None:
        self.born = False
        self.seq = 0
        self.ms = 0
        self.devices: dict[str, dict[str, str]] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.last: dict[str, tuple[int, dict[str, float]]] = {}


def _plain(t: float, node: str, topic: str, payload: bytes) -> Message:
    return Message(t, node, "", "", payload, rows=0, events=0, topic=topic, qos=0)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    """Write a whole number.

    >>> _int(1, 300).hex()
    '08ac02'
    """
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)

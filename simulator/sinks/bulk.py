"""Publishes as fast as a broker takes it, in bulk: thousands of messages a write, acknowledged.

A small part of MQTT 3.1.1 (OASIS, 2014), because a client that treats each message by itself costs
more than the broker does. It waits for no agent, and a connection that is lost is an error.
"""

import select
import socket
import struct
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from contract.errors import RunoutError
from simulator.sinks.mqtt import Address

MAX_UNACKED = 16_384
"""Messages that the broker has not acknowledged; more wait. A packet's number has 16 bits."""
_CHUNK = 65_536
_CONNECT, _CONNACK, _PUBACK, _PINGRESP = 0x10, 0x20, 0x40, 0xD0
_PINGREQ = b"\xc0\x00"
_DISCONNECT = b"\xe0\x00"


class BulkSink:
    """A connection to a broker.

    Args:
        address: of the broker.
        timeout_s: it has taken nothing for so long: an error; 0: never.
        will: topic and payload that the broker publishes if this connection breaks.
    """

    def __init__(
        self, address: Address, *, timeout_s: float = 300.0, will: tuple[str, bytes] | None = None
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s or None
        self._will = will
        self._out = bytearray()
        self._in = bytearray()
        self._number = 0
        self._unacked = 0
        self._answered = False
        self._topics: dict[str, bytes] = {}
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Connect; raises ``RunoutError`` when no broker answers."""
        try:
            self._socket = socket.create_connection(
                (self._address.host, self._address.port), timeout=self._timeout_s
            )
        except OSError as error:
            raise RunoutError(
                f"no broker at {self._address} ({error.strerror or error}); start one, as in:"
                f" mosquitto -p {self._address.port}"
            ) from error
        self._socket.setblocking(False)
        with ExitStack() as opened:
            opened.callback(self._socket.close)
            self._out += self._hello()
            self._until(lambda: self._answered)
            opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect. What was sent and not finished may be lost."""
        if self._socket is not None:
            self._socket.close()

    def send(
        self,
        node: str,
        topic: str,
        payload: bytes,
        *,
        rows: int = 1,
        events: int = 0,
        qos: int = 1,
    ) -> None:
        """Publish, with many others."""
        del node, rows, events
        named = self._topics.get(topic)
        if named is None:
            # Bounded by the plant: a topic a machine and leaf.
            text = topic.encode()
            named = self._topics[topic] = struct.pack(">H", len(text)) + text
        out = self._out
        left = len(named) + len(payload) + (2 if qos else 0)
        out.append(0x32 if qos else 0x30)
        while left > 0x7F:
            out.append(left & 0x7F | 0x80)
            left >>= 7
        out.append(left)
        out += named
        if qos:
            self._number = self._number % 0xFFFF + 1
            out += self._number.to_bytes(2, "big")
            self._unacked += 1
        out += payload
        if len(out) >= _CHUNK:
            self._until(lambda: len(self._out) < _CHUNK and self._unacked < MAX_UNACKED)

    def finish(self) -> None:
        """Return when the broker has taken everything, and acknowledged what is to be."""
        self._answered = False
        self._out += _PINGREQ  # answered in its turn: by then all before it is taken
        self._until(lambda: self._answered and not self._unacked)
        self._out += _DISCONNECT
        self._until(lambda: not self._out)

    def lag(self) -> dict[str, int]:
        """Return nothing: no agent is waited for."""
        return {}

    def _until(self, done: Callable[[], bool]) -> None:
        """Write and read until ``done``: a broker that is not read from stops reading."""
        if self._socket is None:
            raise RuntimeError("not connected: use it in a with statement")
        while not done():
            wants = [self._socket] if self._out else []
            readable, writable, _ = select.select([self._socket], wants, [], self._timeout_s)
            if not readable and not writable:
                raise RunoutError(
                    f"the broker at {self._address} has taken nothing for {self._timeout_s:.0f} s"
                )
            try:
                if writable:
                    del self._out[: self._socket.send(self._out)]
                if readable:
                    self._read(self._socket.recv(_CHUNK))
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error

    def _read(self, data: bytes) -> None:
        if not data:
            raise self._lost("it closed the connection")
        self._in += data
        at = 0
        # All that a broker says to one who only publishes is shorter than 128 bytes.
        while at + 2 <= len(self._in) and at + 2 + self._in[at + 1] <= len(self._in):
            kind, size = self._in[at] & 0xF0, self._in[at + 1]
            if kind == _PUBACK:
                self._unacked -= 1
            elif kind in {_CONNACK, _PINGRESP}:
                code = self._in[at + 3] if kind == _CONNACK else 0
                if code:
                    raise RunoutError(f"the broker at {self._address} refuses: code {code}")
                self._answered = True
            at += 2 + size
        del self._in[:at]

    def _lost(self, why: str) -> RunoutError:
        return RunoutError(f"the broker at {self._address} is gone ({why}); not all was played")

    def _hello(self) -> bytes:
        flags = 0x02  # a clean session
        parts = [f"runout-sim-{uuid.uuid4().hex[:8]}".encode()]
        if self._will is not None:
            flags |= 0x04 | 0x08  # a will, at QoS 1
            parts += [self._will[0].encode(), self._will[1]]
        body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x00"  # no keep-alive
        body += b"".join(struct.pack(">H", len(part)) + part for part in parts)
        size = bytearray()
        left = len(body)
        while left > 0x7F:
            size.append(left & 0x7F | 0x80)
            left >>= 7
        return bytes([_CONNECT]) + bytes(size) + bytes([left]) + body

"""The one file that knows paho: a persistent session, buffered reads, acknowledgement after commit.

MQTT 3.1.1 and 5, QoS 0 and 1. paho connects, keeps alive, subscribes and connects again; messages
and acknowledgements, of which there are many, are read and written here in bulk.
"""

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config import Mqtt
from agent.intake import Arrival

log = logging.getLogger("runout.mqtt")

_PUBACK = b"\x40\x02"
_SHORT = "what the broker sends is not MQTT: a packet is shorter than its head says"
READ_BYTES = 256 * 1024
MOST_PACKET = 8 * 1024 * 1024
"""Bytes of a message; what is larger is rejected."""


class _ReadAhead:
    """A socket that is read in large pieces, and knows where packets end."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.data = b""
        self.at = 0
        self.skip = 0
        """Bytes still to come of a packet that is too large."""

    def fill(self) -> None:
        """Read what there is; raises as the socket does when there is nothing."""
        chunk = self._sock.recv(READ_BYTES)
        if not chunk:
            raise ConnectionResetError("the broker closed the connection")
        if self.skip:
            dropped = min(self.skip, len(chunk))
            self.skip -= dropped
            chunk = chunk[dropped:]
        self.data = self.data[self.at :] + chunk if self.at < len(self.data) else chunk
        self.at = 0

    def head(self) -> tuple[int, int] | None:
        """Return begin and end of the next packet's body; None: not all of its head is there."""
        data, at = self.data, self.at
        have = len(data)
        if have < at + 2:
            return None
        size = data[at + 1]
        if size < 0x80:  # most are short
            return at + 2, at + 2 + size
        size &= 0x7F
        for i in range(1, 4):
            if have < at + 2 + i:
                return None
            byte = data[at + 1 + i]
            size |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return at + 2 + i, at + 2 + i + size
        raise ConnectionResetError("what the broker sends is not MQTT")

    def recv(self, size: int) -> bytes:
        """Return bytes of a packet that is there: it is paho that asks."""
        chunk = self.data[self.at : self.at + size]
        self.at += len(chunk)
        return chunk

    def pending(self) -> int:
        """Return how many bytes the socket holds that ``select`` does not know of."""
        return self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Client(paho.Client):
    """paho, but for what there is much of: messages and acknowledgements are read here, in bulk.

    paho reads a packet's head byte by byte, one system call each, and passes each message through
    a dozen locks and callbacks.
    """

    take: Callable[[list[Arrival]], None]
    """Called with the messages that one read brought."""
    acked: Callable[[list[int]], None]
    """Called with the numbers of messages that the broker has taken on."""
    session = 0
    error = ""
    """Why reading ended, of which paho keeps nothing."""

    def _create_socket(self) -> Any:
        sock: Any = super()._create_socket()
        # A result waits behind its acknowledgement for the broker's next packet otherwise.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _ReadAhead(sock)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handle what one read brings."""
        del max_packets
        sock: Any = self._sock
        if not isinstance(sock, _ReadAhead):
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            sock.fill()
            return self._handle(sock)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except (OSError, ValueError) as error:
            self.error = str(error)
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)

    def _handle(self, sock: _ReadAhead) -> MQTTErrorCode:
        arrivals: list[Arrival] = []
        acked: list[int] = []
        now_ns = time.time_ns()
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        while not rc and (head := sock.head()) is not None:
            begin, end = head
            data = sock.data
            first = data[sock.at]
            kind = first & 0xF6
            if end > len(data):
                if end - begin > MOST_PACKET:
                    self._refuse(sock, begin, end, now_ns, arrivals)
                break
            if kind in {0x30, 0x32}:
                arrivals.append(self._read_message(data, first, begin, end, now_ns))
                sock.at = end
            elif kind == 0x40:
                if end < begin + 2:
                    raise ValueError(_SHORT)
                acked.append(data[begin] << 8 | data[begin + 1])
                if end - begin > 2 and data[begin + 2] >= 0x80:
                    # MQTT 5 says why. Published again it would be refused again.
                    log.error("the broker refused a message", extra={"code": data[begin + 2]})
                sock.at = end
            else:
                if arrivals:
                    self.take(arrivals)
                    arrivals = []
                rc = self._packet_read()
        if acked:
            self.acked(acked)
        if arrivals:
            self.take(arrivals)
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        return self._loop_rc_handle(rc) if rc else rc

    def _read_message(self, data: bytes, first: int, begin: int, end: int, now_ns: int) -> Arrival:
        if end < begin + 2:
            raise ValueError(_SHORT)
        at = begin + 2 + (data[begin] << 8 | data[begin + 1])
        topic = data[begin + 2 : at]
        token = 0
        if first & 0x06:
            if end < at + 2:
                raise ValueError(_SHORT)
            token = self.session << 16 | data[at] << 8 | data[at + 1]
            at += 2
        if self._protocol == paho.MQTTv5:
            size, length = _varint(data, at, end)
            at += size + length
        if at > end:
            raise ValueError(_SHORT)
        arrival = Arrival(topic.decode("utf-8", "replace"), data[at:end], token, now_ns)
        return arrival._replace(retained=True) if first & 0x01 else arrival

    def _refuse(
        self, sock: _ReadAhead, begin: int, end: int, now_ns: int, arrivals: list[Arrival]
    ) -> None:
        """Pass over a message that is too large, as if it were empty: it is rejected and told."""
        data, first = sock.data, sock.data[sock.at]
        if first & 0xF4 != 0x30:
            raise ValueError("what the broker sends is not MQTT: only a message may be so large")
        if len(data) < begin + 2:
            return  # its head comes with the next read
        at = begin + 2 + (data[begin] << 8 | data[begin + 1])
        if len(data) < at + 8:
            return
        stop = at + (2 if first & 0x06 else 0)
        if self._protocol == paho.MQTTv5:
            size, length = _varint(data, stop, end)
            if stop + size + length > end:
                raise ValueError(_SHORT)
            if len(data) < stop + size + length:
                return
            stop += size + length
        message = self._read_message(data, first, begin, stop, now_ns)
        arrivals.append(message._replace(payload=b"", over=end - begin))
        log.warning("a message is too large", extra={"bytes": end - begin, "most": MOST_PACKET})
        sock.skip = end - len(data)
        sock.at = len(data)


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return how many bytes a length takes, all before ``end``, and the length."""
    value = 0
    for i in range(min(4, end - at)):
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return i + 1, value
    raise ValueError("what the broker sends is not MQTT: a length that does not end")


def _head_of(first: int, size: int) -> bytes:
    """Return the head of a packet with a body of so many bytes."""
    head = bytearray([first])
    while True:
        size, low = divmod(size, 128)
        head.append(low | (0x80 if size else 0))
        if not size:
            return bytes(head)


class Link:
    """The connection to the broker: it subscribes, receives, acknowledges and publishes.

    Args:
        config: of the broker.
        client_id: of the persistent session: one per node.
        filters: topic filters to subscribe to, with their quality of service.
        will: topic and payload that the broker publishes, and retains, when this device is gone;
            None: nothing, or what ``on_connecting`` sets.
        receive: called with messages, in the network's thread.
        persistent: the broker keeps for us what comes while we are away.

    Attributes:
        connected: whether the session stands.
        session: how often it has been made; what was published in an older one may be lost.
    """

    def __init__(
        self,
        config: Mqtt,
        *,
        client_id: str,
        filters: Sequence[tuple[str, int]],
        will: tuple[str, bytes] | None,
        receive: Callable[[list[Arrival]], None],
        persistent: bool = True,
    ) -> None:
        self._config = config
        self._filters = list(filters)
        self._persistent = persistent
        self._acked: list[int] = []
        self._lock = threading.Condition()
        self._mid = 0
        self._failures = 0
        self._topics: dict[str, bytes] = {}
        self.session = 0
        self.connected = threading.Event()
        self.on_connected: Callable[[], None] = lambda: None
        """Called in the network's thread when the session stands and is subscribed."""
        self.on_connecting: Callable[[], None] = lambda: None
        """Called in the network's thread before each attempt: the will may be set there."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called in the network's thread when a connection has ended, and each time that none
        comes about."""
        self._v5 = config.version == "5"
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._v5 else not persistent,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
        )
        client.take = receive
        client.acked = self._take_on
        client.reconnect_delay_set(1, 30)
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        if config.username:
            client.username_pw_set(config.username, _secret(config.password_file))
        if config.tls:
            client.tls_set(
                ca_certs=config.tls.ca,
                certfile=config.tls.certificate or None,
                keyfile=config.tls.key or None,
                tls_version=ssl.PROTOCOL_TLS_CLIENT,
            )
        client.on_pre_connect = lambda *_: self.on_connecting()
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        self._client = client

    def will(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Set another will, for the next connection."""
        self._client.will_set(topic, payload, qos=1, retain=retain)

    def open(self) -> None:
        """Start to connect; an absent broker is waited for, in the network's thread."""
        more: dict[str, Any] = {}
        if self._v5:
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = 65535
            if self._persistent:
                properties.SessionExpiryInterval = 0xFFFFFFFF
            more = {"clean_start": not self._persistent, "properties": properties}
        self._client.connect_async(
            self._config.host, self._config.port, keepalive=self._config.keepalive_s, **more
        )
        self._client.loop_start()

    def close(self, *, with_will: bool = False) -> None:
        """Disconnect and end the network's thread; safe at any time.

        ``with_will``: in MQTT 5 the broker is to publish the will all the same.
        """
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=4) if with_will else None
        self._client.disconnect(reason if self._v5 else None)
        self._client.loop_stop()

    @property
    def alive(self) -> bool:
        """Return whether the network's thread runs: an exception in it would end it unseen."""
        thread = self._client._thread  # noqa: SLF001  # paho has no question for it
        return thread is not None and thread.is_alive()

    def acknowledge(self, tokens: Iterable[int]) -> None:
        """Acknowledge committed messages; those of a connection that is gone come again.

        All in one write: paho would wake its thread for each.
        """
        if not self.connected.is_set():
            return
        session = self.session
        body = b"".join(
            [
                _PUBACK + (token & 0xFFFF).to_bytes(2, "big")
                for token in tokens
                if token and token >> 16 == session
            ]
        )
        if body:
            self._write(body)

    def publish(self, messages: Iterable[tuple[str, bytes, bool]]) -> list[int]:
        """Hand messages (topic, payload, retain) over at QoS 1, in their order, in one write.

        Returns:
            a number each, which ``take_acked`` returns once the broker has taken the message on.
            What a lost connection takes with it is for the caller to publish again: see
            ``session``. At most 1000 may be under way.
        """
        numbers: list[int] = []
        parts: list[bytes] = []
        for topic, payload, retain in messages:
            self._mid = self._mid % 65535 + 1
            numbers.append(self._mid)
            name = self._topics.get(topic)
            if name is None:
                raw = topic.encode()
                name = len(raw).to_bytes(2, "big") + raw
                if len(self._topics) < 10_000:
                    self._topics[topic] = name
            more = b"\0" if self._v5 else b""
            size = len(name) + 2 + len(more) + len(payload)
            first = 0x33 if retain else 0x32
            parts += [_head_of(first, size), name, self._mid.to_bytes(2, "big"), more, payload]
        if parts:
            self._write(b"".join(parts))
        return numbers

    def say(self, messages: Iterable[tuple[str, bytes, int, bool]]) -> None:
        """Publish messages (topic, payload, quality of service, retain), in their order.

        Nobody is told what becomes of them: of those at QoS 0 the broker says nothing.
        """
        more = b"\0" if self._v5 else b""
        for topic, payload, qos, retain in messages:
            if qos:
                self.publish([(topic, payload, retain)])
                continue
            raw = topic.encode()
            name = len(raw).to_bytes(2, "big") + raw
            head = _head_of(0x31 if retain else 0x30, len(name) + len(more) + len(payload))
            self._write(b"".join((head, name, more, payload)))

    @property
    def unwritten(self) -> int:
        """Return how many packets wait for the network to take them."""
        return len(self._client._out_packet)  # noqa: SLF001  # paho has no question for it

    def wait_for_acks(self, timeout_s: float) -> None:
        """Wait until the broker has taken something on, or for so long."""
        with self._lock:
            if not self._acked:
                self._lock.wait(timeout_s)

    def _write(self, packets: bytes) -> None:
        # As an acknowledgement, of which paho keeps no account.
        self._client._packet_queue(0x40, packets, 0, 0)  # noqa: SLF001

    def take_acked(self) -> list[int]:
        """Return the numbers of published messages that the broker has since taken on."""
        if not self._acked:
            return []
        with self._lock:
            acked, self._acked = self._acked, []
        return acked

    # -- in the network's thread: nothing may be raised here, it would end the thread ------------

    def _take_on(self, numbers: list[int]) -> None:
        with self._lock:
            self._acked += numbers
            self._lock.notify_all()

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _p: Any
    ) -> None:
        if reason.is_failure:
            log.error("the broker refused the connection", extra={"reason": str(reason)})
            return
        with self._lock:
            self._acked = []
            self.session += 1
            self._client.session = self.session
        self._failures = 0
        # Here and not after connect(): after a restart the broker has forgotten us.
        if self._filters:
            client.subscribe(self._subscriptions())
        log.info("connected", extra={"broker": f"{self._config.host}:{self._config.port}"})
        self.connected.set()
        self.on_connected()

    def _subscriptions(self) -> Any:
        if not self._v5:
            return self._filters
        # Our own results do not come back to us, nor does each connection bring what is retained.
        once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        return [
            (topic, SubscribeOptions(qos=qos, noLocal=True, retainHandling=once))
            for topic, qos in self._filters
        ]

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _p: Any) -> None:
        for (topic, _), reason in zip(self._filters, reasons, strict=False):
            if reason.is_failure:
                log.error("the broker refused a subscription", extra={"topic": topic})

    def _on_connect_fail(self, _client: paho.Client, _data: Any) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th...
            broker = f"{self._config.host}:{self._config.port}"
            # paho calls this while it handles the error, and does not say which one it was.
            error = str(sys.exception())
            log.warning(
                "broker unreachable, trying again", extra={"broker": broker, "error": error}
            )

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        self.connected.clear()
        if reason.is_failure:
            error = self._client.error or str(reason)
            log.warning("connection lost", extra={"reason": error})
        self._client.error = ""
        self.on_lost()


def _secret(path: str) -> str | None:
    return Path(path).read_text(encoding="utf-8").splitlines()[0] if path else None

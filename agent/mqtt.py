"""The one file that knows paho: a persistent session, buffered reads, acknowledgement after commit.

MQTT 3.1.1, QoS 1. paho reads a packet's head byte by byte, one system call each; given a socket
that reads ahead, it costs a third.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from agent.config import Mqtt
from agent.intake import Arrival

log = logging.getLogger("runout.mqtt")

_PUBACK = b"\x40\x02"


class _ReadAhead:
    """A socket whose ``recv`` is served from what one large read brought."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._data = b""
        self._at = 0

    def recv(self, size: int) -> bytes:
        """Return up to ``size`` bytes; raises as the socket does when there is nothing."""
        if self._at >= len(self._data):
            self._data = self._sock.recv(65536)
            self._at = 0
        chunk = self._data[self._at : self._at + size]
        self._at += len(chunk)
        return chunk

    def pending(self) -> int:
        """Return how many bytes can be had without a system call: paho asks before it waits."""
        ahead = len(self._data) - self._at
        return ahead or (self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Client(paho.Client):
    def _create_socket(self) -> Any:
        sock: Any = super()._create_socket()
        # A result waits behind its acknowledgement for the broker's next packet otherwise.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _ReadAhead(sock)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handle what has been read ahead; a bound leaves room for writing."""
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        for _ in range(500):
            rc = super().loop_read(max_packets)
            sock: object = self._sock
            if rc or not isinstance(sock, _ReadAhead) or not sock.pending():
                break
        return rc


class Link:
    """The connection to the broker: it subscribes, receives, acknowledges and publishes.

    Args:
        config: of the broker.
        client_id: of the persistent session: one per node.
        topics: patterns to subscribe to.
        will: topic and payload that the broker publishes when this device is gone.
        receive: called with each message, in the network's thread.

    Attributes:
        connected: whether the session stands.
    """

    def __init__(
        self,
        config: Mqtt,
        *,
        client_id: str,
        topics: Iterable[str],
        will: tuple[str, bytes],
        receive: Callable[[Arrival], None],
    ) -> None:
        self._config = config
        self._topics = tuple(topics)
        self._receive = receive
        self._acked: set[int] = set()
        self._lock = threading.Lock()
        self._session = 0
        self._failures = 0
        self.connected = threading.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called in the network's thread when the connection or an acknowledgement changes."""
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        client.max_inflight_messages_set(1000)
        client.reconnect_delay_set(1, 30)
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
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        self._client = client

    def open(self) -> None:
        """Start to connect; an absent broker is waited for, in the network's thread."""
        self._client.connect_async(
            self._config.host, self._config.port, keepalive=self._config.keepalive_s
        )
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect and end the network's thread; safe at any time."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def alive(self) -> bool:
        """Return whether the network's thread runs: an exception in it would end it unseen."""
        thread = self._client._thread  # noqa: SLF001  # paho has no question for it
        return thread is not None and thread.is_alive()

    def acknowledge(self, tokens: list[int]) -> None:
        """Acknowledge committed messages; those of a connection that is gone come again.

        All in one write: paho would wake its thread for each.
        """
        session = self._session
        body = b"".join(
            _PUBACK + (token & 0xFFFF).to_bytes(2, "big")
            for token in tokens
            if token and token >> 16 == session
        )
        if body:
            self._client._packet_queue(0x40, body, 0, 0)  # noqa: SLF001

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand a message over at QoS 1; returns a number that ``take_acked`` returns later."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def take_acked(self) -> set[int]:
        """Return the numbers of published messages that the broker has since taken on."""
        with self._lock:
            acked, self._acked = self._acked, set()
        return acked

    # -- in the network's thread: nothing may be raised here, it would end the thread ------------

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _p: Any
    ) -> None:
        if reason.is_failure:
            log.error("the broker refused the connection", extra={"reason": str(reason)})
            return
        self._session += 1
        self._failures = 0
        # Here and not after connect(): after a restart the broker has forgotten us.
        client.subscribe([(topic, 1) for topic in self._topics])
        log.info("connected", extra={"broker": f"{self._config.host}:{self._config.port}"})
        self.connected.set()
        self.on_change()

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _p: Any) -> None:
        for topic, reason in zip(self._topics, reasons, strict=False):
            if reason.is_failure:
                log.error("the broker refused a subscription", extra={"topic": topic})

    def _on_connect_fail(self, _client: paho.Client, _data: Any) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th...
            broker = f"{self._config.host}:{self._config.port}"
            log.warning("broker unreachable, trying again", extra={"broker": broker})

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        self.connected.clear()
        if reason.is_failure:
            log.warning("connection lost", extra={"reason": str(reason)})
        self.on_change()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        token = self._session << 16 | message.mid if message.qos else 0
        self._receive(Arrival(message.topic, bytes(message.payload), token, time.time_ns()))

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _p: Any) -> None:
        with self._lock:
            self._acked.add(mid)
        self.on_change()


def _secret(path: str) -> str | None:
    return Path(path).read_text(encoding="utf-8").splitlines()[0] if path else None

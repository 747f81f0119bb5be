"""The one file of the server that knows paho: reports in, words to agents out.

A persistent session and acknowledgement after commit: what agents say while this server is away,
the broker keeps, as far as its own bounds go.
"""

import logging
import queue
import ssl
import threading
from pathlib import Path
from typing import Any, NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract.errors import RunoutError
from server.fleet.config import Mqtt

log = logging.getLogger("runout.fleet")

WAITING = 20_000
"""Messages that wait here; with more, the broker waits."""
SAY_S = 5.0
"""By then the broker has taken a word on, or it is told to be unsaid."""


class Message(NamedTuple):
    """What came, and the number by which it is acknowledged; ``session``: on which connection."""

    topic: str
    payload: bytes
    number: int
    qos: int
    session: int


class Link:
    """A connection to the broker that is made again by itself.

    Args:
        config: of the broker.
        filters: what is heard.

    Attributes:
        connected: whether there is a connection.

    Raises:
        RunoutError: a file of the configuration cannot be used.
    """

    def __init__(self, config: Mqtt, filters: list[str]) -> None:
        self.connected = threading.Event()
        self.name = f"{config.host}:{config.port}"
        self._filters = filters
        self._waiting: queue.Queue[Message | None] = queue.Queue(WAITING)
        self._closing = threading.Event()
        self._session = 0
        self._failures = 0
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            clean_session=False,
            manual_ack=True,
        )
        try:
            if config.username:
                self._client.username_pw_set(config.username, _secret(config.password_file))
            if config.tls:
                self._client.tls_set(
                    ca_certs=config.tls.ca,
                    certfile=config.tls.certificate or None,
                    keyfile=config.tls.key or None,
                    tls_version=ssl.PROTOCOL_TLS_CLIENT,
                )
        except (OSError, ValueError) as error:
            raise RunoutError(f"[mqtt]: its files cannot be used: {error}") from error
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 30)
        self._client.connect_async(config.host, config.port, config.keepalive_s)

    def open(self) -> None:
        """Start the network's thread."""
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect, and let ``take`` return nothing from now on; safe at any time."""
        self._closing.set()
        self._client.disconnect()
        while True:  # the network's thread may wait for room
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                break
        self._waiting.put(None)
        self._client.loop_stop()

    def take(self, most: int) -> list[Message]:
        """Wait for a message and return it with what else is there; nothing: it is closed."""
        first = self._waiting.get()
        found = [] if first is None else [first]
        while found and len(found) < most:
            try:
                more = self._waiting.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._waiting.put(None)
                break
            found.append(more)
        return found

    def acknowledge(self, messages: list[Message]) -> None:
        """Tell the broker that these are kept; those of a lost connection come again anyway."""
        for message in messages:
            if message.qos and message.session == self._session:
                self._client.ack(message.number, message.qos)

    def say(self, topic: str, payload: bytes) -> None:
        """Publish a word to an agent, and return when the broker has it.

        Raises:
            RunoutError: there is no connection, or the broker has not taken it on in time.
        """
        if not self.connected.is_set():
            raise RunoutError(f"there is no connection to the broker {self.name}: nothing was sent")
        info = self._client.publish(topic, payload, qos=1)
        try:
            info.wait_for_publish(SAY_S)
        except (RuntimeError, ValueError) as error:
            raise RunoutError(f"the broker {self.name} did not take it: {error}") from error
        if not info.is_published():
            raise RunoutError(
                f"the broker {self.name} has not taken it within {SAY_S:.0f} s; it may still"
            )

    # -- in the network's thread: nothing may be raised here, it would end the thread -----------

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            log.error("the broker %s refuses the connection: %s", self.name, reason)
            return
        self._session += 1
        self._failures = 0
        # Here and not after connect(): after a restart the broker has forgotten us.
        client.subscribe([(topic, 1) for topic in self._filters])

    def _on_subscribe(self, _client: Any, _data: Any, _number: int, reasons: Any, _p: Any) -> None:
        for topic, reason in zip(self._filters, reasons, strict=False):
            if reason.is_failure:
                log.error("the broker %s refuses the topic %s", self.name, topic)
        log.info("connected to the broker %s", self.name)
        self.connected.set()

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th...
            log.warning("no broker at %s yet; trying again", self.name)

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        self.connected.clear()
        if reason.is_failure:
            log.warning("the connection to the broker %s is lost: %s", self.name, reason)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker should let it pass
            topic = ""
        came = Message(topic, bytes(message.payload), message.mid, message.qos, self._session)
        while not self._closing.is_set():
            try:
                self._waiting.put(came, timeout=0.5)
            except queue.Full:
                continue
            return

    @property
    def alive(self) -> bool:
        """Return whether the network's thread runs."""
        return self._client._thread is not None and self._client._thread.is_alive()  # noqa: SLF001


def _secret(path: str) -> str | None:
    if not path:
        return None
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"mqtt.password_file: {path!r} is empty")
    return lines[0]

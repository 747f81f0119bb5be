"""Publishes to a broker as fast as the agents commit, and loses nothing; knows no data."""

import math
import socket
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contract.errors import RunoutError
from contract.report import NodeStatus
from contract.topics import status_topic
from simulator.clock import Clock, WallClock

MAX_UNACKED = 1000
"""Messages that the broker has not acknowledged yet; more must wait."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int = 1883

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``HOST``, ``HOST:PORT`` or ``[IPV6]:PORT``; raises ``RunoutError``.

        >>> Address.parse("broker.local:1884"), Address.parse("[::1]")
        (Address(host='broker.local', port=1884), Address(host='::1', port=1883))
        """
        host, colon, port = text.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = text, "1883"
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise RunoutError(f"broker {text!r} is not HOST or HOST:PORT, as in 127.0.0.1:1883")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True, eq=False)
class _Sent:
    topic: str
    payload: bytes
    rows: int
    events: int
    qos: int


@dataclass(slots=True, eq=False)
class _Node:
    """What was sent to a node, and what it says it has committed."""

    name: str
    rows: int = 0
    events: int = 0
    confirmed_rows: int = 0
    confirmed_events: int = 0
    status: NodeStatus | None = None
    known: bool = False
    rows_base: int = 0
    events_base: int = 0
    repeated_base: int = 0
    repeated: int = 0
    moved: float = 0.0
    heard: bool = False  # on this connection
    unsettled: deque[_Sent] = field(default_factory=deque)
    again: list[_Sent] = field(default_factory=list)
    settled_rows: int = 0
    settled_events: int = 0

    @property
    def behind(self) -> int:
        return self.rows - self.confirmed_rows

    @property
    def done(self) -> bool:
        return self.confirmed_rows >= self.rows and self.confirmed_events >= self.events

    def hear(self, status: NodeStatus, now: float, *, retained: bool) -> bool:
        """Take a status; returns whether the node's store was made anew since the last one."""
        if self.known and retained and status.readings - self.rows_base < self.confirmed_rows:
            return False  # a broker that was restarted shows what it had saved: old news
        self.status = status
        if not status.online:
            return False  # a last will: its counts are those of when the agent connected
        anew = False
        if not self.known or not (self.rows or self.events):
            self.rows_base, self.events_base = status.readings, status.events
            self.repeated_base = status.repeated
        elif (
            status.readings - self.rows_base < self.confirmed_rows
            or status.events - self.events_base < self.confirmed_events
        ):
            # A new store counts from 0; what was confirmed stays confirmed.
            self.rows_base, self.events_base = -self.confirmed_rows, -self.confirmed_events
            self.repeated_base = status.repeated
            anew = True
        rows, events = status.readings - self.rows_base, status.events - self.events_base
        if not self.known or (rows, events) != (self.confirmed_rows, self.confirmed_events):
            self.moved = now
            self.repeated_base = status.repeated
        self.known = self.heard = True
        self.repeated = status.repeated - self.repeated_base
        self.confirmed_rows, self.confirmed_events = rows, events
        self._settle()
        return anew

    def _settle(self) -> None:
        while self.unsettled:
            head = self.unsettled[0]
            if (
                self.settled_rows + head.rows > self.confirmed_rows
                or self.settled_events + head.events > self.confirmed_events
            ):
                break
            self.settled_rows += head.rows
            self.settled_events += head.events
            self.unsettled.popleft()


class MqttSink:
    """A connection to the broker that sends at QoS 1 and holds back what is not yet taken.

    With ``window``, at most that many rows of a node are ahead of the count in the node's retained
    ``NodeStatus``; without, only the broker's acknowledgement is waited for. A connection that is
    lost is made again: unacknowledged messages are sent again, and with ``window`` all that no
    agent has confirmed, in order, once its agent is back (a broker without persistence forgets what
    it acknowledged). Agents recognise repeats.

    Use as a context manager, from one thread::

        with MqttSink(address, site="demo", nodes=["node-01"], window=400) as sink:
            sink.send("node-01", topic, payload)
            sink.finish()
    """

    def __init__(
        self,
        address: Address,
        *,
        site: str,
        nodes: Iterable[str],
        window: int | None = 400,
        timeout_s: float = 300.0,
        connect_timeout_s: float = 30.0,
        notice_s: float = 5.0,
        say: Callable[[str], None] = print,
        clock: Clock | None = None,
        answers: Mapping[str, Callable[[], list[tuple[str, bytes]]]] | None = None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        """Prepare; nothing is opened before ``with``.

        Args:
            address: of the broker.
            site: in the status topics.
            nodes: names of all nodes that will be sent to.
            window: rows a node may be behind; None: do not wait for agents.
            timeout_s: a standstill this long is an error; 0: never.
            connect_timeout_s: how long the first connection may take.
            notice_s: a standstill this long is said; again every twice as long.
            say: takes lines for a person.
            clock: of standstills.
            answers: by topic, what is published when something is said on it: topics and
                payloads, at QoS 0, asked for in the sender's thread.
            will: topic and payload that the broker publishes if this connection breaks.
        """
        self._answers = dict(answers or {})
        self._asked: deque[str] = deque()
        self._will = will
        self._address = address
        self._window = window
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._notice_s = notice_s
        self._say = say
        self._clock = clock or WallClock()
        self._nodes = {name: _Node(name) for name in nodes}
        self._by_topic = {status_topic(site, name): node for name, node in self._nodes.items()}
        # One lock for all that both threads touch; never held while paho is called, because paho
        # calls back with its own locks held.
        self._changed = threading.Condition()
        self._connected = False
        self._lost = False
        self._refused: str | None = None
        self._unacked = 0
        self._moved = 0.0
        self._notes: deque[str] = deque(maxlen=20)
        self._client = self._make_client()

    def _make_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"runout-sim-{uuid.uuid4().hex[:8]}",
            protocol=mqtt.MQTTv311,
        )
        client.reconnect_delay_set(min_delay=1, max_delay=10)
        client.max_inflight_messages_set(MAX_UNACKED)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = _without_delay
        if self._will is not None:
            client.will_set(*self._will, qos=1)
        return client

    # ---- the sender's thread ----------------------------------------------------------------

    def __enter__(self) -> Self:
        """Connect; raises ``RunoutError`` when no broker answers in time."""
        deadline = self._clock.now() + self._connect_timeout_s
        self._dial(self._connect_timeout_s)
        self._client.loop_start()
        with ExitStack() as opened:
            opened.callback(self._close)
            self._await_welcome(deadline)
            opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect. What was sent and not finished may be lost."""
        self._close()

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
        """Publish, once the node and the broker have room; raises on a standstill."""
        to = self._nodes[node]
        self._wait(lambda: self._has_room(to, rows), lambda: [to])
        with self._changed:
            to.rows += rows
            to.events += events
            if self._window is not None:
                to.unsettled.append(_Sent(topic, payload, rows, events, qos))
        self._publish(topic, payload, qos)

    def finish(self) -> None:
        """Return when everything sent is acknowledged and, with a window, committed."""

        def left() -> list[_Node]:
            return [n for n in self._nodes.values() if self._window is not None and not n.done]

        self._wait(lambda: not self._unacked and not left(), left)

    def lag(self) -> dict[str, int]:
        """Return rows sent and not yet confirmed, by node; nothing without a window."""
        with self._changed:
            if self._window is None:
                return {}
            return {node.name: max(node.behind, 0) for node in self._nodes.values()}

    def _dial(self, patience_s: float) -> None:
        deadline = self._clock.now() + patience_s
        delay_s, said = 0.2, False
        while True:
            try:
                self._client.connect(self._address.host, self._address.port, keepalive=30)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                return
            left_s = deadline - self._clock.now()
            if left_s <= 0:
                raise RunoutError(
                    f"no broker at {self._address} within {patience_s:g} s ({reason});"
                    f" start one, as in: mosquitto -p {self._address.port},"
                    " or name it with --broker HOST:PORT"
                )
            if not said:
                self._say(f"broker {self._address}: {reason}; trying {_for(left_s)}")
                said = True
            self._clock.wait(min(delay_s, left_s))
            delay_s = min(delay_s * 2, 3.0)

    def _renew(self) -> None:
        """Connect anew with nothing queued: paho would send the newest first, this keeps order."""
        self._close()
        self._client = self._make_client()
        with self._changed:
            self._lost = False
            self._unacked = 0
            for node in self._nodes.values():
                node.heard = False
                node.again = list(node.unsettled)
        self._dial(self._timeout_s or math.inf)
        self._client.loop_start()

    def _await_welcome(self, deadline: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._connected or self._refused is not None,
                timeout=max(deadline - self._clock.now(), 0.1),
            )
            if self._refused is not None:
                raise RunoutError(f"the broker at {self._address} refuses: {self._refused}")
            if not self._connected:
                raise RunoutError(
                    f"{self._address} takes connections, but does not answer as an MQTT broker"
                )

    def _has_room(self, node: _Node, rows: int) -> bool:
        if self._unacked >= MAX_UNACKED:
            return False
        if self._window is None:
            return True
        # A window smaller than a message must still let one through.
        return node.heard and (node.behind <= 0 or node.behind + rows <= self._window)

    def _publish(self, topic: str, payload: bytes, qos: int) -> None:
        with self._changed:
            self._unacked += 1
        self._client.publish(topic, payload, qos=qos)

    def _wait(self, ready: Callable[[], bool], blocking: Callable[[], list[_Node]]) -> None:
        """Return when ``ready``; mends the connection, says a standstill, raises if it lasts."""
        began = self._clock.now()
        said = -math.inf
        while True:
            with self._changed:
                while self._notes:
                    self._say(self._notes.popleft())
                if self._refused is not None:
                    raise RunoutError(f"the broker at {self._address} refuses: {self._refused}")
                lost, again = self._lost, [] if self._lost else self._take_again()
                if not lost and not again and not self._asked:
                    if ready():
                        return
                    said = self._stand(began, said, blocking())
            if lost:
                self._renew()
            for sent in again:
                self._publish(sent.topic, sent.payload, sent.qos)
            while self._asked:
                for topic, payload in self._answers[self._asked.popleft()]():
                    self._publish(topic, payload, 0)

    def _take_again(self) -> list[_Sent]:
        again: list[_Sent] = []
        for node in self._nodes.values():
            if node.heard and node.again:
                again += node.again
                node.again = []
        return again

    def _stand(self, began: float, said: float, nodes: list[_Node]) -> float:
        """Wait for one change, with the lock; returns when the standstill was last said."""
        now = self._clock.now()
        moved = max([began, self._moved, *(node.moved for node in nodes)])
        timeout = moved + self._timeout_s if self._timeout_s else math.inf
        if now >= timeout:
            raise RunoutError(
                f"nothing moved for {now - moved:.0f} s: " + "; ".join(self._state(nodes))
            )
        notice = max(moved + self._notice_s, said + 2 * self._notice_s)
        if now >= notice:
            self._refuse_repeats(nodes)
            self._say("waiting for " + "; ".join(self._state(nodes)))
            return now
        self._changed.wait(timeout=min(notice, timeout) - now)
        return said

    def _state(self, nodes: list[_Node]) -> list[str]:
        if not self._connected:
            return [f"the broker at {self._address}: the connection is lost"]
        topics = {node.name: topic for topic, node in self._by_topic.items()}
        lines = []
        for node in nodes if self._window is not None else []:
            counts = (
                f"{node.confirmed_rows} of {node.rows} rows"
                f" and {node.confirmed_events} of {node.events} events confirmed"
            )
            if node.status is None:
                lines.append(f"{node.name}: no status on {topics[node.name]}; does its agent run?")
            elif not node.status.online:
                lines.append(f"{node.name}: its agent is offline; {counts}")
            elif not node.done or node.behind:
                lines.append(f"{node.name}: {counts}")
        return lines or [f"the broker at {self._address}: {self._unacked} messages unacknowledged"]

    def _refuse_repeats(self, nodes: list[_Node]) -> None:
        for node in nodes:
            if node.behind > 0 and node.repeated >= node.behind:
                raise RunoutError(
                    f"{node.name} holds these rows already ({node.repeated} recognised as repeats):"
                    " give its agent an empty store, or play something else"
                )

    def _close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # ---- paho's thread: must not raise, must not wait ----------------------------------------

    def _on_connect(
        self,
        client: mqtt.Client,
        _userdata: Any,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            with self._changed:
                self._refused = str(reason)
                self._changed.notify_all()
            return
        # Here and not once: after a restart the broker has forgotten us.
        topics = [*(self._by_topic if self._window is not None else ()), *self._answers]
        if topics:
            client.subscribe([(topic, 1) for topic in topics])
        with self._changed:
            self._connected = True
            self._moved = self._clock.now()
            self._changed.notify_all()

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._changed:
            if self._connected and reason.is_failure:
                self._notes.append(f"broker {self._address}: connection lost; trying again")
                self._lost = self._window is not None  # without, paho's own queue does it all
            self._connected = False
            self._changed.notify_all()

    def _on_publish(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        _mid: int,
        _reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        with self._changed:
            self._unacked -= 1
            self._moved = self._clock.now()
            if self._unacked in {0, MAX_UNACKED - 1}:
                self._changed.notify_all()

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic in self._answers:
            with self._changed:
                if message.topic not in self._asked:
                    self._asked.append(message.topic)
                self._changed.notify_all()
            return
        node = self._by_topic.get(message.topic)
        if node is None:
            return
        try:
            status = msgspec.json.decode(message.payload, type=NodeStatus)
        except msgspec.DecodeError as error:
            with self._changed:
                self._notes.append(f"{message.topic}: not a status ({error})")
            return
        with self._changed:
            if node.hear(status, self._clock.now(), retained=message.retain):
                self._notes.append(
                    f"{node.name}: its store was made anew; rows confirmed before are not in it"
                )
            self._changed.notify_all()


def _for(seconds: float) -> str:
    return "until it comes" if math.isinf(seconds) else f"for {seconds:.0f} s"


def _without_delay(_client: mqtt.Client, _userdata: Any, sock: Any) -> None:
    """Let small packets go at once: a row must not wait for the acknowledgement of the last."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

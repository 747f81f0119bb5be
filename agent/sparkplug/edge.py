"""A Sparkplug edge node that publishes an agent's results; sans-IO.

For each connection: ``will``, connect with a clean session, subscribe to ``subscriptions``, then
publish what ``connected`` returns; give every message to ``receive``. Before leaving on purpose
publish ``death``, then disconnect. Metrics are declared before they are published; once declared,
they are known to every birth that follows.
"""

from typing import Any, NamedTuple

from agent.sparkplug.host import read_state
from agent.sparkplug.names import check_name
from agent.sparkplug.schema import (
    BDSEQ,
    NAMESPACE,
    REBIRTH,
    DataType,
    Message,
    Payload,
    read_payload,
    read_topic,
)

Value = float | bool | str | None
"""Of a metric; none: it is not known."""

_FIELDS = {
    DataType.Int64: "long_value",
    DataType.Float: "float_value",
    DataType.Double: "double_value",
    DataType.Boolean: "boolean_value",
    DataType.String: "string_value",
}


class Metric(NamedTuple):
    """A result, as it is declared.

    Attributes:
        name: levels are separated by ``/``.
        datatype: Int64, Float, Double, Boolean or String.
        unit: "" for none.
    """

    name: str
    datatype: DataType = DataType.Double
    unit: str = ""


class Answer(NamedTuple):
    """What follows from a message.

    Attributes:
        say: to be published, in this order.
        disconnect: then; and connect again, to this broker or the next.
    """

    say: list[Message]
    disconnect: bool = False


class EdgeNode:
    """An edge node with its devices.

    Args:
        group: of the node.
        node: unique in the group.
        primary_host: nothing is published while this host application is not there; "": whoever
            listens.
        bd_seq: of the first connection; kept by the caller where it outlives the process.
    """

    def __init__(self, group: str, node: str, *, primary_host: str = "", bd_seq: int = 0) -> None:
        for name in (group, node, primary_host or "none"):
            check_name(name)
        if not 0 <= bd_seq <= 255:
            raise ValueError(f"bd_seq {bd_seq} is not one of 0 to 255")
        self._group = group
        self._node = node
        self._state_topic = f"{NAMESPACE}/STATE/{primary_host}" if primary_host else ""
        self._command_topic = self._topic("NCMD")
        self._next_bd_seq = bd_seq
        self._bd_seq = -1
        self._seq = 0
        self._alias = 0
        self._host_ms = -1
        self._host_online = False
        self._connected = self._born = False
        self._devices: dict[str, dict[str, _Declared]] = {"": {}}
        self._away: set[str] = set()

    def subscriptions(self) -> list[str]:
        """Return topics, all for QoS 1."""
        return [self._command_topic, *([self._state_topic] if self._state_topic else [])]

    def declare(self, device: str, metrics: tuple[Metric, ...], at_ns: int) -> list[Message]:
        """Add a device ("": the node itself), or declare it anew; returns its birth, if it is time.

        Raises:
            ValueError: names that differ in case only, or a datatype that is not among ours.
        """
        if device:
            check_name(device)
        lower = [metric.name.lower() for metric in metrics]
        reserved = {BDSEQ.lower(), REBIRTH.lower()}
        if len(set(lower)) < len(lower) or "" in lower or reserved & set(lower):
            raise ValueError(f"metric names of {device!r} are reserved, or alike but for case")
        if any(metric.datatype not in _FIELDS for metric in metrics):
            raise ValueError(f"a metric of {device!r} is of a datatype that is not published")
        before = self._devices.get(device, {})
        declared = {}
        for metric in metrics:
            known = before.get(metric.name)
            if known is None:
                self._alias += 1
                known = _Declared(metric, self._alias)
            known.metric = metric
            declared[metric.name] = known
        self._devices[device] = declared
        self._away.discard(device)
        if not self._born:
            return []
        return [self._birth_of(device, at_ns)] if device else self._births(at_ns)

    @property
    def born(self) -> bool:
        """Return whether the births of the present connection were said."""
        return self._born

    @property
    def bd_seq(self) -> int:
        """Return the number of the present connection; -1: there was none."""
        return self._bd_seq

    def will(self, at_ns: int, *, again: bool = False) -> Message:
        """Return the will for a connection that is about to be made.

        ``again``: the last one was for a connection that did not come about.
        """
        self._connected = self._born = False
        self._host_online = False
        if not again:
            self._bd_seq = self._next_bd_seq
            self._next_bd_seq = (self._bd_seq + 1) % 256
        return self._death(at_ns)

    def connected(self, at_ns: int) -> list[Message]:
        """Return the births, once the subscriptions stand; none yet if a host is waited for."""
        self._connected = True
        return self._births(at_ns) if self._host_online or not self._state_topic else []

    def receive(self, topic: str, payload: bytes, at_ns: int) -> Answer:
        """Follow a command, or the state of the primary host application.

        Raises:
            DecodeError: ``topic``, ``protobuf``, ``compressed``, ``state``.
        """
        if topic == self._state_topic:
            return self._host_says(payload, at_ns)
        if read_topic(topic).verb == "NCMD" and topic == self._command_topic:
            for metric in read_payload(payload).metrics:
                if metric.name == REBIRTH and metric.boolean_value and self._born:
                    return Answer(self._births(at_ns))
        return Answer([])

    def publish(
        self,
        device: str,
        values: dict[str, Value],
        at_ns: int,
        *,
        t_ns: int | None = None,
        historical: bool = False,
    ) -> list[Message]:
        """Return the message with those values that are new; nothing before the birth.

        Args:
            device: "" for the node itself.
            values: by metric.
            at_ns: now.
            t_ns: when they were found; absent: now.
            historical: they are told after the fact.

        Raises:
            KeyError: a device or metric that is not declared.
        """
        declared = self._devices[device]
        ms = (at_ns if t_ns is None else t_ns) // 10**6
        changed: list[tuple[_Declared, Value]] = []
        for name, value in values.items():
            known = declared[name]
            if historical or value != known.value:
                changed.append((known, value))
            if not historical:
                known.value, known.ms = value, ms
        if not (changed and self._born) or device in self._away:
            return []
        payload = self._numbered(at_ns)
        for known, value in changed:
            metric = payload.metrics.add(alias=known.alias, timestamp=ms)
            if historical:
                metric.is_historical = True
            _set(metric, known.metric, value)
        return [self._message("DDATA" if device else "NDATA", payload, device)]

    def gone(self, device: str, at_ns: int) -> list[Message]:
        """Return the death of a device; it is back with its next declaration."""
        away = device in self._away
        self._away.add(device)
        if not self._born or away or device not in self._devices:
            return []
        return [self._message("DDEATH", self._numbered(at_ns), device)]

    def death(self, at_ns: int) -> list[Message]:
        """Return what is published before the connection is closed on purpose."""
        said = [self._death(at_ns)] if self._connected else []
        self._connected = self._born = False
        return said

    def _host_says(self, payload: bytes, at_ns: int) -> Answer:
        state = read_state(payload)
        if state.timestamp < self._host_ms:  # of a connection before the newest that is known
            return Answer([])
        self._host_ms = state.timestamp
        self._host_online = state.online
        if state.online:
            return Answer(self._births(at_ns) if self._connected and not self._born else [])
        return Answer(self.death(at_ns), disconnect=True) if self._born else Answer([])

    def _births(self, at_ns: int) -> list[Message]:
        self._seq = 0
        payload = self._numbered(at_ns)
        ms = at_ns // 10**6
        payload.metrics.add(
            name=BDSEQ, timestamp=ms, datatype=DataType.Int64, long_value=self._bd_seq
        )
        # Without an alias: a host that knows none must be able to ask.
        payload.metrics.add(
            name=REBIRTH, timestamp=ms, datatype=DataType.Boolean, boolean_value=False
        )
        self._declared(payload, "", ms)
        self._born = True
        devices = [device for device in self._devices if device and device not in self._away]
        return [
            self._message("NBIRTH", payload),
            *(self._birth_of(device, at_ns) for device in devices),
        ]

    def _birth_of(self, device: str, at_ns: int) -> Message:
        payload = self._numbered(at_ns)
        self._declared(payload, device, at_ns // 10**6)
        return self._message("DBIRTH", payload, device)

    def _declared(self, payload: Any, device: str, ms: int) -> None:
        for known in self._devices[device].values():
            name, datatype, unit = known.metric
            metric = payload.metrics.add(
                name=name, alias=known.alias, timestamp=known.ms or ms, datatype=datatype
            )
            _set(metric, known.metric, known.value)
            if unit:
                metric.properties.keys.append("engUnit")
                metric.properties.values.add(type=DataType.String, string_value=unit)

    def _death(self, at_ns: int) -> Message:
        payload = Payload(timestamp=at_ns // 10**6)
        payload.metrics.add(
            name=BDSEQ,
            timestamp=at_ns // 10**6,
            datatype=DataType.Int64,
            long_value=self._bd_seq,
        )
        return self._message("NDEATH", payload, qos=1)

    def _numbered(self, at_ns: int) -> Any:
        payload = Payload(timestamp=at_ns // 10**6, seq=self._seq)
        self._seq = (self._seq + 1) % 256
        return payload

    def _message(self, verb: str, payload: Any, device: str = "", qos: int = 0) -> Message:
        return Message(self._topic(verb, device), payload.SerializeToString(), qos, retain=False)

    def _topic(self, verb: str, device: str = "") -> str:
        end = f"/{device}" if device else ""
        return f"{NAMESPACE}/{self._group}/{verb}/{self._node}{end}"


class _Declared:
    """A metric with its alias and what it was last."""

    def __init__(self, metric: Metric, alias: int) -> None:
        self.metric = metric
        self.alias = alias
        self.value: Value = None
        self.ms = 0


def _set(metric: Any, declared: Metric, value: Value) -> None:
    if value is None:
        metric.is_null = True
    elif declared.datatype == DataType.Int64:
        metric.long_value = int(value) % 2**64
    else:
        setattr(metric, _FIELDS[declared.datatype], value)

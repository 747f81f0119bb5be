"""What a host application knows of one edge node: its births, and the order of its messages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from agent.block import Block, Burst
from agent.decode.gather import Channel, Series
from agent.sparkplug.history import History
from agent.sparkplug.metric import (
    ARRAYS,
    Definition,
    array,
    check_rate,
    define,
    is_number,
    number,
    time_ns,
)
from agent.sparkplug.schema import BDSEQ, NAMESPACE, REBIRTH, DataType, Message, Payload, Topic
from contract.errors import DecodeError

MOST_METRICS = 16_384
"""Of one node, its devices' included."""
MOST_DEVICES = 1024
"""Of one node."""
MOST_HELD = 64
"""Messages of one node that came early."""

_NEVER_NS = -(2**62)


class Gone(NamedTuple):
    """An asset that no longer reports.

    Attributes:
        asset: its name.
        t_ns: since when: the device's death by the node's clock, all else by the host's.
        over: readings of it that stand in the same ``Heard`` came after it.
    """

    asset: str
    t_ns: int
    over: bool = False


class Heard(NamedTuple):
    """What follows from a message.

    Attributes:
        readings: of its metrics, and of messages that were held for it.
        say: to be published.
        gone: assets whose death it tells.
        left_out: metrics that are no number, or whose meaning is not sure until the next birth.
        refused: what was wrong with messages that were held for this one.
    """

    readings: list[Block | Burst]
    say: list[Message]
    gone: list[Gone]
    left_out: int = 0
    refused: tuple[DecodeError, ...] = ()

    def and_then(self, other: "Heard") -> "Heard":
        """Return both, this one first."""
        gone = self.gone
        if gone and other.readings:
            back = {reading.asset for reading in other.readings}
            gone = [one._replace(over=one.over or one.asset in back) for one in gone]
        return Heard(
            self.readings + other.readings,
            self.say + other.say,
            gone + other.gone,
            self.left_out + other.left_out,
            self.refused + other.refused,
        )


class _Births(msgspec.Struct):
    """The metrics of a node or device, since its birth."""

    asset: str
    by_name: dict[str, Definition] = {}
    by_alias: dict[int, Definition] = {}


class _Arrived(NamedTuple):
    where: Topic
    read: Any
    at_ns: int


class Session:
    """An edge node, as its messages tell.

    Args:
        group: of the node.
        node: its name.
        asset_of: the asset's name for a device; "" is the node itself. Raises ``DecodeError``.
        reorder_ns: how long a missing message is waited for.
        rebirth_ns: the node is asked to be born again at most so often.
        history_ns: see ``agent.sparkplug.history``.
    """

    def __init__(
        self,
        group: str,
        node: str,
        asset_of: Callable[[str], str],
        reorder_ns: int,
        rebirth_ns: int,
        history_ns: int,
    ) -> None:
        self._command_topic = f"{NAMESPACE}/{group}/NCMD/{node}"
        self._node = node
        self._asset_of = asset_of
        self._reorder_ns = reorder_ns
        self._rebirth_ns = rebirth_ns
        self._online = False
        # Whether aliases mean what they did: a birth may be among the messages that are missing.
        self._sure = False
        self._bd_seq = -1
        self._expected = 0
        self._newest_ms = 0
        self._held: dict[int, _Arrived] = {}
        self._held_ns = 0
        self._asked_ns = _NEVER_NS
        self._births: dict[str, _Births] = {}
        self._history = History(history_ns)
        # Devices that are born again because they were asked, not because they are back.
        self._asked_again: set[str] = set()

    def born(self, where: Topic, read: Any, at_ns: int) -> Heard:
        """Begin the life that an NBIRTH tells of, or begin to know it again."""
        bd_seq = _bd_seq(read, "NBIRTH")
        births = self._define(where, read)
        # What is held is of the life before, unless it was sent after this birth.
        later = {n: held for n, held in self._held.items() if held.read.timestamp >= read.timestamp}
        self._held = {n: held for n, held in self._held.items() if n not in later}
        heard = self._give_up(at_ns)._replace(say=[]) if self._held else Heard([], [], [])
        if bd_seq != self._bd_seq:  # else the devices tell of themselves at once
            gone = [Gone(old.asset, at_ns) for device, old in self._births.items() if device]
            heard = heard._replace(gone=heard.gone + gone)
        self._asked_again = {*self._births} if bd_seq == self._bd_seq else set()
        if bd_seq != self._bd_seq or not self._online:
            self._history.begin(at_ns)
        self._held, self._held_ns = later, at_ns
        self._births = {"": births}
        self._bd_seq = bd_seq
        self._online = self._sure = True
        self._expected = (read.seq + 1) % 256
        self._newest_ms = read.timestamp
        return heard.and_then(self._readings(births, read, at_ns)).and_then(self._drain())

    def died(self, read: Any, at_ns: int) -> Heard:
        """End the life that an NDEATH tells of, if it is this one.

        The will of the connection before may come after the birth of this one.
        """
        if not self._online or _bd_seq(read, "NDEATH") != self._bd_seq:
            return Heard([], [], [])
        return self.leave(at_ns)

    def leave(self, at_ns: int) -> Heard:
        """Forget node and devices until they are born again."""
        gone = [Gone(births.asset, at_ns) for births in self._births.values()]
        self._births, self._held = {}, {}
        self._online = False
        return Heard(self._history.release(), [], gone)

    def flush(self) -> Heard:
        """Return the readings that are held for others from before them."""
        return Heard(self._history.release(), [], [])

    def receive(self, where: Topic, read: Any, at_ns: int) -> Heard:
        """Read any other message, or hold it until those before it are there."""
        if not self._online:
            return Heard([], self._ask(at_ns), [])
        if read.seq != self._expected:
            ahead = (read.seq - self._expected) % 256
            if ahead >= 128 and 0 < read.timestamp <= self._newest_ms:  # late, or a second time
                return self._read(where, read, at_ns)
            if not self._held:
                self._held_ns = at_ns
            self._held[read.seq] = _Arrived(where, read, at_ns)
            return self._give_up(at_ns) if len(self._held) >= MOST_HELD else self.tick(at_ns)
        self._passed(read)
        try:
            heard = self._read(where, read, at_ns)
        except DecodeError as error:
            if self._expected not in self._held:
                raise
            heard = Heard([], [], [], refused=(error,))
        return heard.and_then(self._drain())

    def tick(self, at_ns: int) -> Heard:
        """Give up on messages, and on more of the past, that were waited for too long."""
        heard = Heard(self._history.due(at_ns), [], [])
        if self._held and at_ns - self._held_ns >= self._reorder_ns:
            return heard.and_then(self._give_up(at_ns))
        return heard

    def _passed(self, read: Any) -> None:
        self._expected = (read.seq + 1) % 256
        self._newest_ms = max(self._newest_ms, read.timestamp)

    def _drain(self) -> Heard:
        """Read the held messages whose turn it is."""
        heard = Heard([], [], [])
        while self._expected in self._held:
            heard = heard.and_then(self._read_held(self._held.pop(self._expected)))
        if self._held:
            self._held_ns = min(held.at_ns for held in self._held.values())
        return heard

    def _give_up(self, at_ns: int) -> Heard:
        """Read what is held, in the order of its numbers, and ask for a new birth."""
        self._sure = False
        heard = Heard([], self._ask(at_ns), [])
        expected = self._expected
        for seq in sorted(self._held, key=lambda seq: (seq - expected) % 256):
            heard = heard.and_then(self._read_held(self._held.pop(seq)))
        return heard

    def _read_held(self, arrived: _Arrived) -> Heard:
        self._passed(arrived.read)
        try:
            return self._read(*arrived)
        except DecodeError as error:
            return Heard([], [], [], refused=(error,))

    def _read(self, where: Topic, read: Any, at_ns: int) -> Heard:
        if where.verb == "DBIRTH":
            births = self._define(where, read)
            if where.device not in self._births.keys() | self._asked_again:
                self._history.begin(at_ns)
            self._births[where.device] = births
            return self._readings(births, read, at_ns)
        if where.verb == "DDEATH":
            gone = self._births.pop(where.device, None)
            self._asked_again.discard(where.device)
            if gone is None:
                return Heard([], [], [])
            t_ns = read.timestamp * 10**6 or at_ns
            return Heard(self._history.release(), [], [Gone(gone.asset, t_ns)])
        known = self._births.get(where.device)
        if known is None:
            return Heard([], self._ask(at_ns), [])
        return self._readings(known, read, at_ns)

    def _define(self, where: Topic, read: Any) -> _Births:
        others = [births for device, births in self._births.items() if device != where.device]
        metrics = sum(len(births.by_name) for births in others) + len(read.metrics)
        if metrics > MOST_METRICS or len(others) > MOST_DEVICES:
            text = f"node {self._node!r} has more than {MOST_METRICS} metrics, or many devices"
            raise DecodeError("bound", text)
        births = _Births(self._asset_of(where.device))
        for metric in read.metrics:
            if not metric.HasField("name"):
                raise DecodeError("metric", f"{where.verb} with a metric that has no name")
            definition = define(metric, births.asset)
            births.by_name[definition.name] = definition
            if metric.HasField("alias"):
                if metric.alias in births.by_alias:
                    raise DecodeError("metric", f"alias {metric.alias} stands for two metrics")
                births.by_alias[metric.alias] = definition
        return births

    def _readings(self, births: _Births, read: Any, at_ns: int) -> Heard:
        channels: dict[Channel, Series] = {}
        bursts: list[Burst] = []
        left_out, unknown = 0, False
        payload_ms = read.timestamp
        for metric in read.metrics:
            name = metric.name
            if name:
                definition = births.by_name.get(name)
            elif self._sure:
                definition = births.by_alias.get(metric.alias)
            else:
                left_out += 1
                definition = None
            if definition is None:
                unknown = True
                continue
            _, datatype, rate_hz, control, channel = definition
            if control:
                continue
            datatype = metric.datatype or datatype
            t_ns = time_ns(metric, payload_ms, at_ns)
            if is_number(datatype):
                if metric.is_historical:
                    channel = channel._replace(historical=True)
                value = number(metric, datatype)
                series = channels.get(channel)
                if series is None:
                    channels[channel] = ([t_ns], [value])
                else:
                    series[0].append(t_ns)
                    series[1].append(value)
            elif datatype in ARRAYS and rate_hz:
                samples = array(metric, datatype)
                if samples is not None:
                    check_rate(rate_hz, len(samples))
                    burst = Burst(births.asset, channel.name, t_ns, rate_hz, channel.unit, samples)
                    bursts.append(burst)
            else:
                left_out += 1
        readings = self._history.add(channels, bursts, at_ns)
        return Heard(readings, self._ask(at_ns) if unknown else [], [], left_out)

    def _ask(self, at_ns: int) -> list[Message]:
        """Ask the node to be born again, unless it was just asked."""
        if at_ns - self._asked_ns < self._rebirth_ns:
            return []
        self._asked_ns = at_ns
        ms = at_ns // 10**6
        request = Payload(timestamp=ms)
        request.metrics.add(
            name=REBIRTH, timestamp=ms, datatype=DataType.Boolean, boolean_value=True
        )
        return [Message(self._command_topic, request.SerializeToString(), qos=0, retain=False)]


def _bd_seq(read: Any, verb: str) -> int:
    for metric in read.metrics:
        if metric.name == BDSEQ:
            kind = metric.WhichOneof("value")
            if kind in {"int_value", "long_value"}:
                return int(getattr(metric, kind))
    raise DecodeError("bdSeq", f"{verb} without the metric bdSeq")

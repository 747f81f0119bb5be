"""Where messages go and in which form, as the command asks for it."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from contract.errors import RunoutError
from simulator.formats import MQTT_FORMATS, SERIAL_FORMATS, Sparkplug, packed
from simulator.message import Message
from simulator.play import Sink
from simulator.sinks.bulk import BulkSink
from simulator.sinks.lines import LinesSink
from simulator.sinks.mqtt import Address, MqttSink
from simulator.sinks.serial import SerialSink


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    form: str
    batch: int
    broker: str
    site: str
    nodes: list[str]
    window: int | None
    timeout_s: float
    connect_timeout_s: float
    out: Path | None
    link: Path | None
    asset: str | None
    bulk: bool
    say: Callable[[str], None] = field(default=print)


@dataclass(frozen=True, slots=True)
class Outlet:
    """A sink and the form in which it is given messages.

    Attributes:
        sink: to be entered.
        encode: messages as a plant says them into what is sent.
        done: says in words, when all is finished, what has become of it.
    """

    sink: AbstractContextManager[Sink]
    encode: Callable[[Iterable[Message]], Iterator[Message]]
    done: Callable[[], str]


def of(kind: str, asked: Asked) -> Outlet:
    """Return what was asked for.

    Raises:
        RunoutError: what does not go together; names the option and the mend.
    """
    return _KINDS[kind](asked)


def _mqtt(asked: Asked) -> Outlet:
    encode, edge = _encoding(asked)
    answers = None if edge is None else _rebirths(edge, asked.nodes)
    # One connection bears one will: several edge nodes on it would need several connections.
    will = edge.death(asked.nodes[0]) if edge is not None and len(asked.nodes) == 1 else None
    taken = "taken by the broker for" if asked.window is None else "confirmed by"
    nodes = ", ".join(asked.nodes) if len(asked.nodes) <= 10 else f"{len(asked.nodes)} nodes"
    if asked.bulk:
        if edge is not None:
            raise RunoutError("--speed max: a Sparkplug node must listen, too; take --speed X")
        bulk = BulkSink(Address.parse(asked.broker), timeout_s=asked.timeout_s)
        return Outlet(bulk, encode, lambda: f"all {taken} {nodes}")
    sink = MqttSink(
        Address.parse(asked.broker),
        site=asked.site,
        nodes=asked.nodes,
        window=asked.window,
        timeout_s=asked.timeout_s,
        connect_timeout_s=asked.connect_timeout_s,
        say=asked.say,
        answers=answers,
        will=will,
    )
    return Outlet(sink, encode, lambda: f"all {taken} {nodes}")


def _rebirths(
    edge: Sparkplug, nodes: list[str]
) -> dict[str, Callable[[], list[tuple[str, bytes]]]]:
    def ask(node: str) -> Callable[[], list[tuple[str, bytes]]]:
        return lambda: edge.rebirth(node)

    return {edge.command_topic(node): ask(node) for node in nodes}


def _encoding(
    asked: Asked,
) -> tuple[Callable[[Iterable[Message]], Iterator[Message]], Sparkplug | None]:
    if asked.form not in MQTT_FORMATS:
        raise RunoutError(f"--format {asked.form}: there are {', '.join(MQTT_FORMATS)}")
    pack = MQTT_FORMATS[asked.form]
    if pack is not None:
        return lambda messages: packed(messages, pack, asked.batch), None
    if asked.batch > 1:
        raise RunoutError(
            f"--batch {asked.batch}: {asked.form} holds one row; take --format json-array"
        )
    if asked.form == "sparkplug":
        edge = Sparkplug(asked.site, asked.nodes)
        return edge.encode, edge
    return iter, None


def _file(asked: Asked) -> Outlet:
    if asked.out is None:
        raise RunoutError("--sink file: name it with --out FILE")
    return Outlet(LinesSink(asked.out), _encoding(asked)[0], lambda: f"all in {asked.out}")


def _stdout(asked: Asked) -> Outlet:
    sink = LinesSink(sys.stdout.buffer)
    return Outlet(sink, _encoding(asked)[0], lambda: "all on standard output")


def _serial(asked: Asked) -> Outlet:
    if asked.form not in SERIAL_FORMATS:
        raise RunoutError(
            f"--format {asked.form}: over a serial line there are {', '.join(SERIAL_FORMATS)}"
        )
    if asked.form != "json" and asked.asset is None:
        raise RunoutError(
            f"--format {asked.form} names no machine: say whose line it is with --asset NAME"
        )
    pack = SERIAL_FORMATS[asked.form]
    sink = SerialSink(
        asked.link,
        opened=lambda port: asked.say(f"the port is {asked.link or port}; waiting for a reader"),
        timeout_s=asked.timeout_s,
    )

    def encode(messages: Iterable[Message]) -> Iterator[Message]:
        there = False
        wanted = (m for m in messages if asked.asset in {None, m.asset})
        for message in packed(wanted, pack, asked.batch):
            if not there:
                # A reader drops what comes first: it may be the end of a line. At the first one's
                # time, since a clock that holds the pace begins with it.
                yield Message(message.t, "", "", "", _FIRST[asked.form], rows=0, events=0)
            there = True
            yield message
        if not there:
            raise RunoutError(f"--asset {asked.asset}: nothing is played of it")

    def done() -> str:
        left = f"; {sink.unsaid} life events and bursts could not be said" if sink.unsaid else ""
        return f"all read from {asked.link or sink.port}{left}"

    return Outlet(sink, encode, done)


_FIRST = {"csv": b"runout-simulator\r\n", "json": b"runout-simulator\n", "cobs": b"\0"}
_KINDS: dict[str, Callable[[Asked], Outlet]] = {
    "mqtt": _mqtt,
    "serial": _serial,
    "file": _file,
    "stdout": _stdout,
}

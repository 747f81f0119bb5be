"""Plays messages into a sink: by the clock, or as fast as the sink takes them."""

from collections.abc import Iterable
from typing import Protocol

from contract.topics import asset_topic
from simulator.clock import Pace
from simulator.message import Message
from simulator.progress import Progress


class Sink(Protocol):
    """Takes messages; ``send`` blocks while there is no room, ``finish`` until all is safe."""

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
        """Take one message."""
        ...

    def finish(self) -> None:
        """Return when all that was sent is where it belongs."""
        ...

    def lag(self) -> dict[str, int]:
        """Return rows not yet safe, by node."""
        ...


def play(
    messages: Iterable[Message], sink: Sink, *, site: str, pace: Pace | None, progress: Progress
) -> None:
    """Send all messages in their order and return when the sink has finished with them."""
    progress.begin()
    topics: dict[tuple[str, str, str], str] = {}
    for message in messages:
        if pace is not None:
            pace.until(message.t)
        topic = message.topic
        if topic is None:
            key = message.node, message.asset, message.leaf
            topic = topics.get(key)
            if topic is None:
                topic = topics[key] = asset_topic(site, *key)
        sink.send(
            message.node,
            topic,
            message.payload,
            rows=message.rows,
            events=message.events,
            qos=message.qos,
        )
        progress.sent(message.rows, message.events, sink.lag)
    sink.finish()
    progress.clear()

"""One message to come: readings or a life event of one asset, at a time of the data."""

from collections.abc import Mapping

import msgspec

from contract.report import LifeEvent
from contract.topics import EVENT, READINGS


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is to be published, and what it counts for.

    Attributes:
        t: seconds since 1970 UTC, of the data.
        node: whose agent reads it.
        asset: which machine.
        leaf: of the topic.
        payload: JSON, or a waveform burst.
        rows: readings rows in it: 1, or 0 for an event; a burst counts as one.
        events: life events in it.
        said_t: time that it says, by the sender's clock; None: ``t``.
        values: of the channels, where it is a row.
        units: of these channels.
        topic: instead of that of asset and leaf.
        qos: of MQTT.
    """

    t: float
    node: str
    asset: str
    leaf: str
    payload: bytes
    rows: int
    events: int
    said_t: float | None = None
    values: dict[str, float] | None = None
    units: Mapping[str, str] | None = None
    topic: str | None = None
    qos: int = 1


def reading(
    t: float,
    node: str,
    asset: str,
    values: dict[str, float],
    *,
    said_t: float | None = None,
    units: Mapping[str, str] | None = None,
) -> Message:
    """Return the message of one row; ``said_t``: what the sender's clock says, if not ``t``.

    >>> reading(3600, "hall-a", "pump-1", {"flow": 101.5}).payload
    b'{"t":3600,"v":{"flow":101.5}}'
    """
    payload = msgspec.json.encode({"t": t if said_t is None else said_t, "v": values})
    return Message(t, node, asset, READINGS, payload, 1, 0, said_t, values, units)


def waveform(t: float, node: str, asset: str, channel: str, payload: bytes) -> Message:
    """Return the message of one burst."""
    return Message(t, node, asset, channel, payload, rows=1, events=0)


def life_event(node: str, asset: str, event: LifeEvent) -> Message:
    """Return the message of a life event that says its time in seconds."""
    if not isinstance(event.t, float | int):
        raise TypeError(f"the event's time must be seconds, not {event.t!r}")
    payload = msgspec.json.encode(event)
    return Message(event.t, node, asset, EVENT, payload, rows=0, events=1)

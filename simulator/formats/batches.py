"""Rows of one machine gathered into one message, with everything else in its place."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from simulator.message import Message


class Row(NamedTuple):
    """One row of a machine.

    Attributes:
        t: seconds since 1970 UTC, by the sender's clock.
        asset: which machine.
        values: of its channels.
        units: of these; empty where nobody said them.
    """

    t: float
    asset: str
    values: dict[str, float]
    units: dict[str, str]


class Form(NamedTuple):
    """What rows became.

    Attributes:
        payload: to be sent.
        leaf: of its topic, if not that of the rows.
    """

    payload: bytes
    leaf: str = ""


Pack = Callable[[Sequence[Row]], Form]
"""From the rows of one machine, at least one, to a payload."""


def packed(messages: Iterable[Message], pack: Pack, batch: int) -> Iterator[Message]:
    """Yield messages whose rows are packed, ``batch`` of a machine in one.

    What is no row of values goes through once the rows of its machine before it have; what is left
    of rows comes in the end.
    """
    waiting: dict[tuple[str, str], list[Message]] = {}
    for message in messages:
        key = message.node, message.asset
        rows = waiting.setdefault(key, [])
        if message.values is None:
            if rows:
                yield _pack(rows, pack, message.t)
                waiting[key] = []
            yield message
            continue
        rows.append(message)
        if len(rows) >= batch:
            yield _pack(rows, pack, message.t)
            waiting[key] = []
    for rows in waiting.values():
        if rows:
            yield _pack(rows, pack, rows[-1].t)


def _pack(messages: list[Message], pack: Pack, t: float) -> Message:
    rows = [
        Row(
            message.t if message.said_t is None else message.said_t,
            message.asset,
            message.values or {},
            dict(message.units or {}),
        )
        for message in messages
    ]
    form = pack(rows)
    first = messages[0]
    return replace(
        first,
        t=t,
        leaf=form.leaf or first.leaf,
        payload=form.payload,
        rows=sum(message.rows for message in messages),
        values=None,
        units=None,
    )

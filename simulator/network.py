"""What can be wrong between a machine and its agent: the network, and the clock of the sender.

A message is lost, comes twice, late, or out of order; the line is down for a while; the clock of
the sender is off, runs fast, or leaps. What people say (life events) is only held back, never lost.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
from msgspec.structs import replace

from simulator.message import Message

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class Outage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line is down.

    Attributes:
        from_h: hours after the node's first present life began; below 0: before.
        for_h: how long.
        keeps: whether the sender keeps what it has to say and says it all at once in the end.
    """

    from_h: float
    for_h: Annotated[float, msgspec.Meta(gt=0)]
    keeps: bool = True


class Leap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A clock that is set.

    Attributes:
        at_h: hours after the node's first present life began; below 0: before.
        by_s: seconds forward; below 0: back.
    """

    at_h: float
    by_s: float


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node's network and its senders' clock.

    Attributes:
        loss: share of the messages that never come.
        duplicate: share that come twice.
        delay_s: each is late by as much, drawn evenly between the two; more than ``sample_s`` lets
            rows overtake each other.
        reorder: share that are held back until the next message of their machine has come.
        outage: when the line is down.
        skew_s: the clock is ahead by as much; below 0: behind.
        ppm: the clock is fast by as many millionths since the first present life began.
        leap: when it is set.
    """

    loss: Share = 0.0
    duplicate: Share = 0.0
    delay_s: tuple[Annotated[float, msgspec.Meta(ge=0)], Annotated[float, msgspec.Meta(ge=0)]] = (
        0.0,
        0.0,
    )
    reorder: Share = 0.0
    outage: tuple[Outage, ...] = ()
    skew_s: float = 0.0
    ppm: float = 0.0
    leap: tuple[Leap, ...] = ()

    def said_t(self, t: float, present_t: float) -> float:
        """Return what the sender's clock says at a time.

        >>> Network(skew_s=5, ppm=100).said_t(20_000.0, present_t=10_000.0)
        20006.0
        """
        said = t + self.skew_s + self.ppm * 1e-6 * (t - present_t)
        return said + sum(leap.by_s for leap in self.leap if t >= present_t + 3600 * leap.at_h)


def check(network: Network) -> None:
    """Refuse what msgspec cannot see; the ``ValueError`` names the key."""
    low, high = network.delay_s
    if low > high:
        raise ValueError(f"delay_s: {low:g} is above {high:g}")
    ends = sorted((outage.from_h, outage.from_h + outage.for_h) for outage in network.outage)
    for (_, end), (begin, _) in pairwise(ends):
        if begin < end:
            raise ValueError(f"outage: that from {begin:g} h begins before another has ended")


def through(
    messages: Iterable[Message],
    network: Network,
    rng: np.random.Generator,
    *,
    present_t: float,
    sample_s: float,
) -> Iterator[Message]:
    """Yield what comes of one machine's messages, in the order and at the time of its coming.

    A message that comes again counts for no row. A time that a message says is left as it is.
    """
    waiting: list[tuple[float, int, Message]] = []
    number = 0
    for message in messages:
        while waiting and waiting[0][0] <= message.t:
            yield heapq.heappop(waiting)[2]
        for at in _arrivals(message, network, rng, present_t, sample_s):
            rows = message.rows if number % 2 == 0 else 0
            heapq.heappush(waiting, (at, number, replace(message, t=at, rows=rows)))
            number += 1
        number += number % 2  # odd: comes again
    while waiting:
        yield heapq.heappop(waiting)[2]


def _arrivals(
    message: Message,
    network: Network,
    rng: np.random.Generator,
    present_t: float,
    sample_s: float,
) -> list[float]:
    """Return when a message comes: never, once or twice."""
    lost, twice, held = rng.uniform(size=3)
    late_s = float(rng.uniform(*network.delay_s))
    t = message.t
    for outage in network.outage:
        begin = present_t + 3600 * outage.from_h
        end = begin + 3600 * outage.for_h
        if begin <= t < end:
            return [end] if outage.keeps or message.events else []
    if message.events:
        return [t]
    if lost < network.loss:
        return []
    at = t + late_s + (1.5 * sample_s if held < network.reorder else 0.0)
    return [at, at] if twice < network.duplicate else [at]

"""Many series of messages as one in the order of time, however many they are.

Machines of a plant speak at the same times: those that are due are kept by time, and each time is
put in its place once, not each message.
"""

import heapq
from collections.abc import Iterable, Iterator

from simulator.message import Message


def merged(series: Iterable[Iterator[Message]]) -> Iterator[Message]:
    """Yield the messages of all series, each in the order of its time; at one time in theirs.

    >>> def at(*times):
    ...     return (Message(t, "n", str(times), "x", b"", 1, 0) for t in times)
    >>> [m.t for m in merged([at(1, 2, 2, 5), at(2, 3), at()])]
    [1, 2, 2, 2, 3, 5]
    """
    due: dict[float, list[tuple[int, Message, Iterator[Message]]]] = {}
    times: list[float] = []

    def wait(number: int, message: Message, rest: Iterator[Message]) -> None:
        there = due.get(message.t)
        if there is None:
            due[message.t] = [(number, message, rest)]
            heapq.heappush(times, message.t)
        else:
            there.append((number, message, rest))

    for number, rest in enumerate(series):
        first = next(rest, None)
        if first is not None:
            wait(number, first, rest)
    while times:
        t = heapq.heappop(times)
        now = due.pop(t)
        now.sort(key=_number)
        for number, message, rest in now:
            yield message
            for later in rest:
                if later.t > t:
                    wait(number, later, rest)
                    break
                yield later


def _number(waiting: tuple[int, Message, Iterator[Message]]) -> int:
    return waiting[0]

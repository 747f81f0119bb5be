"""Publish results from the store, at least once: the new ones at once, a backlog beside them.

What was written before the present connection stood is the backlog. It is replayed alerts first,
each kind in its order, at a bounded rate, and each result bears ``"replayed":true``. What is
written from then on goes out in its order, and waits for none of it.
"""

import time
from collections.abc import Callable
from itertools import pairwise

from agent.mqtt import Link
from agent.store import Store, Unsent
from contract import topics

WINDOW = 500
"""New results handed to the broker and not yet taken."""
REPLAY_WINDOW = 100
"""The same of the backlog."""
REPLAY_PER_S = 500.0
"""Results of the backlog a second."""
STRETCHES = 8
"""Of the backlog, per kind; an outage adds one, and more are joined: some results go twice then."""


class _Stream:
    """One stretch of results on its way to the broker, in its order."""

    def __init__(self, of: Unsent, waiting: int = 0) -> None:
        self.of = of
        self.waiting = waiting
        """Not yet with the broker, where that is counted."""
        self.cursor = of.after
        """Number up to which all is handed over."""
        self._flying: dict[int, int] = {}

    @property
    def sent(self) -> int:
        """Return the number up to which the broker has all of it."""
        return next(iter(self._flying.values())) - 1 if self._flying else self.cursor

    @property
    def flying(self) -> int:
        return len(self._flying)

    @property
    def done(self) -> bool:
        return not self._flying and self.cursor >= self.of.upto

    def left(self, upto: int) -> Unsent:
        """Return what the broker has not taken of it."""
        return Unsent(self.of.kind, self.sent, upto)

    def take_acked(self, numbers: list[int]) -> None:
        for number in numbers:
            if self._flying.pop(number, None) is not None:
                self.waiting -= 1

    def next(self, store: Store, upto: int, most: int) -> list[tuple[int, str, str, bytes]]:
        """Return what is to be handed over next."""
        found = store.results(Unsent(self.of.kind, self.cursor, upto), most)
        self.cursor = found[-1][0] if len(found) == most else upto
        return found

    def handed(self, numbers: list[int], found: list[tuple[int, str, str, bytes]]) -> None:
        self._flying.update(zip(numbers, (result[0] for result in found), strict=True))


class Publisher:
    """Follows the store's results to the broker.

    Args:
        store: that keeps them.
        link: to the broker.
        site: of the node.
        node: whose results they are.
        clock: seconds, for the rate at which a backlog is replayed.
    """

    def __init__(
        self,
        store: Store,
        link: Link,
        site: str,
        node: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._link = link
        self._place = (site, node)
        self._clock = clock
        self._topics: dict[tuple[str, str], str] = {}
        *stretches, live = store.unsent
        self._live = _Stream(live)
        self._backlog = [_Stream(one, store.count(one)) for one in stretches]
        self._saved = self._unsent()
        self._session = link.session
        self._allowed = 0.0
        self._filled_at = clock()

    # -- for who looks ----------------------------------------------------------------------

    @property
    def sent(self) -> int:
        """Return the number up to which all results are with the broker."""
        return min(stream.sent for stream in (*self._backlog, self._live))

    @property
    def waiting(self) -> int:
        """Return how many results are not with the broker."""
        live = self._store.last_result - self._live.sent
        return live + sum(stream.waiting for stream in self._backlog)

    def oldest_age_s(self, now_ns: int) -> float:
        """Return how long ago the oldest of them was written, by the device's clock; 0: none."""
        upto = self._store.last_result
        lefts = [stream.left(stream.of.upto) for stream in self._backlog]
        found = [self._store.written_ns(one) for one in (*lefts, self._live.left(upto))]
        return max([0.0, *((now_ns - at_ns) / 1e9 for at_ns in found if at_ns is not None)])

    @property
    def idle(self) -> bool:
        """Return whether everything handed over has arrived."""
        return not self._live.flying and not any(stream.flying for stream in self._backlog)

    # -- at work ----------------------------------------------------------------------------

    def pump(self) -> None:
        """Take note of what has arrived, and hand over what is next."""
        if self._session != self._link.session:
            self._session = self._link.session
            self._reconnected()
        acked = self._link.take_acked()
        if acked:
            self._live.take_acked(acked)
            for stream in self._backlog:
                stream.take_acked(acked)
            self._backlog = [stream for stream in self._backlog if not stream.done]
        if not self._link.connected.is_set():
            return
        room = WINDOW - self._live.flying
        last = self._store.last_result
        if room >= WINDOW // 4 and self._live.cursor < last:
            self._hand_over(self._live, self._live.next(self._store, last, room), b"}")
        if self._backlog:
            self._replay()

    def _reconnected(self) -> None:
        """Make a backlog of what is written so far; the lost connection may have taken it along."""
        last = self._store.last_result
        stretches: list[Unsent] = []
        for kind in ("alert", "health"):
            mine = [s.left(s.of.upto) for s in self._backlog if s.of.kind == kind]
            mine.append(Unsent(kind, self._live.sent, last))
            stretches += _joined([one for one in mine if one.after < one.upto])
        counted = [_Stream(one, self._store.count(one)) for one in stretches]
        self._backlog = [stream for stream in counted if stream.waiting]
        self._live = _Stream(Unsent("", last, last))
        self._allowed = REPLAY_WINDOW

    def _replay(self) -> None:
        now = self._clock()
        self._allowed += (now - self._filled_at) * REPLAY_PER_S
        self._allowed = min(self._allowed, REPLAY_WINDOW)
        self._filled_at = now
        room = min(REPLAY_WINDOW - sum(one.flying for one in self._backlog), int(self._allowed))
        for stream in self._backlog:
            if room < 1:
                return
            found = stream.next(self._store, stream.of.upto, room)
            self._hand_over(stream, found, b',"replayed":true}')
            room -= len(found)
            self._allowed -= len(found)

    def _hand_over(
        self, stream: _Stream, found: list[tuple[int, str, str, bytes]], end: bytes
    ) -> None:
        if found:
            messages = [
                (self._topic(asset, kind), body if end == b"}" else body[:-1] + end, False)
                for _, asset, kind, body in found
            ]
            stream.handed(self._link.publish(messages), found)

    def _topic(self, asset: str, kind: str) -> str:
        topic = self._topics.get((asset, kind))
        if topic is None:
            topic = self._topics[asset, kind] = topics.asset_topic(*self._place, asset, kind)
        return topic

    def _unsent(self) -> tuple[list[Unsent], int]:
        return [stream.left(stream.of.upto) for stream in self._backlog], self._live.sent

    def save(self) -> None:
        """Note how far the broker has everything: it is written with a later batch."""
        unsent = self._unsent()
        if unsent != self._saved:
            self._store.note_unsent(*unsent)
            self._saved = unsent


def _joined(stretches: list[Unsent]) -> list[Unsent]:
    """Join stretches of a kind that meet, and the two that are closest while there are too many.

    >>> _joined([Unsent("health", 3, 7), Unsent("health", 7, 9)])
    [Unsent(kind='health', after=3, upto=9)]
    """
    found: list[Unsent] = []
    for one in stretches:
        if found and found[-1].upto >= one.after:
            found[-1] = found[-1]._replace(upto=one.upto)
        else:
            found.append(one)
    while len(found) > STRETCHES:
        gaps = [later.after - earlier.upto for earlier, later in pairwise(found)]
        at = gaps.index(min(gaps))
        found[at : at + 2] = [found[at]._replace(upto=found[at + 1].upto)]
    return found

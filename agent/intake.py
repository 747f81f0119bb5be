"""The one bounded queue between the sources' threads and the thread that owns all state."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from agent.decode.waveform import MAGIC

MOST_BYTES = 128 * 1024
"""Of payload in one batch: enough to share a commit, little enough to be decoded in 60 MB."""
BURST_SHARE = 4
"""Of a burst, which is taken as it lies, so many bytes weigh one: text unfolds when decoded."""
ENOUGH = 500
"""Messages beyond which none is waited for: half of what a broker sends unacknowledged."""


class Arrival(NamedTuple):
    """A message as it came.

    Attributes:
        topic: where it was published.
        payload: what was.
        token: given back to the source once the message is committed; 0: nothing to acknowledge.
        at_ns: the device's clock when it came.
        over: bytes of a message that was too large, and of which the payload is not here; 0: it is.
        source: that it came from; empty: MQTT, whose topics say nothing of a source.
        retained: kept by the broker, from whenever it was published.
    """

    topic: str
    payload: bytes
    token: int
    at_ns: int
    over: int = 0
    source: str = ""
    retained: bool = False


def weight(arrival: Arrival) -> int:
    """Return what a message counts for in ``MOST_BYTES``."""
    size = len(arrival.payload)
    return size // BURST_SHARE if arrival.payload.startswith(MAGIC) else size


class Intake:
    """Sources put, the main thread takes what there is; a full intake makes sources wait.

    What one read of a source brought is put at once, so that the bounds are passed by that at most.

    Args:
        size: messages that may wait.
        most_bytes: of payload that may wait.
    """

    def __init__(self, size: int, most_bytes: int = 8 * 1024 * 1024) -> None:
        self._size = size
        self._most_bytes = most_bytes
        self._waiting: deque[Arrival] = deque()
        self._bytes = self._weight = 0
        self._changed = threading.Condition()
        self._interrupted = self._closed = False

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= self._size or self._bytes >= self._most_bytes

    @property
    def _enough(self) -> bool:
        return len(self._waiting) >= ENOUGH or self._weight >= MOST_BYTES or self._full

    def put(self, arrival: Arrival) -> None:
        """Add a message; called from a source's thread, waits while the intake is full."""
        self.put_all((arrival,))

    def put_all(self, arrivals: Sequence[Arrival]) -> None:
        """Add messages; called from a source's thread, waits while the intake is full."""
        size = sum([len(arrival.payload) for arrival in arrivals])
        heavy = sum([weight(arrival) for arrival in arrivals])
        with self._changed:
            while self._full and not self._closed:
                self._changed.wait()
            if self._closed:
                return
            was_empty = not self._waiting
            self._waiting.extend(arrivals)
            self._bytes += size
            self._weight += heavy
            if was_empty or self._enough:
                self._changed.notify_all()

    def take(self, timeout_s: float, more_s: float = 0.0) -> list[Arrival]:
        """Return what waits, up to ``MOST_BYTES``; after ``timeout_s`` if there is nothing yet.

        ``more_s``: where there is something, wait so long for more that shares its commit, unless
        there is enough.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._waiting and not self._interrupted:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if more_s and self._waiting:
                deadline = time.monotonic() + more_s
                while not self._enough and not self._interrupted:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
            self._interrupted = False
            was_full = self._full
            taken: list[Arrival] = []
            size = heavy = 0
            while self._waiting and heavy < MOST_BYTES:
                arrival = self._waiting.popleft()
                taken.append(arrival)
                size += len(arrival.payload)
                heavy += weight(arrival)
            self._bytes -= size
            self._weight -= heavy
            if was_full:
                self._changed.notify_all()
        return taken

    def wake(self) -> None:
        """End a wait for messages early, this one or the next."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing on any more, and hold nobody up who puts."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)

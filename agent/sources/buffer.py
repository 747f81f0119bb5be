"""Between a thread that must not wait and an intake that may be full: bounded, losses told."""

import threading
from collections import deque
from typing import Literal

from agent.intake import Arrival
from agent.sources.source import Put

WhenFull = Literal["wait", "oldest", "newest"]
"""``wait`` for room, or drop the ``oldest`` of what waits, or the ``newest``: what just came."""


class Buffer:
    """Arrivals on their way to the intake; one thread adds, one hands over.

    Args:
        size: bytes of payload that may wait; a single larger one may, too.
        when_full: what becomes of one that does not fit.
    """

    def __init__(self, size: int, when_full: WhenFull) -> None:
        self._size = size
        self._when_full = when_full
        self._waiting: deque[tuple[Arrival, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._hurried = False
        self._closed = False

    def add(self, arrival: Arrival, frames: int = 1) -> int:
        """Let an arrival wait; returns how many frames were dropped, of it or of older ones."""
        size = len(arrival.payload)
        dropped = 0
        with self._changed:
            while self._waiting and self._bytes + size > self._size:
                if self._when_full == "newest":
                    return frames
                if self._when_full == "oldest":
                    dropped += self._pop()[1]
                elif self._hurried:
                    break
                else:
                    self._changed.wait()
            self._waiting.append((arrival, frames))
            self._bytes += size
            self._changed.notify_all()
        return dropped

    def withdraw(self, token: int) -> bool:
        """Take an arrival back; returns False if it is already handed over."""
        with self._changed:
            for entry in self._waiting:
                if entry[0].token == token:
                    self._waiting.remove(entry)
                    self._bytes -= len(entry[0].payload)
                    self._changed.notify_all()
                    return True
        return False

    def hand_over(self, put: Put) -> None:
        """Put what waits, in order, until closed and empty: the body of a thread."""
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                arrival, _ = self._pop()
                self._changed.notify_all()
            put(arrival)

    def hurry(self) -> None:
        """Let in at once whatever waits for room: the adding thread is to end."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def close(self) -> None:
        """End ``hand_over`` once nothing waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> int:
        """Drop what waits; returns how many frames that were."""
        with self._changed:
            left = sum(frames for _, frames in self._waiting)
            self._waiting.clear()
            self._bytes = 0
        return left

    def _pop(self) -> tuple[Arrival, int]:
        entry = self._waiting.popleft()
        self._bytes -= len(entry[0].payload)
        return entry

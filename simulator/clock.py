"""Time as an argument: the wall's, one moved by hand, and the pace of a replay by the clock."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow, and a way to let them pass."""

    def now(self) -> float:
        """Return seconds since some fixed moment."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when that many seconds have passed."""
        ...


class WallClock:
    """The clock on the wall; Ctrl-C ends a wait."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def now(self) -> float:
        """Return the monotonic time."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let the time pass."""
        self._never.wait(seconds)


class HandClock:
    """A clock that a wait moves at once, and that remembers the waits."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []

    def now(self) -> float:
        """Return the time it was moved to."""
        return self.time

    def wait(self, seconds: float) -> None:
        """Move the time."""
        self.waits.append(seconds)
        self.time += seconds


class Pace:
    """Holds data time to ``speed`` times the clock's, from the first call on.

    >>> clock = HandClock()
    >>> pace = Pace(3600, clock)
    >>> for t in (7200, 10800, 10800, 14400):
    ...     pace.until(t)
    >>> clock.waits
    [1.0, 1.0]
    """

    def __init__(self, speed: float, clock: Clock) -> None:
        self._speed = speed
        self._clock = clock
        self._origin: tuple[float, float] | None = None

    def until(self, t: float) -> None:
        """Return when data time ``t`` (seconds) is due; at once if it is past."""
        if self._origin is None:
            self._origin = (self._clock.now(), t)
        began, first = self._origin
        left = began + (t - first) / self._speed - self._clock.now()
        if left > 0:
            self._clock.wait(left)

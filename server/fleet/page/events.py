"""Tells open pages that something is new: server-sent events, one a second at most."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

EVERY_S = 1.0
LOOK_S = 2.0
"""Between two looks at the federation's status, which a file tells."""
ALIVE_S = 15.0
"""After so long without news a comment says that the connection stands."""
MOST = 200
"""Pages that are told; one more asks from time to time."""


class Events:
    """Wakes streams of all open pages; ``changed`` may be called from any thread.

    Args:
        stamp: returns a number that changes with what no thread tells of.
    """

    def __init__(self, stamp: Callable[[], int]) -> None:
        self._stamp = stamp
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waking: set[asyncio.Event] = set()
        self._lock = threading.Lock()
        self._due = False
        self.closing = False

    def begin(self) -> None:
        """Remember the loop in which streams run; called in it."""
        self._loop = asyncio.get_running_loop()

    def changed(self) -> None:
        """Tell that something is new."""
        with self._lock:
            if self._due or self._loop is None or self._loop.is_closed():
                return
            self._due = True
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End all streams."""
        self.closing = True
        self.changed()

    def _wake(self) -> None:
        with self._lock:
            self._due = False
        for event in self._waking:
            event.set()

    @property
    def full(self) -> bool:
        """Return whether no more pages can be told."""
        return len(self._waking) >= MOST

    async def stream(self) -> AsyncIterator[str]:
        """Yield events until the page is left, or all is closed."""
        event = asyncio.Event()
        self._waking.add(event)
        try:
            yield "retry: 3000\n\n"
            seen, quiet_s = self._stamp(), 0.0
            while not self.closing:
                news = await _within(event, LOOK_S)
                event.clear()
                stamp = self._stamp()
                if news or stamp != seen:
                    seen, quiet_s = stamp, 0.0
                    yield "event: changed\ndata: \n\n"
                    await asyncio.sleep(0 if self.closing else EVERY_S)
                else:
                    quiet_s += LOOK_S
                    if quiet_s >= ALIVE_S:
                        quiet_s = 0.0
                        yield ": alive\n\n"
        finally:
            self._waking.discard(event)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Return whether an event came within a time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

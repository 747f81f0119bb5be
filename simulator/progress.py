"""How far a player is: one living line on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Counts rows and events and shows them; notices go above the living line."""

    def __init__(
        self, total_rows: int, stream: TextIO, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.total_rows = total_rows
        self.rows = 0
        self.events = 0
        self._stream = stream
        self._now = now
        self._tty = stream.isatty()
        self._every_s = 0.25 if self._tty else 5.0
        self._began = now()
        self._shown = self._began
        self._drawn = False

    @property
    def seconds(self) -> float:
        """Return the time since the first row could have been sent."""
        return self._now() - self._began

    def begin(self) -> None:
        """Count the time from here."""
        self._began = self._shown = self._now()

    def sent(self, rows: int, events: int, lag: Callable[[], dict[str, int]]) -> None:
        """Count what was sent, and show it when it is time; ``lag`` is asked only then."""
        self.rows += rows
        self.events += events
        now = self._now()
        if now - self._shown < self._every_s:
            return
        self._shown = now
        rate = self.rows / max(now - self._began, 1e-9)
        behind = ", ".join(f"{node} {rows}" for node, rows in lag().items())
        line = f"{self.rows:,} of {self.total_rows:,} rows, {rate:,.0f} rows/s" + (
            f"; to be confirmed: {behind}" if behind else ""
        )
        if self._tty:
            self._stream.write(f"\r\x1b[K{line}")
            self._drawn = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Print one line for a person."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the living line away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = False

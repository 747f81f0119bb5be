"""This device's clock, held against the times that come: went it back, is it behind the data?

A Raspberry Pi has no clock that runs while it is off: after a power cut, without a network, it is
behind by as long as that took. What comes then with a time of its own seems to be of the future.
As long as nothing says that this device's clock is right, it is taken all the same, and told.
"""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path

from agent.batch import Clock
from agent.sources.source import loud
from contract.errors import DecodeError

log = logging.getLogger("runout.clock")

AHEAD_NS = 60_000_000_000
"""What is ahead of this clock by more is noted in the journal: see ``agent.timebase``."""
STEP_NS = 1_000_000_000
"""A clock that goes back by less was slewed, or asked by two threads."""
FAR_NS = 10 * 365 * 86_400_000_000_000
"""No clock is believed that is ahead by more: that is a time in another unit."""
TOLD_NS = 86_400_000_000_000
"""For how long it is told that the clock went back."""
MOST_ASSETS = 1000
"""Of which it is remembered that they are ahead."""

_MEND = "set the time; for times without a network fit a real-time clock, or install fake-hwclock"


def synchronised() -> bool:
    """Return whether the kernel says that a time server, or the like, has set the clock.

    adjtimex(2): TIME_ERROR while it is not, or not any more. Where it cannot be asked: False.
    """
    try:
        asked = ctypes.CDLL(None).adjtimex
    except AttributeError:  # not Linux
        return False
    # struct timex; modes = 0 in its first bytes: only asked. It is 208 bytes in 64-bit systems.
    state = int(asked(ctypes.create_string_buffer(512)))
    return 0 <= state < _TIME_ERROR


_TIME_ERROR = 5


def _built_ns() -> int:
    """Return when this program was laid down here: the time cannot be before that."""
    return Path(__file__).stat().st_mtime_ns


def right_since(state: Path) -> float:
    """Return a time (seconds since 1970) that has been: this program and the store are of it."""
    stamps = [path.stat().st_mtime for path in state.glob("store.db*")]
    return max(_built_ns() / 1e9, *stamps) if stamps else _built_ns() / 1e9


class DeviceClock:
    """Holds the device's clock against what arrives; of the main thread alone.

    Args:
        future_ns: data may be this far ahead of the device's clock.
        is_set: whether something says that the clock is right.
        built_ns: a time that is past.

    Attributes:
        ahead: time of the newest data of each asset whose data was further ahead than it may be.
    """

    def __init__(
        self,
        future_ns: int,
        is_set: Callable[[], bool] = synchronised,
        built_ns: int | None = None,
    ) -> None:
        self._future_ns = future_ns
        self.is_set = is_set
        self._built_ns = _built_ns() if built_ns is None else built_ns
        self._newest_ns = 0
        self._last_ns = 0
        self._sources: dict[str, int] = {}
        self._at_ns = 0
        self._back: list[tuple[int, int]] = []
        self._ahead: set[int] = set()
        self._warned = 0
        self.ahead: dict[str, int] = {}
        self._went_back: tuple[int, int] | None = None

    def resume(self, last_ns: int, newest_ns: int) -> None:
        """Go on behind the journal.

        Args:
            last_ns: this clock, when the last of it came.
            newest_ns: time of the newest data in it.
        """
        self._last_ns = self._at_ns = last_ns
        self._newest_ns = newest_ns

    # -- as messages come -----------------------------------------------------------------------

    def meet(self, pos: int, topic: str, at_ns: int) -> None:
        """Meet a message: is the clock behind where it was when the one before it came?"""
        # Each source for itself: one that had to wait hands over what came long before.
        source = topic.split("/", 2)[1] if topic.startswith("source/") else ""
        before_ns = self._sources.get(source, self._last_ns)
        self._sources[source] = self._at_ns = at_ns
        if at_ns >= before_ns - STEP_NS:
            return
        self._back.append((pos, at_ns))
        known = self._went_back
        if known and before_ns <= known[0] + AHEAD_NS and at_ns >= known[1] - STEP_NS:
            return  # another source has met it already
        self._went_back = before_ns, at_ns
        log.warning(
            "this device's clock went back: what it stamps goes on from there",
            extra={"back_s": round((before_ns - at_ns) / 1e9, 1)},
        )

    def check(self, pos: int, asset: str, last_ns: int, at_ns: int) -> None:
        """Note where data is ahead of the clock.

        Raises:
            DecodeError: by more than it may be, and it is not the clock that is behind.
        """
        ahead_ns = last_ns - at_ns
        if ahead_ns <= AHEAD_NS:
            return
        if ahead_ns > self._future_ns:
            behind = self._newest_ns > at_ns + self._future_ns or not self.is_set()
            if not behind or last_ns > max(at_ns, self._built_ns) + FAR_NS:
                raise DecodeError(
                    "future",
                    f"time is {ahead_ns / 1e9:.0f} s ahead of this device's clock; set either",
                )
            if asset in self.ahead or len(self.ahead) < MOST_ASSETS:
                if not self.ahead:
                    self._warn(asset, ahead_ns)
                self.ahead[asset] = max(last_ns, self.ahead.get(asset, 0))
        self._ahead.add(pos)

    def _warn(self, asset: str, ahead_ns: int) -> None:
        self._warned += 1
        if loud(self._warned - 1, self._warned):
            log.warning(
                "this device's clock is behind the data, or the sender's is ahead",
                extra={"asset": asset, "ahead_s": round(ahead_ns / 1e9), "mend": _MEND},
            )

    def taken(self) -> Clock:
        """Return what was noted of the messages since this was last asked, for the journal."""
        clock = Clock(self._at_ns, tuple(self._back), frozenset(self._ahead))
        self._back, self._ahead = [], set()
        return clock

    # -- now and then ---------------------------------------------------------------------------

    def look(self, now_ns: int, newest_ns: dict[str, int]) -> str:
        """Return what is wrong with the clock; empty: nothing that is known.

        Args:
            now_ns: the clock.
            newest_ns: time of the newest data by asset.
        """
        self._newest_ns = max(newest_ns.values(), default=0)
        for asset in list(self.ahead):
            if newest_ns.get(asset, 0) <= now_ns:
                del self.ahead[asset]
        if self.ahead:
            asset = max(self.ahead, key=lambda name: newest_ns[name])
            ahead = span((newest_ns[asset] - now_ns) / 1e9)
            if self.is_set():
                return (
                    f"data is ahead of the clock: that of {asset} by {ahead}, and a time server "
                    "has set this clock: set the sender's"
                )
            return f"the clock is behind the data: that of {asset} is {ahead} ahead of it: {_MEND}"
        if not self._sources and now_ns < self._last_ns - AHEAD_NS and not self.is_set():
            back = span((self._last_ns - now_ns) / 1e9)
            return f"the clock is {back} behind what was stored when it was last right: {_MEND}"
        if self._went_back is not None:
            before_ns, at_ns = self._went_back
            if now_ns >= min(before_ns, at_ns + TOLD_NS) or self.is_set():
                self._went_back = None
            else:
                back = span((before_ns - at_ns) / 1e9)
                return f"the clock went back by {back}, and no time server has set it: {_MEND}"
        return ""


def span(seconds: float) -> str:
    """Return a length of time in words.

    >>> span(90), span(7200), span(604800)
    ('90 s', '120 min', '7.0 days')
    """
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 86400:.1f} days" if seconds > 172_800 else f"{seconds / 60:.0f} min"

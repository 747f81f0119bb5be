"""The time of an asset's readings: tells that a clock was set back, so that time begins anew there.

A reading that is not later than those before it is late, and changes nothing. Were that all, a few
readings from a clock that was ahead would leave their asset deaf until time has caught up with
them. So they are late no longer where it was the clock that went back, which is known by this:

- this device's clock went back, as the journal says (``agent.clock``), behind the newest reading,
  and a reading comes from where it is now: from that one on;
- ``ROWS`` readings in a row, each later than the one before it, are more than ``BACK_NS`` behind
  the newest one, which was ahead of this device's clock when it came, while they are not; or they
  are from before everything that was heard of the asset: from the last of these on.

What a gateway sends behind, of an hour in which it was cut off, is neither: that stays late. So
does what comes again, and what comes among readings that are newer.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agent.batch import Clock
from contract.arrays import Arrays

ROWS = 10
"""Readings in a row that make it the sender's clock."""
BACK_NS = 60_000_000_000
"""A sender's clock that goes back by less is waited for."""
OWN_NS = 1_000_000_000
"""The same of this device's clock: sources of one asset do not keep in step to the last bit."""
REACH_NS = 60_000_000_000
"""A reading may be stamped so long before it comes: a burst by its first sample."""
LEAP_NS = 30 * 86_400_000_000_000
"""What is later by more begins another stretch of time: a sender that was in 1970 is set."""

NEVER = -(2**63)


class TimeBase:
    """Where the readings of one asset have come to in time.

    Args:
        wait_ns: readings may be so late and are used all the same.

    Attributes:
        newest_ns: time of the newest reading.
    """

    def __init__(self, wait_ns: int = 0) -> None:
        self._wait_ns = wait_ns
        self.newest_ns = NEVER
        self._ahead = False
        """The newest was ahead of this device's clock when it came."""
        self._first_ns = NEVER
        """Where this stretch of time began."""
        self._run, self._run_ns = 0, NEVER
        """Readings in a row that may be of a clock that was set back, and the last one's time."""
        self._doubt_ns = NEVER
        """To where this device's clock went back, behind the newest reading."""
        self._met = 0
        """How many steps of this batch's clock have been met."""

    def plain(self, t_ns: NDArray[np.int64], pos: NDArray[np.int64], clock: Clock | None) -> bool:
        """Take readings ``(n,)`` among which none can be where time begins anew.

        Returns:
            False: nothing was taken, they are to be met one by one.
        """
        if clock is not None and clock.back:
            return False
        ahead = clock is not None and bool(clock.ahead)
        first, last = int(t_ns[0]), int(t_ns[-1])
        steps = np.diff(t_ns) if len(t_ns) > 1 else None
        if first > self.newest_ns and (steps is None or bool((steps > 0).all())):
            if first - self.newest_ns > LEAP_NS:
                self._first_ns = first
            if steps is not None and last - first > LEAP_NS:
                leaps = np.flatnonzero(steps > LEAP_NS)
                self._first_ns = int(t_ns[leaps[-1] + 1]) if len(leaps) else self._first_ns
            if not (ahead and clock is not None and clock.ahead.issuperset(pos.tolist())):
                self._doubt_ns = NEVER
            self._ahead = ahead and clock is not None and int(pos[-1]) in clock.ahead
            self.newest_ns, self._run = last, 0
            return True
        if ahead or self._ahead or self._run or self._doubt_ns != NEVER:
            return False
        most = int(t_ns.max())
        if int(t_ns.min()) < self._first_ns or most - self.newest_ns > LEAP_NS:
            return False
        self.newest_ns = max(self.newest_ns, most)
        return True

    def step(self, pos: int, clock: Clock | None) -> None:
        """Meet the steps of this device's clock up to a message of the batch."""
        while clock is not None and self._met < len(clock.back):
            at, to_ns = clock.back[self._met]
            if at > pos:
                return
            self._met += 1
            if self.newest_ns > to_ns + OWN_NS:
                self._doubt_ns = to_ns

    def end_batch(self, clock: Clock) -> None:
        """Meet the steps that are left; called at the end of each batch that has any."""
        self.step(2**63, clock)
        self._met = 0

    def meet(self, t_ns: int, *, ahead: bool, known: Callable[[int], bool]) -> bool:
        """Take one reading; True: time begins anew with it.

        Args:
            t_ns: its time.
            ahead: of this device's clock.
            known: whether one of a time is there already.
        """
        if t_ns > self.newest_ns:
            if t_ns - self.newest_ns > LEAP_NS:
                self._first_ns = t_ns
            if not ahead:
                self._doubt_ns = NEVER
            self.newest_ns, self._ahead, self._run = t_ns, ahead, 0
            return False
        behind_ns = self.newest_ns - t_ns - self._wait_ns
        if behind_ns <= OWN_NS or known(t_ns):
            return False
        if not (self._doubt_ns != NEVER and t_ns >= self._doubt_ns - REACH_NS):
            if behind_ns <= BACK_NS or not ((self._ahead and not ahead) or t_ns < self._first_ns):
                return False
            self._run = self._run + 1 if self._run and t_ns > self._run_ns else 1
            self._run_ns = t_ns
            if self._run < ROWS:
                return False
        self.newest_ns = self._first_ns = t_ns
        self._ahead, self._run, self._doubt_ns = ahead, 0, NEVER
        return True

    def arrays(self) -> Arrays:
        """Return the state, in an array of fixed shape."""
        run = self._run_ns if self._run else NEVER
        own = [self.newest_ns, self._ahead, self._first_ns, self._run, run, self._doubt_ns]
        return {"time": np.array(own, dtype=np.int64)}

    def restore(self, arrays: Arrays, newest_ns: int) -> None:
        """Take back what ``arrays`` returned; of before there was any of it, the newest time."""
        own = arrays.get("time")
        if own is None:
            self.newest_ns = newest_ns
            return
        self.newest_ns, ahead, self._first_ns, self._run, self._run_ns, self._doubt_ns = (
            int(v) for v in own
        )
        self._ahead = bool(ahead)

"""Join an asset's readings into rows in the order of time; tell what is late or came again.

A message with a whole row is a row. Readings of single channels that bear the same time are
joined: the row is closed when every channel has spoken or when a later time comes.
"""

import numpy as np
from numpy.typing import NDArray

from agent.clean import Reason
from contract.arrays import Floats

RECENT = 2048
"""Times kept per asset to tell a repeated row from a late one.

More than a broker has in flight, and more than a sender repeats when its connection was lost.
"""
LACKED = 64
"""Times kept per asset of rows that lack a channel: what comes of it is late, and once only."""

_NEVER = np.iinfo(np.int64).min
Odd = list[tuple[int, NDArray[np.uint8]]]
"""Rows that are late or came again: position in the batch, a ``Reason`` per channel ``(C,)``."""


class Joined:
    """Rows that are complete, in time order, and what was not made into a row."""

    __slots__ = ("late", "odd", "pos", "repeated", "t_ns", "values")

    def __init__(
        self,
        t_ns: NDArray[np.int64],
        values: Floats,
        pos: NDArray[np.int64],
        late: int = 0,
        again: int = 0,
        odd: Odd | None = None,
    ) -> None:
        self.t_ns = t_ns
        self.values = values
        self.pos = pos
        self.late = late
        self.repeated = again
        self.odd = odd or []


class _Times:
    """The newest times of an asset: they only grow, so that one is found by halving."""

    def __init__(self) -> None:
        self._buffer = np.empty(2 * RECENT, dtype=np.int64)
        self._end = 0

    def extend(self, t_ns: NDArray[np.int64]) -> None:
        """Add times, each later than all before."""
        t_ns = t_ns[-RECENT:]
        if self._end + len(t_ns) > len(self._buffer):
            self._buffer[:RECENT] = self._buffer[self._end - RECENT : self._end]
            self._end = RECENT
        self._buffer[self._end : self._end + len(t_ns)] = t_ns
        self._end += len(t_ns)

    def add(self, t_ns: int) -> None:
        """Add a time later than all before."""
        if self._end == len(self._buffer):
            self._buffer[:RECENT] = self._buffer[-RECENT:]
            self._end = RECENT
        self._buffer[self._end] = t_ns
        self._end += 1

    def __contains__(self, t_ns: int) -> bool:
        known = self.array()
        at = int(known.searchsorted(t_ns))
        return at < len(known) and bool(known[at] == t_ns)

    def array(self) -> NDArray[np.int64]:
        """Return the newest times, oldest first."""
        return self._buffer[max(0, self._end - RECENT) : self._end]


class Frame:
    """The rows of one asset.

    Attributes:
        last_ns: time of the last closed row.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self.last_ns = _NEVER
        self._recent = _Times()
        self._lacked_ns = np.full(LACKED, _NEVER)
        self._lacked = np.zeros((LACKED, channels), dtype=np.bool_)
        """Of times that are over, the newest in any order: what nothing was said of."""
        self._lacked_next = 0
        self._open_ns: int | None = None
        self._open = np.full(channels, np.nan)

    def push(
        self,
        t_ns: NDArray[np.int64],
        values: Floats,
        pos: NDArray[np.int64],
        whole: NDArray[np.bool_],
    ) -> Joined:
        """Take readings ``(n, C)`` in the order of arrival; NaN: nothing was said of it."""
        if len(t_ns) == 1 and self._open_ns is None:  # the same, without the ceremony
            t = int(t_ns[0])
            if t > self.last_ns and (whole[0] or not np.isnan(values).any()):
                self.last_ns = t
                self._recent.add(t)
                return Joined(t_ns, values, pos)
        if (
            self._open_ns is None
            and t_ns[0] > self.last_ns
            and (whole.all() or not np.isnan(values).any())
            and (np.diff(t_ns) > 0).all()
        ):
            self.last_ns = int(t_ns[-1])
            self._recent.extend(t_ns)
            return Joined(t_ns, values, pos)
        return self._join(t_ns.tolist(), values, pos.tolist(), whole.tolist())

    @property
    def newest_ns(self) -> int:
        """Return the time of the newest row, open or closed."""
        return self.last_ns if self._open_ns is None else self._open_ns

    def knows(self, t_ns: int) -> bool:
        """Return whether a row of this time is there, among the newest."""
        return t_ns in self._recent or t_ns == self._open_ns

    def begin_anew(self, t_ns: int) -> None:
        """Let time go on from here: what is known of later times is forgotten.

        The open row was closed before.
        """
        known = self._recent.array()
        kept = known[: int(known.searchsorted(t_ns))].copy()
        self._recent = _Times()
        self._recent.extend(kept)
        self.last_ns = int(kept[-1]) if len(kept) else np.iinfo(np.int64).min

    def flush(self) -> tuple[int, Floats] | None:
        """Close the open row, as a life event does."""
        if self._open_ns is None:
            return None
        row = (self._open_ns, self._open.copy())
        self._close_early()
        return row

    def _close(self) -> None:
        assert self._open_ns is not None  # noqa: S101  # for the type checker; callers looked
        self.last_ns = self._open_ns
        self._recent.extend(np.array([self._open_ns]))
        self._open_ns = None
        self._open[:] = np.nan

    def _close_early(self) -> None:
        """Close the open row without channels that have not spoken."""
        assert self._open_ns is not None  # noqa: S101  # as above
        self._remember(self._open_ns, np.isnan(self._open))
        self._close()

    def _remember(self, t_ns: int, lacked: NDArray[np.bool_]) -> None:
        self._lacked_ns[self._lacked_next] = t_ns
        self._lacked[self._lacked_next] = lacked
        self._lacked_next = (self._lacked_next + 1) % LACKED

    def _belated(self, t_ns: int, said: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return why each channel of a row of a time that is over changes nothing."""
        at = np.flatnonzero(self._lacked_ns == t_ns)
        if len(at):
            late = said & self._lacked[at[0]]
            self._lacked[at[0]] &= ~said
        elif t_ns in self._recent:
            late = np.zeros_like(said)
        else:
            late = said
            self._remember(t_ns, ~said)
        reasons = said * np.uint8(Reason.DUPLICATE)
        reasons[late] = Reason.LATE
        return reasons

    def _join(self, times: list[int], values: Floats, pos: list[int], whole: list[bool]) -> Joined:
        rows: list[tuple[int, Floats, int]] = []
        odd: Odd = []
        late = repeated = 0
        for t, row, at, is_whole in zip(times, values, pos, whole, strict=True):
            said = ~np.isnan(row)
            if t <= self.last_ns or (self._open_ns is not None and t < self._open_ns):
                reasons = self._belated(t, said)
                odd.append((at, reasons))
                if (reasons == Reason.LATE).any():
                    late += 1
                else:
                    repeated += 1
                continue
            if self._open_ns is not None and t > self._open_ns:
                rows.append((self._open_ns, self._open.copy(), at))
                self._close_early()
            # What was said first stands: the same time with another value is a repetition.
            fill = said & np.isnan(self._open)
            again = said & ~fill
            if again.any():
                odd.append((at, again * np.uint8(Reason.DUPLICATE)))
            if self._open_ns == t and not is_whole and not fill.any():
                repeated += 1
                continue
            self._open_ns = t
            self._open[fill] = row[fill]
            if is_whole or not np.isnan(self._open).any():
                rows.append((t, self._open.copy(), at))
                self._close()
        return Joined(
            np.array([r[0] for r in rows], dtype=np.int64),
            np.array([r[1] for r in rows]).reshape(len(rows), self._channels),
            np.array([r[2] for r in rows], dtype=np.int64),
            late,
            repeated,
            odd,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        known = self._recent.array()
        recent = np.zeros(RECENT, dtype=np.int64)
        recent[: len(known)] = known
        open_ns = _NEVER if self._open_ns is None else self._open_ns
        return {
            "frame/times": np.array([self.last_ns, open_ns, len(known)]),
            "frame/recent": recent,
            "frame/open": self._open.copy(),
            "frame/lacked": self._lacked.copy(),
            "frame/lacked_ns": np.append(self._lacked_ns, self._lacked_next),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        last, open_ns, count = (int(v) for v in arrays["frame/times"])
        self.last_ns = last
        self._open_ns = None if open_ns == _NEVER else open_ns
        self._recent = _Times()
        self._recent.extend(arrays["frame/recent"][:count])
        self._open = np.array(arrays["frame/open"])
        self._lacked = np.array(arrays["frame/lacked"])
        *lacked_ns, self._lacked_next = arrays["frame/lacked_ns"].tolist()
        self._lacked_ns = np.array(lacked_ns)

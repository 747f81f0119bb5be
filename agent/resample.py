"""Rows on a grid of time, from channels that speak at their own rates.

The row at ``t`` stands for what was read after ``t - every_s``, up to and with ``t``; ``t`` is a
multiple of ``every_s`` since 1970, so that devices and restarts agree on where rows lie. Each
channel's readings become one value as the channel declares; where there are none the last value
stands for ``hold_s``. A row in which no channel has a value is not made: through a long silence the
grid holds as long as it may, and goes on where readings do.
"""

from dataclasses import dataclass
from math import isfinite, isnan, sqrt

import numpy as np
from numpy.typing import NDArray

from agent.clean import Reason
from agent.frame import Joined, Odd
from contract.arrays import Floats
from contract.spec import Channel

RECENT = 512
"""Times kept per channel to tell a repeated reading from one that is new or late."""
MOST_WAITING, MOST_HELD = 1_000, 10_000
"""Rows that may wait to be closed, and rows that one reading may fill: bounds of memory."""

_NEVER = -(2**63)
_FEW = 32
"""Rows up to which one reading at a time is faster than whole columns."""
Integers = NDArray[np.int64]


class Grid:
    """The rows of one asset.

    A row is closed when a reading comes that is more than ``wait_s`` later than it. It is not
    closed by a reading at its own time: other channels may bear that time too, and be sent behind.

    Attributes:
        last_ns: time up to which rows are closed; what comes of it or before it is late.
    """

    def __init__(self, columns: tuple[Channel, ...], every_s: float, wait_s: float) -> None:
        if not 1e-6 <= every_s <= 1e8 or not 0 <= wait_s <= MOST_WAITING * every_s:
            raise ValueError(
                f"every_s = {every_s:g}, wait_s = {wait_s:g}: a grid has a step of 1e-6 s to 1e8 s "
                f"and waits for at most {MOST_WAITING} steps"
            )
        self._every = round(every_s * 1e9)
        self._wait = round(wait_s * 1e9)
        self._slots = -(-self._wait // self._every) + 1
        self._columns = [_Column(channel, self._every) for channel in columns]
        self._longest = max(column.hold for column in self._columns)
        self._newest = self.last_ns = _NEVER

    def push(self, t_ns: Integers, values: Floats, pos: Integers) -> Joined:
        """Take readings ``(n, C)`` in the order of arrival; NaN: nothing was said, or it was bad.

        Returns:
            the rows that were closed, each with the ``pos`` of what closed it; how many of the n
            said only what had been said (``repeated``), or what was too old to be used (``late``).
        """
        rows = _Rows(len(self._columns))
        if len(t_ns) <= _FEW:
            self._take_few(t_ns, values, pos, rows)
            return rows.joined()
        at = 0
        for odd in [*self._out_of_order(t_ns, values), len(t_ns)]:
            piece = slice(at, odd)
            take = self._take_few if odd - at <= _FEW else self._take_many
            take(t_ns[piece], values[piece], pos[piece], rows)
            one = slice(odd, odd + 1)
            self._take_few(t_ns[one], values[one], pos[one], rows)
            at = odd + 1
        return rows.joined()

    def flush(self) -> tuple[Integers, Floats]:
        """Close all that is open, as a life event does: times ``(k,)``, rows ``(k, C)``.

        The last one ends, and is stamped, where the readings do; what comes later, within the same
        step too, belongs to the next life, in which no value of this one is held.
        """
        rows = _Rows(len(self._columns))
        if self._newest > self.last_ns:
            self._close((self._newest - 1) // self._every, 0, rows)
            k = -(-self._newest // self._every)
            rows.add(self._newest, [column.close(k, self._newest) for column in self._columns], 0)
            self.last_ns = self._newest
        for column in self._columns:
            column.held, column.held_ns = np.nan, _NEVER
        joined = rows.joined()
        return joined.t_ns, joined.values

    @property
    def newest_ns(self) -> int:
        """Return the time of the newest reading."""
        return self._newest

    def knows(self, t_ns: int) -> bool:
        """Return whether a reading of this time is there, among the newest of a channel."""
        return any(t_ns in column.recent for column in self._columns)

    def begin_anew(self, t_ns: int) -> None:
        """Let time go on from here: what is known of later times is forgotten.

        What was open was closed before, by ``flush``.
        """
        self._newest = self.last_ns = _NEVER
        for column in self._columns:
            known = column.recent.array()
            column.recent = _Recent(known[: int(known.searchsorted(t_ns))])

    def _take_few(self, t_ns: Integers, values: Floats, pos: Integers, rows: "_Rows") -> None:
        for t, row, at in zip(t_ns.tolist(), values.tolist(), pos.tolist(), strict=True):
            said = taken = known = 0
            reasons: list[int] = []
            late = t <= self.last_ns
            k = -(-t // self._every)
            for c, (column, value) in enumerate(zip(self._columns, row, strict=True)):
                if isnan(value):
                    continue
                said += 1
                again = old = False
                if t <= column.recent.newest:
                    again = t in column.recent
                    known += again
                    old = t < column.recent.oldest()
                if not (again or old):
                    column.recent.add(t)  # of what is late, too: it may come again
                if not (late or again or old):
                    taken += 1
                    column.add(t, k, value)
                    continue
                reasons = reasons or [0] * len(row)
                reasons[c] = Reason.DUPLICATE if again else Reason.LATE
            if reasons:
                rows.odd.append((at, np.array(reasons, dtype=np.uint8)))
            if said and not taken:
                rows.repeated += known == said
                rows.late += known != said
            if t > self._newest:
                self._newest = t
                self._close((t - self._wait - 1) // self._every, at, rows)

    def _close(self, until: int, pos: int, rows: "_Rows") -> None:
        """Close the rows up to number ``until``."""
        if until * self._every <= self.last_ns:
            return
        begin = [column.begin() for column in self._columns]
        first = min(k for k in begin if k is not None) if any(k is not None for k in begin) else 0
        reach = max(column.reach(until) for column in self._columns)
        first = max(first, self.last_ns // self._every + 1)
        for k in range(first, min(until, reach) + 1):
            t = k * self._every
            rows.add(t, [column.close(k, t) for column in self._columns], pos)
        self.last_ns = until * self._every

    def _out_of_order(self, t_ns: Integers, values: Floats) -> list[int]:
        """Return which readings are not later than their channel's others, or are late."""
        if t_ns[0] > self._newest and (t_ns[1:] > t_ns[:-1]).all():
            return []
        said = ~np.isnan(values)
        newest = np.array([column.recent.newest for column in self._columns])
        before = np.empty(values.shape, dtype=np.int64)
        before[0] = newest
        np.maximum.accumulate(np.where(said, t_ns[:, None], _NEVER)[:-1], axis=0, out=before[1:])
        np.maximum(before, newest, out=before)
        odd: NDArray[np.bool_] = np.logical_or.reduce(said & (t_ns[:, None] <= before), axis=1)
        newest_ns = np.maximum(np.maximum.accumulate(t_ns), self._newest)[:-1]
        closed = (newest_ns - self._wait - 1) // self._every * self._every
        odd[0] |= t_ns[0] <= self.last_ns
        odd[1:] |= t_ns[1:] <= np.maximum(closed, self.last_ns)
        return [int(i) for i in np.flatnonzero(odd)]

    def _take_many(self, t_ns: Integers, values: Floats, pos: Integers, rows: "_Rows") -> None:
        """Take readings each later than its channel's others, none late."""
        newest = np.maximum(np.maximum.accumulate(t_ns), self._newest)
        # After each reading: the number of the last closed row.
        closed = (newest - self._wait - 1) // self._every
        if self._newest == _NEVER:
            before, reach = int(closed[0]), int(closed[0])
        else:
            before = self.last_ns // self._every
            reach = max(
                -(-self._newest // self._every), (self._newest + self._longest) // self._every
            )
        closed = np.maximum(closed, before)
        since = np.concatenate(([before], closed[:-1]))
        # None can have a value beyond what was held when the reading came that closed it.
        far = (newest[:-1] + max(self._longest, self._every - 1)) // self._every
        count = np.minimum(closed, np.concatenate(([reach], far))) - since
        count = np.maximum(count, 0)
        by = np.repeat(np.arange(len(t_ns)), count)
        k = np.arange(len(by)) - (np.cumsum(count) - count)[by] + since[by] + 1
        made = np.empty((len(k), len(self._columns)))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite becomes NaN
            for c, column in enumerate(self._columns):
                at = np.flatnonzero(~np.isnan(values[:, c]))
                made[:, c] = column.run(at, t_ns[at], values[at, c], k, by, int(closed[-1]))
        rows.extend(k * self._every, made, pos[by])
        self._newest = int(newest[-1])
        if closed[-1] > before or self.last_ns == _NEVER:
            self.last_ns = int(closed[-1]) * self._every

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        shape = len(self._columns), self._slots
        cells, sums = np.zeros((*shape, 4), dtype=np.int64), np.zeros((*shape, 3))
        recent = np.zeros((len(self._columns), RECENT), dtype=np.int64)
        held = np.array([[column.held] for column in self._columns])
        counts = np.array([[c.held_ns, len(c.cells), len(c.recent.array())] for c in self._columns])
        for c, column in enumerate(self._columns):
            for i, cell in enumerate(column.cells):
                cells[c, i] = cell.k, cell.n, cell.first_ns, cell.last_ns
                sums[c, i] = cell.sum, cell.first, cell.last
            known = column.recent.array()
            recent[c, : len(known)] = known
        return {
            "grid/times": np.array([self._newest, self.last_ns]),
            "grid/counts": counts,
            "grid/held": held,
            "grid/cells": cells,
            "grid/sums": sums,
            "grid/recent": recent,
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        self._newest, self.last_ns = arrays["grid/times"].tolist()
        for c, column in enumerate(self._columns):
            column.held_ns, count, known = arrays["grid/counts"][c].tolist()
            column.held = float(arrays["grid/held"][c, 0])
            both = zip(arrays["grid/cells"][c, :count], arrays["grid/sums"][c, :count], strict=True)
            column.cells = [_Cell(*cell.tolist(), *sums.tolist()) for cell, sums in both]
            column.recent = _Recent(arrays["grid/recent"][c, :known])


class _Rows:
    """Rows as they are closed, and what made none."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._parts: list[tuple[Integers, Floats, Integers]] = []
        self._t: list[int] = []
        self._values: list[list[float]] = []
        self._pos: list[int] = []
        self.late = self.repeated = 0
        self.odd: Odd = []

    def add(self, t_ns: int, values: list[float], pos: int) -> None:
        """Add a row, unless no channel has a value."""
        if not all(map(isnan, values)):
            self._t.append(t_ns)
            self._values.append(values)
            self._pos.append(pos)

    def extend(self, t_ns: Integers, values: Floats, pos: Integers) -> None:
        """Add rows, without those in which no channel has a value."""
        some = ~np.isnan(values).all(axis=1)
        self._settle()
        self._parts.append((t_ns[some], values[some], pos[some]))

    def _settle(self) -> None:
        self._parts.append(
            (
                np.array(self._t, dtype=np.int64),
                np.array(self._values, dtype=np.float64).reshape(-1, self._channels),
                np.array(self._pos, dtype=np.int64),
            )
        )
        self._t, self._values, self._pos = [], [], []

    def joined(self) -> Joined:
        """Return all of them."""
        if not self._parts or self._t:
            self._settle()
        t_ns, values, pos = (
            self._parts[0]
            if len(self._parts) == 1
            else (np.concatenate([part[i] for part in self._parts]) for i in range(3))
        )
        return Joined(t_ns, values, pos, self.late, self.repeated, self.odd)


@dataclass(slots=True)
class _Cell:
    """What was read of one channel in the time of one row."""

    k: int
    n: int
    first_ns: int
    last_ns: int
    sum: float
    first: float
    last: float


class _Recent:
    """The newest times of a channel, ascending."""

    def __init__(self, known: Integers) -> None:
        self._buffer = np.empty(2 * RECENT, dtype=np.int64)
        self._buffer[: len(known)] = known
        self._end = len(known)
        self.newest = int(known[-1]) if len(known) else _NEVER

    def array(self) -> Integers:
        """Return them."""
        return self._buffer[max(0, self._end - RECENT) : self._end]

    def oldest(self) -> int:
        """Return the time before which nothing is remembered."""
        return int(self._buffer[self._end - RECENT]) if self._end >= RECENT else _NEVER

    def __contains__(self, t_ns: int) -> bool:
        known = self.array()
        at = int(known.searchsorted(t_ns))
        return at < len(known) and bool(known[at] == t_ns)

    def add(self, t_ns: int) -> None:
        """Add a time that is not among them."""
        if t_ns > self.newest:
            self._room(1)
            self._buffer[self._end] = t_ns
            self._end += 1
            self.newest = t_ns
        else:
            known = self.array()
            known = np.insert(known, int(known.searchsorted(t_ns)), t_ns)[-RECENT:]
            self._buffer[: len(known)] = known
            self._end = len(known)

    def extend(self, t_ns: Integers) -> None:
        """Add times, each later than all before."""
        t_ns = t_ns[-RECENT:]
        self._room(len(t_ns))
        self._buffer[self._end : self._end + len(t_ns)] = t_ns
        self._end += len(t_ns)
        self.newest = int(t_ns[-1])

    def _room(self, count: int) -> None:
        if self._end + count > len(self._buffer):
            self._buffer[:RECENT] = self._buffer[self._end - RECENT : self._end]
            self._end = RECENT


class _Column:
    """One channel: its open cells, oldest first, and the value it holds from those closed."""

    def __init__(self, channel: Channel, every_ns: int) -> None:
        self.hold = 3 * every_ns if channel.hold_s is None else round(channel.hold_s * 1e9)
        if self.hold > MOST_HELD * every_ns:
            raise ValueError(
                f"channel {channel.name!r}: hold_s is over {MOST_HELD} steps of every_s: "
                "hold for less, or make rows less often"
            )
        self._every = every_ns
        self._how = channel.resample
        self.cells: list[_Cell] = []
        self.held, self.held_ns = np.nan, _NEVER
        self.recent = _Recent(np.empty(0, dtype=np.int64))

    def add(self, t_ns: int, k: int, value: float) -> None:
        """Take a reading into cell k, in the order of arrival."""
        i = len(self.cells)
        while i and self.cells[i - 1].k > k:
            i -= 1
        how = self._how
        if not i or self.cells[i - 1].k < k:
            start = {"min": np.inf, "max": -np.inf}.get(how, 0.0)
            cell = _Cell(k, 0, t_ns, t_ns, start, value, value)
            self.cells.insert(i, cell)
        else:
            cell = self.cells[i - 1]
            if t_ns > cell.last_ns:
                cell.last_ns, cell.last = t_ns, value
            elif t_ns < cell.first_ns:
                cell.first_ns, cell.first = t_ns, value
        cell.n += 1
        if how == "mean":
            cell.sum += value
        elif how == "rms":
            cell.sum += value * value
        elif how == "min":
            cell.sum = min(cell.sum, value + 0.0)  # one zero: -0.0 would depend on the order
        elif how == "max":
            cell.sum = max(cell.sum, value + 0.0)

    def begin(self) -> int | None:
        """Return the first row that may have a value, or None."""
        if self.held_ns != _NEVER:
            return self.held_ns // self._every
        return self.cells[0].k if self.cells else None

    def reach(self, until: int) -> int:
        """Return the last row, up to ``until``, that may have a value."""
        for cell in reversed(self.cells):
            if cell.k <= until:
                return max(cell.k, (cell.last_ns + self.hold) // self._every)
        return (self.held_ns + self.hold) // self._every

    def close(self, k: int, t_ns: int) -> float:
        """Return the value at the end of cell k, which is the oldest there is or empty."""
        own = bool(self.cells) and self.cells[0].k == k
        if own:
            cell = self.cells.pop(0)
            self.held, self.held_ns = self._value(cell), cell.last_ns
        if self.held_ns == _NEVER:
            return np.nan
        if self._how == "linear" and self.held_ns < t_ns and self.cells:
            cell = self.cells[0]
            if cell.first_ns - self.held_ns <= self.hold:
                part = float(t_ns - self.held_ns) / float(cell.first_ns - self.held_ns)
                between = self.held + (cell.first - self.held) * part
                return between if isfinite(between) else np.nan
        return self.held if own or t_ns - self.held_ns <= self.hold else np.nan

    def _value(self, cell: _Cell) -> float:
        value = cell.last
        if self._how in ("mean", "rms"):
            value = cell.sum / cell.n
            value = sqrt(value) if self._how == "rms" else value
        elif self._how in ("min", "max"):
            value = cell.sum
        return value if isfinite(value) else np.nan

    def run(
        self, at: Integers, t: Integers, x: Floats, k: Integers, by: Integers, closed: int
    ) -> Floats:
        """Take readings and close rows: the same, to the last bit, as one by one.

        Args:
            at: their indices in the batch ``(r,)``; each is later than all before.
            t: their times.
            x: their values.
            k: the rows to be closed ``(m,)``, ascending.
            by: the index in the batch of what closes each.
            closed: number of the last row that is closed then.
        """
        cell, sums, arrived = self._cells_with(at, t, x)
        value = self._values(cell, sums)
        t_ns = k * self._every
        i = np.searchsorted(cell[:, 0], k, side="right") - 1
        out = np.full(len(k), np.nan)
        some = np.flatnonzero(i >= 0)
        i, t_ns = i[some], t_ns[some]
        stands = (cell[i, 0] == k[some]) | (t_ns - cell[i, 3] <= self.hold)
        out[some] = np.where(stands, value[i], np.nan)
        if self._how == "linear" and len(some):
            j = np.minimum(i + 1, len(cell) - 1)
            span = cell[j, 2] - cell[i, 3]
            between = (i < j) & (arrived[j] <= by[some]) & (cell[i, 3] < t_ns) & (span <= self.hold)
            i, j, some, t_ns = i[between], j[between], some[between], t_ns[between]
            part = (t_ns - cell[i, 3]).astype(float) / span[between].astype(float)
            out[some] = value[i] + (sums[j, 1] - value[i]) * part
            out[~np.isfinite(out)] = np.nan
        done = int(np.searchsorted(cell[:, 0], closed, side="right"))
        if done:
            self.held, self.held_ns = float(value[done - 1]), int(cell[done - 1, 3])
        self.cells = [
            _Cell(*row.tolist(), *totals.tolist())
            for row, totals in zip(cell[done:], sums[done:], strict=True)
        ]
        if len(t):
            self.recent.extend(t)
        return out

    def _cells_with(
        self, at: Integers, t: Integers, x: Floats
    ) -> tuple[Integers, Floats, Integers]:
        """Return what is held, the open cells and those of new readings; when each was begun.

        Cells ``(s, 4)`` as k, n, first and last time; ``(s, 3)`` as sum, first and last value.
        """
        old = [(c.k, c.n, c.first_ns, c.last_ns) for c in self.cells]
        old_sums = [(c.sum, c.first, c.last) for c in self.cells]
        if self.held_ns != _NEVER:
            # n = 0 tells it from a cell; its row was closed before, so that no k is its own.
            old.insert(0, (_NEVER, 0, self.held_ns, self.held_ns))
            old_sums.insert(0, (self.held, self.held, self.held))
        cells = np.array(old, dtype=np.int64).reshape(-1, 4)
        sums = np.array(old_sums, dtype=np.float64).reshape(-1, 3)
        arrived = np.full(len(cells), -1)
        if not len(t):
            return cells, sums, arrived
        k = -(-t // self._every)
        start = np.flatnonzero(np.concatenate(([True], k[1:] != k[:-1])))
        end = np.append(start[1:], len(t))
        fresh = np.stack([k[start], end - start, t[start], t[end - 1]], axis=1)
        totals = np.stack([np.zeros(len(start)), x[start], x[end - 1]], axis=1)
        began = at[start]
        joins = bool(self.cells) and self.cells[-1].k == k[0]
        if joins:
            fresh[0, 1:3] = self.cells[-1].n + fresh[0, 1], self.cells[-1].first_ns
            totals[0, :2] = self.cells[-1].sum, self.cells[-1].first
            began[0] = -1
            cells, sums, arrived = cells[:-1], sums[:-1], arrived[:-1]
        if self._how in ("mean", "rms"):
            # One after the other, in the order of arrival: a reduction would round otherwise.
            row = np.repeat(np.arange(len(start)), end - start)
            running = totals[:, 0].copy()
            np.add.at(running, row, x * x if self._how == "rms" else x)
            totals[:, 0] = running
        elif self._how in ("min", "max"):
            extreme = np.minimum if self._how == "min" else np.maximum
            best = extreme.reduceat(x + 0.0, start)
            best[0] = extreme(best[0], totals[0, 0]) if joins else best[0]
            totals[:, 0] = best
        return (
            np.concatenate((cells, fresh)),
            np.concatenate((sums, totals)),
            np.concatenate((arrived, began)),
        )

    def _values(self, cells: Integers, sums: Floats) -> Floats:
        value = sums[:, 2].copy()
        if self._how in ("mean", "rms"):
            mean = sums[:, 0] / np.maximum(cells[:, 1], 1)
            value = np.sqrt(mean) if self._how == "rms" else mean
        elif self._how in ("min", "max"):
            value = sums[:, 0].copy()
        if self.held_ns != _NEVER:
            value[0] = self.held
        value[~np.isfinite(value)] = np.nan
        return value

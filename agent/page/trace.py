"""What was told of one asset, kept in arrays that do not grow, for plots.

Where its time is set back, what was told of later times is forgotten: it would be drawn across.
"""

import numpy as np

from agent.snapshot import Points

SIZE = 300
"""Points of a plot."""


class Recent:
    """The last reports.

    >>> recent = Recent(size=2)
    >>> for t in range(3):
    ...     recent.add(t, health=1.0, score=0.5, rul_h=None)
    >>> recent.points().t.tolist()
    [1.0, 2.0]
    """

    def __init__(self, size: int = SIZE, width: int = 3) -> None:
        self._t = np.zeros(size)
        self._values = np.zeros((size, width), dtype=np.float32)
        self._count = 0

    def add(
        self, t: float, *, health: float | None, score: float | None, rul_h: float | None
    ) -> None:
        """Add a report; the oldest makes room."""
        self.put(t, _row(health, score, rul_h))

    def put(self, t: float, row: "tuple[float, ...] | np.ndarray") -> None:
        """Add a row of numbers; the oldest makes room."""
        at = self._count % len(self._t)
        if self._count and t < self._t[at - 1]:
            self._forget(t)
            at = self._count % len(self._t)
        self._t[at] = t
        self._values[at] = row
        self._count += 1

    def _forget(self, t: float) -> None:
        told = self.points()
        kept = told.t < t
        self._count = int(kept.sum())
        self._t[: self._count], self._values[: self._count] = told.t[kept], told.values[kept]

    def points(self) -> Points:
        """Return a copy, oldest first."""
        size = len(self._t)
        if self._count <= size:
            return _frozen(self._t[: self._count].copy(), self._values[: self._count].copy())
        first = self._count % size
        return _frozen(np.roll(self._t, -first), np.roll(self._values, -first, axis=0))


class Trend:
    """All reports, in ever longer stretches of which the one with the highest score is kept.

    >>> trend = Trend(size=4)
    >>> for t in range(9):
    ...     trend.add(t, health=1.0, score=float(t == 5), rul_h=None)
    >>> trend.points().t.tolist()
    [0.0, 5.0, 8.0]
    """

    def __init__(self, size: int = SIZE) -> None:
        self._t = np.zeros(size)
        self._values = np.zeros((size, 3), dtype=np.float32)
        self._count = 0
        self._stretch = 1
        """Reports that one point stands for."""
        self._open = 0
        """Reports in the stretch that goes on; its point lies behind the last whole one."""
        self._open_t = 0.0
        self._open_row = _row(None, None, None)

    def add(
        self, t: float, *, health: float | None, score: float | None, rul_h: float | None
    ) -> None:
        """Add a report; a full trend is thinned to half."""
        row = _row(health, score, rul_h)
        newest = self._open_t if self._open else self._t[self._count - 1] if self._count else t
        if t < newest:
            self._count = int((self._t[: self._count] < t).sum())
            self._open = 0
        if not self._open or _above(row, self._open_row):
            self._open_t, self._open_row = t, row
        self._open += 1
        if self._open < self._stretch:
            return
        self._open = 0
        self._t[self._count] = self._open_t
        self._values[self._count] = self._open_row
        self._count += 1
        if self._count == len(self._t):
            self._halve()

    def _halve(self) -> None:
        kept = len(self._t) // 2
        pairs = self._values[: 2 * kept].reshape(kept, 2, 3)
        second = [_above(tuple(b), tuple(a)) for a, b in pairs.tolist()]
        at = 2 * np.arange(kept) + second
        self._t[:kept], self._values[:kept] = self._t[at], self._values[at]
        self._count = kept
        self._stretch *= 2

    def points(self) -> Points:
        """Return a copy, oldest first, the stretch that goes on at its end."""
        t, values = self._t[: self._count], self._values[: self._count]
        if self._open:
            t = np.append(t, self._open_t)
            values = np.vstack([values, np.array([self._open_row], dtype=np.float32)])
        return _frozen(t.copy(), values.copy())


def _row(
    health: float | None, score: float | None, rul_h: float | None
) -> tuple[float, float, float]:
    return (
        np.nan if health is None else health,
        np.nan if score is None else score,
        np.nan if rul_h is None else rul_h,
    )


def _above(row: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return whether a row's score is higher, or known where the other's is not."""
    return row[1] > other[1] or (other[1] != other[1] and row[1] == row[1])  # NaN


def _frozen(t: "np.ndarray", values: "np.ndarray") -> Points:
    t.setflags(write=False)
    values.setflags(write=False)
    return Points(t, values)

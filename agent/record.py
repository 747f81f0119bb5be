"""What is kept of a life until it is known what came: predictions told, vectors of an alert."""

from typing import NamedTuple

import numpy as np

from contract.arrays import Arrays, Floats

TOLD = 64
"""Predictions kept of a life: when there are more, every other one goes."""
SUSPECTS = 16
"""Vectors kept of an alert, thinned in the same way."""
LONGEST_NS = 3_600_000_000_000
"""Between two vectors; a machine of which nothing is heard for longer is not watched meanwhile."""


class Ended(NamedTuple):
    """How a life ended, and whether that was foretold.

    Attributes:
        asset_class: of the asset.
        asset: which.
        life: number of it.
        t_ns: its end.
        event: ``failed``, ``maintained`` or ``replaced``.
        alert: id of the newest alert of that life; empty: there was none.
        stood: whether that stood at the end.
        told: predictions of remaining life that were told.
        error_h: mean absolute error of them, up to the cap; None: none was told.
    """

    asset_class: str
    asset: str
    life: int
    t_ns: int
    event: str
    alert: str
    stood: bool
    told: int
    error_h: float | None


class _Thinned:
    """The first rows, every second, every fourth ... of all: never more than there is room for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.reset()

    def reset(self) -> None:
        self.count = self.seen = 0
        self.stride = 1

    def place(self) -> tuple[int, bool]:
        """Return where the next row goes, -1: nowhere; and whether every other goes before."""
        wanted = self.seen % self.stride == 0
        self.seen += 1
        if not wanted:
            return -1, False
        if self.count < self._room:
            self.count += 1
            return self.count - 1, False
        self.count = self._room // 2
        self.stride *= 2
        if (self.seen - 1) % self.stride:
            return -1, True
        self.count += 1
        return self.count - 1, True

    def array(self) -> list[int]:
        return [self.count, self.seen, self.stride]

    def restore(self, values: list[int]) -> None:
        self.count, self.seen, self.stride = values


class Record:
    """One asset's present life.

    Args:
        size: columns that health watches.
    """

    def __init__(self, size: int) -> None:
        self._told = _Thinned(TOLD)
        self._told_ns = np.zeros(TOLD, dtype=np.int64)
        self._told_h = np.zeros(TOLD)
        self._suspects = _Thinned(SUSPECTS)
        self._alert = 0
        """Number of the alert whose vectors are kept."""
        self._z = np.zeros((SUSPECTS, size))
        self._raw = np.zeros(SUSPECTS)
        self._newest_ns = 0

    def reset(self) -> None:
        """Begin a new life; of the last one's alert people may yet say what it was."""
        self._told.reset()

    def watched_ns(self, t_ns: int) -> int:
        """Take note of a vector; return for how long the asset was watched since the last."""
        before, self._newest_ns = self._newest_ns, t_ns
        return min(max(t_ns - before, 0), LONGEST_NS) if before else 0

    def tell(self, t_ns: int, hours: float) -> None:
        """Take note of a prediction that was told."""
        at, halve = self._told.place()
        if halve:
            for kept in (self._told_ns, self._told_h):
                kept[: TOLD // 2] = kept[::2].copy()
        if at >= 0:
            self._told_ns[at], self._told_h[at] = t_ns, hours

    def error_h(self, end_ns: int, cap_h: float) -> tuple[int, float | None]:
        """Return how many predictions were kept, and their mean absolute error."""
        count = self._told.count
        if not count:
            return 0, None
        came = np.clip((end_ns - self._told_ns[:count]) / 3.6e12, 0.0, cap_h)
        return self._told.seen, float(np.abs(self._told_h[:count] - came).mean())

    def suspect(self, alert: int, z: Floats, raw: float) -> None:
        """Keep a vector ``(F,)`` that came while an alert stood, and its score."""
        if alert != self._alert:
            self._alert = alert
            self._suspects.reset()
        at, halve = self._suspects.place()
        if halve:
            for kept in (self._z, self._raw):
                kept[: SUSPECTS // 2] = kept[::2].copy()
        if at >= 0:
            self._z[at], self._raw[at] = z, raw

    def suspects(self, alert: int) -> Floats:
        """Return the vectors ``(n, F)`` kept of an alert."""
        return self._z[: self._suspects.count if alert == self._alert else 0]

    def acquitted(self, alert: int) -> tuple[Floats, Floats, int]:
        """Return the vectors ``(n, F)`` of an alert, their scores, and how many each stands for.

        They are given once: whoever is told what an alert was learns it once.
        """
        if alert != self._alert:
            return self._z[:0], self._raw[:0], 1
        count, stride = self._suspects.count, self._suspects.stride
        self._suspects.reset()
        return self._z[:count].copy(), self._raw[:count].copy(), stride

    def arrays(self) -> Arrays:
        """Return the state, in arrays of fixed shape."""
        own = [self._newest_ns, self._alert, *self._told.array(), *self._suspects.array()]
        return {
            "record": np.array(own, dtype=np.int64),
            "record/told_ns": self._told_ns.copy(),
            "record/told_h": self._told_h.copy(),
            "record/z": self._z.copy(),
            "record/raw": self._raw.copy(),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self._newest_ns, self._alert, *own = (int(v) for v in arrays["record"])
        self._told.restore(own[:3])
        self._suspects.restore(own[3:])
        self._told_ns = np.array(arrays["record/told_ns"])
        self._told_h = np.array(arrays["record/told_h"])
        self._z = np.array(arrays["record/z"])
        self._raw = np.array(arrays["record/raw"])


class Tally:
    """Of the machines of a class, since what judges them began to.

    Attributes:
        watched_ns: time for which they were watched, added up.
        raised: alerts.
        judged: feature vectors.
        over: of these, above the limit.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.watched_ns = self.raised = self.judged = self.over = 0

    def array(self) -> np.ndarray:
        """Return the state."""
        own = [self.watched_ns, self.raised, self.judged, self.over]
        return np.array(own, dtype=np.int64)

    def restore(self, array: np.ndarray) -> None:
        """Take back what ``array`` returned."""
        self.watched_ns, self.raised, self.judged, self.over = (int(v) for v in array)

"""What each channel is in each operating regime, from the lives on a device that have ended.

A statistic over rows of several regimes says how the machine was driven, and not how it is. Where a
class asks for it, values are standardised within their regime before any statistic. What is
standardised by is learnt only as a life ends: in between it stands still, so that it makes no
difference how rows are cut into batches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.features.regime import Regime
from contract.arrays import Arrays, Floats
from contract.models.moments import Moments, spread
from contract.spec import AssetClass

KEEP = 640
"""Rows of a life that are kept to learn from; of a longer life the last."""
ENOUGH = 4096
"""Rows after which nothing more is learnt: what vectors mean must not change for ever."""
MOST = 6.0
"""Deviations at which a value is clipped: one wild value must not own a window."""


class Kept(NamedTuple):
    """The rows of a life that has ended.

    Attributes:
        asset: whose.
        life: which of its lives.
        born_ns: when it began.
        t_ns: ``(n,)``.
        rows: ``(n, C)``.
        whole: whether these are all there were.
    """

    asset: str
    life: int
    born_ns: int
    t_ns: NDArray[np.int64]
    rows: Floats
    whole: bool


class Levels:
    """Levels of one class; all assets of it on a device share them.

    Attributes:
        wanted: whether the class asks for them.
        kept: lives that have ended while levels were still learnt: their vectors are to be of the
            levels that are known in the end.

    >>> from contract.model_spec import Ridge
    >>> from contract.spec import Channel, Declared
    >>> speed = Declared({"speed": (1000.0,)}, levels=True)
    >>> fan = AssetClass("fan", (Channel("speed", "rpm"), Channel("flow", "l/s")),
    ...                  regimes=speed, rul=(Ridge(),))
    >>> levels = Levels(fan)
    >>> rows = np.array([[900.0, 1.0], [910.0, 3.0], [1400.0, 9.0], [1410.0, 9.5]])
    >>> levels.learn(Kept("fan-1", 0, 0, np.arange(4), rows, whole=True), failed=True)
    True
    >>> levels.apply(np.array([[905.0, 2.0], [1405.0, 9.25]])).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, spec: AssetClass) -> None:
        self.wanted = spec.regimes is not None and spec.regimes.levels
        self._width = len(spec.columns)
        self._regime = Regime(spec.regimes, spec.channel_names) if spec.regimes else None
        size = self._regime.size if self._regime is not None and self.wanted else 0
        self.kept: list[Kept] = []
        self._moments = [Moments.empty(self._width, diagonal=True) for _ in range(size)]
        self._solve()

    def _solve(self) -> None:
        self._n = np.array([one.n for one in self._moments])
        blank = np.empty((0, self._width))
        self._mean = np.stack([one.mean for one in self._moments]) if len(self._n) else blank
        variance = np.stack([one.variance() for one in self._moments]) if len(self._n) else blank
        self._scale = spread(variance, self._mean)

    @property
    def regimes(self) -> int:
        """Return how many operating regimes are known."""
        return 1 if self._regime is None else self._regime.found

    @property
    def ready(self) -> bool:
        """Return whether values can be standardised, if they are to be."""
        return not self.wanted or bool(self._n.sum())

    @property
    def learning(self) -> bool:
        """Return whether rows are to be kept to learn from."""
        return self.wanted and self._n.sum() < ENOUGH

    def learn(self, life: Kept, *, failed: bool) -> bool:
        """Learn a life that has ended; returns whether what was known before means another now.

        ``failed``: else nothing is learnt of how long it was, and no vector of it is kept.
        """
        if self._regime is None or not self.learning:
            return False
        ready = self.ready
        rows = life.rows[np.isfinite(life.rows).all(axis=1)]
        if not self._regime.known:
            self._regime.fit(rows)
        labels = self._regime.of(rows)
        for label, known in enumerate(self._moments):
            found = Moments.of(rows[labels == label], diagonal=True)
            self._moments[label] = known.merge(found)
        self._solve()
        if failed:
            self.kept.append(life)
        return self.ready and (not ready or self._regime.found > 1)

    def settle(self) -> None:
        """Let go of the lives that were kept, once nothing more is learnt."""
        if not self.learning:
            self.kept.clear()

    def apply(self, rows: Floats) -> Floats:
        """Return rows ``(n, C)`` in the deviations of their regimes.

        Where there is but one regime, values stay what they are, and mean the same on all devices.
        A channel that never moved in a regime says nothing there, and those that tell regimes apart
        have told all they know: 0. In a regime that no life was
        in, and where it is not known, nothing can be said: NaN.
        """
        if not self.wanted or self._regime is None or not len(rows):
            return rows
        labels = self._regime.of(rows)
        if self._regime.found == 1:
            alone = rows.copy()
            alone[:, self._regime.columns] = np.where(labels[:, None] < 0, np.nan, 0.0)
            return alone
        at = np.maximum(labels, 0)
        standard = np.clip((rows - self._mean[at]) / self._scale[at], -MOST, MOST)
        unknown: NDArray[np.bool_] = (labels < 0) | (self._n[at] == 0)
        standard[:, self._regime.columns] = 0.0
        standard[unknown] = np.nan
        result: Floats = standard
        return result

    def arrays(self) -> Arrays:
        """Return the state; nothing where levels are not wanted."""
        if not self.wanted or self._regime is None:
            return {}
        return {
            **self._regime.arrays(),
            "n": self._n.copy(),
            "mean": self._mean.copy(),
            "scatter": np.stack([one.scatter for one in self._moments]),
            **self._kept_arrays(),
        }

    def _kept_arrays(self) -> Arrays:
        lives = self.kept
        words = "\n".join(f"{one.asset}\t{one.life}" for one in lives).encode()
        numbers = [(one.born_ns, len(one.t_ns), int(one.whole)) for one in lives]
        blank = np.empty((0, self._width))
        return {
            "kept/names": np.frombuffer(words, dtype=np.uint8),
            "kept/numbers": np.array(numbers, dtype=np.int64).reshape(-1, 3),
            "kept/t_ns": np.concatenate([np.empty(0, np.int64), *(one.t_ns for one in lives)]),
            "kept/rows": np.concatenate([blank, *(one.rows for one in lives)]),
        }

    def _restore_kept(self, arrays: Arrays) -> None:
        names = np.asarray(arrays["kept/names"], dtype=np.uint8).tobytes().decode()
        t_ns = np.asarray(arrays["kept/t_ns"], dtype=np.int64)
        rows = np.asarray(arrays["kept/rows"], dtype=np.float64)
        self.kept, at = [], 0
        numbers = np.asarray(arrays["kept/numbers"], dtype=np.int64).tolist()
        for line, (born_ns, n, whole) in zip(names.splitlines(), numbers, strict=True):
            asset, _, life = line.partition("\t")
            part = slice(at, at + n)
            self.kept.append(
                Kept(asset, int(life), born_ns, t_ns[part], rows[part], whole=bool(whole))
            )
            at += n

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        if not self.wanted or self._regime is None:
            return
        self._regime.restore(arrays)
        n, mean, scatter = (
            np.array(arrays[name], dtype=np.float64) for name in ("n", "mean", "scatter")
        )
        self._moments = [
            Moments(float(n[label]), mean[label], scatter[label]) for label in range(len(n))
        ]
        self._restore_kept(arrays)
        self._solve()


class Past:
    """The rows of one life, as far as they are kept.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self.reset()

    def reset(self) -> None:
        """Forget all: a new life begins."""
        self._t_ns: list[NDArray[np.int64]] = []
        self._rows: list[Floats] = []
        self._count = 0
        self.total = 0
        """Rows of the life so far, kept or not."""

    def add(self, t_ns: NDArray[np.int64], rows: Floats) -> None:
        """Keep rows."""
        self._t_ns.append(t_ns)
        self._rows.append(rows)
        self._count += len(rows)
        self.total += len(rows)
        if self._count > 2 * KEEP or len(self._rows) > KEEP:
            t_ns, rows = self.all()
            self._t_ns, self._rows, self._count = [t_ns], [rows], len(rows)

    def all(self) -> tuple[NDArray[np.int64], Floats]:
        """Return the times ``(n,)`` and the rows ``(n, C)`` that are kept."""
        if not self._rows:
            return np.empty(0, dtype=np.int64), np.empty((0, self._width))
        return np.concatenate(self._t_ns)[-KEEP:], np.concatenate(self._rows)[-KEEP:]

    def arrays(self) -> Arrays:
        """Return the state, in arrays of fixed shape."""
        t_ns, rows = self.all()
        held = np.full((KEEP, self._width), np.nan)
        held[: len(rows)] = rows
        times = np.zeros(KEEP + 2, dtype=np.int64)
        times[:2] = len(rows), self.total
        times[2 : 2 + len(rows)] = t_ns
        return {"past/t_ns": times, "past/rows": held}

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self.reset()
        times = np.asarray(arrays["past/t_ns"], dtype=np.int64)
        n = int(times[0])
        if n:
            rows = np.asarray(arrays["past/rows"], dtype=np.float64)
            self.add(times[2 : 2 + n].copy(), rows[:n].copy())
        self.total = int(times[1])

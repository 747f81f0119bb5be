"""Rolling statistics over the last rows of one asset, over all channels at once.

Two passes over the window, not running sums: those lose all digits at an offset of 10⁶. What the
rows are cut into on the way in makes no difference, to the last bit: everything is computed at the
hop, from whole windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from contract.arrays import Floats


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The statistics over one window length, and where in the vector they go."""

    length: int
    rows: dict[str, int]


class Window:
    """The last rows of an asset, and the feature vector at each hop.

    Args:
        channels: C.
        stats: as in ``contract.spec.AssetClass``.
        hop: rows from one vector to the next.
        warmup: rows before the first vector.

    >>> window = Window(1, ("mean_2", "slope_3", "dev_2"), hop=1, warmup=2)
    >>> [(i, v.tolist()) for i, v in window.push(np.array([[1.0], [3.0], [5.0]]))]
    [(1, [2.0, 2.0, 0.0]), (2, [4.0, 2.0, 2.0])]
    """

    def __init__(self, channels: int, stats: tuple[str, ...], *, hop: int, warmup: int) -> None:
        self._channels = channels
        self._stats = stats
        self._hop = hop
        self._warmup = warmup
        by_length: dict[int, dict[str, int]] = {}
        self._ewma: list[tuple[int, float, Floats]] = []
        self._dev: list[tuple[int, int]] = []
        self._last = self._all = -1
        means = []
        for row, stat in enumerate(stats):
            kind, _, digits = stat.partition("_")
            if stat == "last":
                self._last = row
            elif stat == "mean_all":
                self._all = row
            elif kind == "ewma":
                a = 2.0 / (int(digits) + 1.0)
                weights = a * (1.0 - a) ** np.arange(hop - 1, -1, -1.0)
                self._ewma.append((row, a, weights))
            elif kind == "dev":
                self._dev.append((row, int(digits)))
            else:
                by_length.setdefault(int(digits), {})[kind] = row
                if kind == "mean":
                    means.append(int(digits))
        self._wanted = [_Wanted(n, rows) for n, rows in sorted(by_length.items())]
        self._short = min(means, default=1)
        self.length = max([w.length for w in self._wanted] + [self._short, hop])
        self._buffer = np.empty((2 * self.length + 64, channels))
        self._slopes: dict[int, Floats] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new life begins."""
        self._end = 0
        self._count = 0
        self._last_nan = -1
        self._smooth = np.full((len(self._ewma), self._channels), np.nan)
        self._total = np.zeros((2, self._channels))
        self._begin = np.zeros((len(self._dev), 2, self._channels))

    @property
    def count(self) -> int:
        """Return the rows of this life."""
        return self._count

    def push(self, values: Floats) -> Iterator[tuple[int, Floats]]:
        """Add rows ``(n, C)``, NaN where a value is bad; yield ``(row, vector)`` at each hop.

        ``row`` is the index in ``values`` that completed the vector ``(stats * C,)``: statistic by
        statistic, each over all channels; NaN where a window holds no good value.
        """
        at = 0
        n = len(values)
        while at < n:
            take = min(self._hop - self._count % self._hop, n - at)
            self._store(values[at : at + take])
            at += take
            if self._count % self._hop == 0:
                self._advance()
                if self._count >= self._warmup:
                    yield at - 1, self._vector()

    def _store(self, rows: Floats) -> None:
        n = len(rows)
        if self._end + n > len(self._buffer):
            keep = min(self._end, self.length)
            self._buffer[:keep] = self._buffer[self._end - keep : self._end]
            self._end = keep
        self._buffer[self._end : self._end + n] = rows
        self._end += n
        bad = np.isnan(rows)
        if bad.any():
            self._last_nan = self._count + int(np.flatnonzero(bad.any(axis=1))[-1])
        self._count += n

    def _view(self, length: int) -> tuple[Floats, bool]:
        """Return the last rows, and whether all of them are good."""
        m = min(length, self._count)
        return self._buffer[self._end - m : self._end], self._last_nan < self._count - m

    def _advance(self) -> None:
        """Carry the statistics with a memory over the rows of one hop."""
        rows, good = self._view(self._hop)
        for i, (_, a, weights) in enumerate(self._ewma):
            smooth = self._smooth[i]
            if self._count == self._hop:
                smooth[:] = rows[0]
            if good and not np.isnan(smooth).any():
                smooth *= (1.0 - a) ** self._hop
                smooth += weights @ rows
            else:
                for row in rows:
                    fresh = np.where(np.isnan(smooth), row, smooth + a * (row - smooth))
                    smooth[:] = np.where(np.isnan(row), smooth, fresh)
        if self._all >= 0:
            self._add(self._total, rows, good=good)
        for i, (_, length) in enumerate(self._dev):
            if self._count - self._hop < length:
                self._add(self._begin[i], rows, good=good)

    @staticmethod
    def _add(sums: Floats, rows: Floats, *, good: bool) -> None:
        """Carry a count and a mean per channel on over some rows."""
        count, mean = sums
        if good:
            k = np.full(len(mean), len(rows))
            total = np.add.reduce(rows, axis=0)
        else:
            ok = ~np.isnan(rows)
            k = np.add.reduce(ok, axis=0)
            total = np.add.reduce(np.where(ok, rows, 0.0), axis=0)
        count += k
        mean += (total - k * mean) / np.maximum(count, 1.0)

    def _vector(self) -> Floats:
        out = np.empty((len(self._stats), self._channels))
        short_mean: Floats | None = None
        for wanted in self._wanted:
            view, good = self._view(wanted.length)
            mean = (
                self._fill(out, wanted.rows, view)
                if good
                else self._fill_gaps(out, wanted.rows, view)
            )
            if wanted.length == self._short and "mean" in wanted.rows:
                short_mean = mean
        newest = self._buffer[self._end - 1]
        if self._last >= 0:
            out[self._last] = newest
        for i, (row, _, _) in enumerate(self._ewma):
            out[row] = self._smooth[i]
        if self._all >= 0:
            out[self._all] = _mean(self._total)
        for i, (row, _) in enumerate(self._dev):
            out[row] = (newest if short_mean is None else short_mean) - _mean(self._begin[i])
        return out.ravel()

    def _fill(self, out: Floats, rows: dict[str, int], view: Floats) -> Floats:
        m = len(view)
        mean: Floats = np.add.reduce(view, axis=0)
        mean /= m
        if "mean" in rows:
            out[rows["mean"]] = mean
        if "std" in rows:
            centred = view - mean
            centred *= centred
            np.sqrt(np.add.reduce(centred, axis=0) / m, out=out[rows["std"]])
        if "min" in rows:
            np.minimum.reduce(view, axis=0, out=out[rows["min"]])
        if "max" in rows:
            np.maximum.reduce(view, axis=0, out=out[rows["max"]])
        if "slope" in rows:
            # Centred first: the weights sum to zero only up to rounding, times the offset.
            out[rows["slope"]] = self._slope_weights(m) @ (view - mean)
        return mean

    def _fill_gaps(self, out: Floats, rows: dict[str, int], view: Floats) -> Floats:
        ok = ~np.isnan(view)
        count = np.add.reduce(ok, axis=0)
        some = np.maximum(count, 1)
        mean: Floats = np.add.reduce(np.where(ok, view, 0.0), axis=0) / some
        mean[count == 0] = np.nan
        centred = np.where(ok, view - mean, 0.0)
        filled = {"mean": mean}
        if "std" in rows:
            filled["std"] = np.sqrt(np.add.reduce(centred**2, axis=0) / some)
        if "min" in rows:
            filled["min"] = np.minimum.reduce(np.where(ok, view, np.inf), axis=0)
        if "max" in rows:
            filled["max"] = np.maximum.reduce(np.where(ok, view, -np.inf), axis=0)
        if "slope" in rows:
            k = np.where(ok, np.arange(len(view), dtype=float)[:, None], 0.0)
            k = np.where(ok, k - np.add.reduce(k, axis=0) / some, 0.0)
            energy = np.add.reduce(k * k, axis=0)
            filled["slope"] = np.add.reduce(k * centred, axis=0) / np.where(energy > 0, energy, 1.0)
        for kind, row in rows.items():
            out[row] = np.where(count > 0, filled[kind], np.nan)
        return mean

    def _slope_weights(self, m: int) -> Floats:
        """Return the weights of a least-squares slope per row over ``m`` rows."""
        if m not in self._slopes:
            k = np.arange(m) - (m - 1) / 2.0
            self._slopes[m] = np.asarray(k / (float(k @ k) or 1.0), dtype=np.float64)
        return self._slopes[m]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        keep = min(self._count, self.length)
        tail = np.zeros((self.length, self._channels))
        tail[:keep] = self._buffer[self._end - keep : self._end]
        return {
            "window/tail": tail,
            "window/counts": np.array([self._count, self._last_nan]),
            "window/smooth": self._smooth.copy(),
            "window/total": self._total.copy(),
            "window/begin": self._begin.copy(),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        count, last_nan = (int(v) for v in arrays["window/counts"])
        keep = min(count, self.length)
        self._buffer[:keep] = arrays["window/tail"][:keep]
        self._end, self._count, self._last_nan = keep, count, last_nan
        self._smooth = np.array(arrays["window/smooth"])
        self._total = np.array(arrays["window/total"])
        self._begin = np.array(arrays["window/begin"])


def _mean(sums: Floats) -> Floats:
    count, mean = sums
    return np.where(count > 0, mean, np.nan)

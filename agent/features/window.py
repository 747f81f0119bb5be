"""Rolling statistics over the last rows of one asset, over all channels and hops at once.

Two passes over the window, not running sums: those lose all digits at an offset of 10⁶. What the
rows are cut into on the way in makes no difference, to the last bit: everything is computed at the
hop, from whole windows, and each vector by the same sums whatever others it is computed with.

Skewness and kurtosis are those of the population (not excess: 3 for a normal distribution), 0 where
a window does not vary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats

AT_ONCE = 16_384
"""Values in the windows that are computed together: they stay in the cache of a small processor."""

SIDE_BY_SIDE = 256
"""Values that one inner loop runs over where there are few channels."""

NONE = np.empty(0, dtype=np.int64)


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
        keep: rows that ``last_rows`` can be asked for.

    >>> window = Window(1, ("mean_2", "slope_3", "dev_2"), hop=1, warmup=2)
    >>> rows, X = window.push(np.array([[1.0], [3.0], [5.0]]))
    >>> rows.tolist(), X.tolist()
    ([1, 2], [[2.0, 2.0, 0.0], [4.0, 2.0, 2.0]])

    Each statistic of a few values; the last two, three or four are the window.

    >>> def of(stat, *values):
    ...     window = Window(1, (stat,), hop=len(values), warmup=1)
    ...     _, X = window.push(np.array(values, dtype=float)[:, None])
    ...     return round(float(X[0, 0]), 3)
    >>> of("last", 1, 3), of("mean_2", 1, 3, 5), of("mean_all", 1, 2, 6)
    (3.0, 4.0, 3.0)
    >>> of("std_2", 1, 3, 5), of("rms_2", 9, 3, 4)
    (1.0, 3.536)
    >>> of("min_2", 1, 5, 3), of("max_2", 9, 3, 5), of("peak_2", 1, -5, 3)
    (3.0, 5.0, 5.0)
    >>> of("crest_2", 9, 0, 4), of("skew_3", 0, 0, 3), of("kurt_4", 0, 0, 0, 4)
    (1.414, 0.707, 2.333)
    >>> of("slope_3", 1, 3, 5), of("ewma_3", 1, 3, 5), of("dev_2", 1, 3, 5, 7)
    (2.0, 3.5, 3.0)
    """

    def __init__(
        self, channels: int, stats: tuple[str, ...], *, hop: int, warmup: int, keep: int = 1
    ) -> None:
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
                self._ewma.append((row, a, weights[:, None]))
            elif kind == "dev":
                self._dev.append((row, int(digits)))
            else:
                by_length.setdefault(int(digits), {})[kind] = row
                if kind == "mean":
                    means.append(int(digits))
        self._remembers = bool(self._ewma or self._dev or self._all >= 0)
        self._wanted = [_Wanted(n, rows) for n, rows in sorted(by_length.items())]
        self._short = min(means, default=1)
        self.length = max([w.length for w in self._wanted] + [self._short, hop, keep])
        self._buffer = np.empty((2 * self.length + max(64, 2 * hop), channels))
        self._slopes: dict[int, Floats] = {}  # bounded: a window only grows to its length
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

    def __len__(self) -> int:
        return len(self._stats) * self._channels

    def until_hop(self) -> int:
        """Return how many rows are left until the next hop ends."""
        return self._hop - self._count % self._hop

    def last_rows(self) -> Floats:
        """Return the newest rows ``(m, C)``, oldest first, as many as are kept."""
        m = min(self.length, self._count)
        return self._buffer[self._end - m : self._end]

    def push(self, values: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Add rows ``(n, C)``, NaN where a value is bad; return a vector for each hop completed.

        Returns:
            the index in ``values`` of the row that completed each vector ``(k,)``, and the vectors
            ``(k, stats * C)``: statistic by statistic, each over all channels; NaN where a window
            holds no good value.
        """
        n = len(values)
        if self._count % self._hop + n < self._hop:  # most single rows
            self._store(values)
            return NONE, np.empty((0, len(self._stats) * self._channels))
        small = self._buffer
        keep = min(self._end, self.length)
        if n > len(small) - keep:
            # More than the buffer is for: one as large as it takes, for this once.
            self._buffer = np.concatenate([small[self._end - keep : self._end], values])
            self._end = keep
        before = self._count
        self._store(values)
        # Counts of rows of this life at which a hop ends, within these.
        first, last = before // self._hop + 1, self._count // self._hop
        ends = np.arange(first, last + 1) * self._hop
        ends = ends[ends >= self._warmup] if not self._remembers else ends
        X = self._vectors(ends) if len(ends) else np.empty((0, len(self)))
        whole = ends >= self._warmup
        if not whole.all():
            ends, X = ends[whole], X[whole]
        if self._buffer is not small:
            keep = min(self._end, self.length)
            small[:keep] = self._buffer[self._end - keep : self._end]
            self._buffer, self._end = small, keep
        return ends - before - 1, X

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

    def _vectors(self, ends: NDArray[np.int64]) -> Floats:
        """Return the vectors ``(k, stats * C)`` at some counts of rows, all in the buffer."""
        out = np.empty((len(ends), len(self._stats), self._channels))
        offset = self._end - self._count
        """Added to a count: the place in the buffer behind that row."""
        oldest = int(ends[0]) - self.length
        gaps = self._gaps(ends) if self._last_nan >= oldest else None
        short: Floats | None = None
        for wanted in self._wanted:
            length = wanted.length
            mean = np.empty((len(ends), self._channels))
            # Alike for all: as many rows, none of them bad.
            alike = ends >= length if gaps is None else (ends >= length) & (gaps < ends - length)
            plain: list[bool] = alike.tolist()
            if all(plain):
                self._fill_runs(out, mean, wanted, int(ends[0]) + offset, 0, len(ends))
            else:
                for k, end in enumerate(ends.tolist()):
                    if plain[k]:
                        self._fill_runs(out, mean, wanted, end + offset, k, k + 1)
                        continue
                    m = min(length, end)
                    view = self._buffer[end + offset - m : end + offset]
                    if gaps is None or gaps[k] < end - m:
                        self._fill(out[k : k + 1], mean[k : k + 1], wanted.rows, view[None].copy())
                    else:
                        mean[k] = self._fill_gaps(out[k], wanted.rows, view)
            if length == self._short and "mean" in wanted.rows:
                short = mean
        newest = self._buffer[ends - 1 + offset]
        if self._last >= 0:
            out[:, self._last] = newest
        if self._ewma or self._dev or self._all >= 0:
            level = newest if short is None else short
            self._carry(out, ends, offset, level, gaps)
        return out.reshape(len(ends), -1)

    def _gaps(self, ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, at each end, the index in this life of the last row with a bad value, or -1."""
        offset = self._end - self._count
        begin = max(int(ends[0]) - self.length, 0)
        rows = self._buffer[begin + offset : int(ends[-1]) + offset]
        bad = np.logical_or.reduce(np.isnan(rows), axis=1)
        index = np.where(bad, np.arange(begin, begin + len(bad)), -1)
        newest: NDArray[np.int64] = np.maximum.accumulate(index)[ends - 1 - begin]
        return newest

    def _carry(
        self,
        out: Floats,
        ends: NDArray[np.int64],
        offset: int,
        level: Floats,
        gaps: NDArray[np.int64] | None,
    ) -> None:
        """Carry the statistics with a memory over the rows of each hop."""
        hop = self._hop
        first = int(ends[0]) + offset - hop
        hops = self._buffer[first : int(ends[-1]) + offset].reshape(len(ends), hop, -1)
        good = [True] * len(ends) if gaps is None else (gaps < ends - hop).tolist()
        for i, (row, a, weights) in enumerate(self._ewma):
            news = np.add.reduce(hops * weights, axis=1)
            smooth = self._smooth[i]
            fading = (1.0 - a) ** hop
            known = not np.isnan(smooth).any()
            for k in range(len(ends)):
                if ends[k] == hop:
                    smooth[:] = hops[0, 0]
                    known = not np.isnan(smooth).any()
                if good[k] and known:
                    smooth *= fading
                    smooth += news[k]
                else:
                    for values in hops[k]:
                        fresh = np.where(np.isnan(smooth), values, smooth + a * (values - smooth))
                        smooth[:] = np.where(np.isnan(values), smooth, fresh)
                    known = not np.isnan(smooth).any()
                out[k, row] = smooth
        for k in range(len(ends)) if self._dev or self._all >= 0 else ():
            if self._all >= 0:
                self._add(self._total, hops[k], good=good[k])
                out[k, self._all] = _mean(self._total)
            for i, (row, length) in enumerate(self._dev):
                if ends[k] - hop < length:
                    self._add(self._begin[i], hops[k], good=good[k])
                out[k, row] = level[k] - _mean(self._begin[i])

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

    def _fill_runs(
        self, out: Floats, mean: Floats, wanted: _Wanted, end: int, first: int, last: int
    ) -> None:
        """Fill vectors ``first`` to ``last``, the first of which ends at ``end`` in the buffer."""
        length, width = wanted.length, self._channels
        most = max(AT_ONCE // (length * width), 1)
        for k in range(first, last, most):
            count = min(most, last - k)
            begin = end + (k - first) * self._hop - length
            rows = self._buffer[begin : begin + (count - 1) * self._hop + length]
            step, item = rows.strides
            overlapping = np.lib.stride_tricks.as_strided(
                rows, (count, length, width), (step * self._hop, step, item), writeable=False
            )
            # Laid out afresh: in which order numpy sums depends on the layout.
            self._fill(
                out[k : k + count], mean[k : k + count], wanted.rows, overlapping.copy(order="C")
            )

    def _fill(self, out: Floats, mean: Floats, rows: dict[str, int], view: Floats) -> None:
        """Fill vectors ``(k, stats, C)``, means ``(k, C)`` from windows ``(k, m, C)``, spoilt."""
        k, m, width = view.shape
        # Several rows beside each other: numpy's loops are over the last axis, and few channels
        # would leave them short. How many depends on nothing but the window's shape.
        fold = 1
        while m % (2 * fold) == 0 and 2 * fold * width <= SIDE_BY_SIDE:
            fold *= 2
        wide = view.reshape(k, m // fold, fold * width)

        def join(sums: Floats) -> Floats:
            joined: Floats = np.einsum("kfc->kc", sums.reshape(k, fold, width))
            return joined

        mean[:] = join(np.einsum("kmc->kc", wide))
        mean /= m
        if "mean" in rows:
            out[:, rows["mean"]] = mean
        low = high = None
        if rows.keys() & {"min", "peak", "crest"}:
            low = np.minimum.reduce(wide, axis=1).reshape(k, fold, width).min(axis=1)
        if rows.keys() & {"max", "peak", "crest"}:
            high = np.maximum.reduce(wide, axis=1).reshape(k, fold, width).max(axis=1)
        if rows.keys() <= {"mean", "min", "max"}:
            _extremes(out, rows, low, high, None)
            return
        wide -= np.tile(mean, fold)[:, None, :]
        if "slope" in rows:
            # Centred first: the weights sum to zero only up to rounding, times the offset.
            weights = self._slope_weights(m, fold)
            out[:, rows["slope"]] = join(np.einsum("kmc,mc->kc", wide, weights))
        square = wide * wide
        variance = join(np.einsum("kmc->kc", square))
        variance /= m
        if "std" in rows:
            out[:, rows["std"]] = np.sqrt(variance)
        rms = np.sqrt(variance + mean * mean) if rows.keys() & {"rms", "crest"} else None
        if rms is not None and "rms" in rows:
            out[:, rows["rms"]] = rms
        _extremes(out, rows, low, high, rms)
        if rows.keys() & {"skew", "kurt"}:
            flat = variance <= _FLAT * (mean * mean)
            some = np.where(flat, 1.0, variance)
            if "skew" in rows:
                third = join(np.einsum("kmc,kmc->kc", square, wide)) / m
                out[:, rows["skew"]] = np.where(flat, 0.0, third / (some * np.sqrt(some)))
            if "kurt" in rows:
                fourth = join(np.einsum("kmc,kmc->kc", square, square)) / m
                out[:, rows["kurt"]] = np.where(flat, 0.0, fourth / (some * some))

    def _fill_gaps(self, out: Floats, rows: dict[str, int], view: Floats) -> Floats:
        ok = ~np.isnan(view)
        count = np.add.reduce(ok, axis=0)
        some = np.maximum(count, 1)
        mean: Floats = np.add.reduce(np.where(ok, view, 0.0), axis=0) / some
        mean[count == 0] = np.nan
        centred = np.where(ok, view - mean, 0.0)
        variance = np.add.reduce(centred**2, axis=0) / some
        low = np.minimum.reduce(np.where(ok, view, np.inf), axis=0)
        high = np.maximum.reduce(np.where(ok, view, -np.inf), axis=0)
        peak = np.where(count > 0, np.maximum(np.abs(low), np.abs(high)), 0.0)
        rms = np.sqrt(variance + np.where(count > 0, mean, 0.0) ** 2)
        flat = variance <= _FLAT * np.where(count > 0, mean, 0.0) ** 2
        spread = np.where(flat, 1.0, variance)
        k = np.where(ok, np.arange(len(view), dtype=float)[:, None], 0.0)
        k = np.where(ok, k - np.add.reduce(k, axis=0) / some, 0.0)
        energy = np.add.reduce(k * k, axis=0)
        filled = {
            "mean": mean,
            "std": np.sqrt(variance),
            "rms": rms,
            "min": low,
            "max": high,
            "peak": peak,
            "crest": peak / np.where(rms > 0, rms, np.inf),
            "skew": np.where(
                flat, 0.0, np.add.reduce(centred**3, axis=0) / some / (spread * np.sqrt(spread))
            ),
            "kurt": np.where(
                flat, 0.0, np.add.reduce(centred**4, axis=0) / some / (spread * spread)
            ),
            "slope": np.add.reduce(k * centred, axis=0) / np.where(energy > 0, energy, 1.0),
        }
        for kind, row in rows.items():
            out[row] = np.where(count > 0, filled[kind], np.nan)
        return mean

    def _slope_weights(self, m: int, fold: int) -> Floats:
        """Return the weights of a least-squares slope per row over ``m`` rows, per value."""
        if m not in self._slopes:
            k = np.arange(m) - (m - 1) / 2.0
            weights = np.asarray(k / (float(k @ k) or 1.0), dtype=np.float64)
            self._slopes[m] = np.repeat(weights, self._channels).reshape(m // fold, -1)
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


_FLAT = 1e-28
"""Variance over squared mean up to which a window is rounding about one value."""


def _extremes(
    out: Floats, rows: dict[str, int], low: Floats | None, high: Floats | None, rms: Floats | None
) -> None:
    """Fill what follows from the least and the largest value of each window."""
    if low is not None and "min" in rows:
        out[:, rows["min"]] = low
    if high is not None and "max" in rows:
        out[:, rows["max"]] = high
    if low is None or high is None or not rows.keys() & {"peak", "crest"}:
        return
    peak = np.maximum(np.abs(low), np.abs(high))
    if "peak" in rows:
        out[:, rows["peak"]] = peak
    if "crest" in rows and rms is not None:
        out[:, rows["crest"]] = peak / np.where(rms > 0, rms, np.inf)

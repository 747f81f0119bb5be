"""A quantile sketch whose merge is a sum: counts of scores in fixed logarithmic bins."""

import numpy as np
from numpy.typing import NDArray

BINS = 256
LOW, HIGH = 1e-3, 1e5
_RATIO = np.log(HIGH / LOW) / BINS
"""Bins are 7.5 % wide: a quantile is known to 3.7 %."""


def bin_of(score: float) -> int:
    """Return the bin of a score.

    >>> bin_of(LOW), bin_of(0.0), bin_of(HIGH * 10)
    (0, 0, 255)
    """
    if score <= LOW:
        return 0
    return min(int(np.log(score / LOW) / _RATIO), BINS - 1)


def quantile(counts: NDArray[np.int64], q: float) -> float:
    """Return the upper edge of the bin in which the q-th quantile of the scores lies.

    >>> counts = np.zeros(BINS, dtype=np.int64)
    >>> counts[bin_of(1.0)] = 99
    >>> counts[bin_of(5.0)] = 1
    >>> 1.0 < quantile(counts, 0.9) < 1.1 < 5.0 < quantile(counts, 0.995) < 5.4
    True
    """
    total = int(counts.sum())
    if not total:
        raise ValueError("no scores yet")
    index = int(np.searchsorted(np.cumsum(counts), q * total))
    return float(LOW * np.exp((min(index, BINS - 1) + 1) * _RATIO))

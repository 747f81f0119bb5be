"""Finished lives as training rows: feature vectors and the hours that were left."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats


class Life(NamedTuple):
    """A life that ended in a failure.

    Attributes:
        asset: whose.
        life: which of its lives.
        X: raw feature vectors ``(n, F)``.
        y: hours left at each, up to the cap ``(n,)``.
    """

    asset: str
    life: int
    X: Floats
    y: Floats


def hours_left(t_ns: NDArray[np.int64], end_ns: int, cap_h: float) -> Floats:
    """Return the label of each row: hours to the failure, capped.

    >>> hours_left(np.array([0, 3_600_000_000_000]), 7_200_000_000_000, 1.5).tolist()
    [1.5, 1.0]
    """
    return np.clip((end_ns - t_ns) / 3.6e12, 0.0, cap_h)

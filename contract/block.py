"""A run of readings of channels of one asset that are sampled together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]

GOOD = 0
UNCERTAIN = 1
BAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Readings of some channels of one asset, in the order of arrival.

    Attributes:
        asset: which machine.
        channels: C names.
        t_ns: ``(n,)`` int64, nanoseconds since 1970 UTC; of the source's clock.
        values: ``(n, C)`` float64, in the channels' units; NaN where nothing was said.
    """

    asset: str
    channels: tuple[str, ...]
    t_ns: NDArray[np.int64]
    values: Floats

    def __len__(self) -> int:
        return len(self.t_ns)

"""Judge each value: there, finite, in range? Marks it; never repairs and never drops it."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.spec import Channel


class Reason(IntEnum):
    """Why a value is bad; what is bad reaches no model."""

    GOOD = 0
    MISSING = 1
    INFINITE = 2
    LOW = 3
    HIGH = 4


_LARGEST = np.finfo(np.float64).max


class Ranges:
    """The plausible range of each channel of an asset class."""

    def __init__(self, channels: tuple[Channel, ...]) -> None:
        self._low = np.array([-_LARGEST if c.low is None else c.low for c in channels])
        self._high = np.array([_LARGEST if c.high is None else c.high for c in channels])

    def judge(self, values: Floats) -> NDArray[np.uint8] | None:
        """Return a ``Reason`` per value ``(n, C)``, or None where all are good.

        >>> ranges = Ranges((Channel("flow", "m3/h", low=0, high=50),))
        >>> ranges.judge(np.array([[12.0], [np.nan], [-3.0]])).ravel().tolist()
        [0, 1, 3]
        """
        good = (values >= self._low) & (values <= self._high)
        if good.all():
            return None
        return np.select(
            [good, np.isnan(values), np.isinf(values), values < self._low],
            [Reason.GOOD, Reason.MISSING, Reason.INFINITE, Reason.LOW],
            Reason.HIGH,
        ).astype(np.uint8)

"""What a decoder finds in a payload: blocks of readings and bursts of a waveform.

The names of asset and channel may be left open: what the payload does not say, the topic or the
source's configuration does.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats


class Block(NamedTuple):
    """Readings of channels of one asset that are sampled together.

    Attributes:
        asset: "" where the payload does not say.
        channels: C names; a single "" where the payload does not say.
        t_ns: ``(n,)`` nanoseconds since 1970 UTC, in the order in which they came.
        values: ``(n, C)``, NaN where nothing was said of a channel.
        units: C units, or () where the payload names none.
        historical: sent after the fact, from a sender's own store.
    """

    asset: str
    channels: tuple[str, ...]
    t_ns: NDArray[np.int64]
    values: Floats
    units: tuple[str, ...] = ()
    historical: bool = False


class Burst(NamedTuple):
    """A stretch of one waveform channel, sampled without a gap.

    Attributes:
        asset: "" where the payload does not say.
        channel: "" where the payload does not say.
        t_ns: of the first sample, nanoseconds since 1970 UTC.
        rate_hz: samples a second.
        unit: "" where the payload names none.
        samples: ``(n,)``, float32; scaled to the unit.
    """

    asset: str
    channel: str
    t_ns: int
    rate_hz: float
    unit: str
    samples: NDArray[np.float32]

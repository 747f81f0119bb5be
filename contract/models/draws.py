"""Random numbers that two devices draw alike, whatever version of numpy they have."""

import numpy as np

from contract.arrays import Floats


def uniform(seed: int, count: int) -> Floats:
    """Return ``count`` numbers between 0 and 1, neither included.

    From the raw PCG64 stream, which numpy guarantees never to change.
    """
    raw = np.random.PCG64(seed).random_raw(count)
    return np.asarray(((raw >> np.uint64(11)) + 0.5) * 2.0**-53, dtype=np.float64)


def normal(seed: int, count: int) -> Floats:
    """Return ``count`` standard normal numbers, by Box and Muller's method."""
    drawn = uniform(seed, 2 * count)
    radius = np.sqrt(-2.0 * np.log(drawn[:count]))
    normal: Floats = radius * np.cos(2.0 * np.pi * drawn[count:])
    return normal

"""Series that machines are made of: lag, wander, day and night. Vectorised over time."""

import numpy as np

from contract.arrays import Floats

_DAY_S = 86400.0
_YEAR_DAYS = 365.2425


def lag(target: Floats, step_s: float, tau_s: float) -> Floats:
    """Follow ``target`` ``(n,)`` as a first-order lag does, settled at the beginning.

    >>> np.round(lag(np.array([0.0, 1.0, 1.0, 1.0]), 1.0, 1.0), 3).tolist()
    [0.0, 0.632, 0.865, 0.95]
    """
    keep = np.exp(-step_s / tau_s)
    kernel = (1 - keep) * keep ** np.arange(_memory(len(target), keep))
    follows: Floats = target[0] + np.convolve(target - target[0], kernel)[: len(target)]
    return follows


def wander(rng: np.random.Generator, n: int, step_s: float, tau_s: float) -> Floats:
    """Draw a stationary series ``(n,)`` of mean 0, deviation 1 and correlation time ``tau_s``."""
    keep = np.exp(-step_s / tau_s)
    memory = _memory(10 * n + 1000, keep)
    kernel = np.sqrt(1 - keep**2) * keep ** np.arange(memory)
    drawn: Floats = np.convolve(rng.standard_normal(n + memory - 1), kernel, mode="valid")
    return drawn


def daily(t: Floats, peak_h: float) -> Floats:
    """Return a day's wave over times in seconds UTC: 1 at ``peak_h`` o'clock, -1 half a day off.

    >>> daily(np.array([0.0, 43200.0]), 12.0).tolist()
    [-1.0, 1.0]
    """
    wave: Floats = np.cos(2 * np.pi * (t - peak_h * 3600.0) / _DAY_S)
    return wave


def yearly(t: Floats, warmest_day: float) -> Floats:
    """Return a year's wave over times in seconds UTC: 1 on a day of the year, -1 half a year off.

    >>> yearly(86400.0 * np.array([10.0, 192.62]), 10.0).round(3).tolist()
    [1.0, -1.0]
    """
    wave: Floats = np.cos(2 * np.pi * (t / _DAY_S - warmest_day) / _YEAR_DAYS)
    return wave


def _memory(n: int, keep: float) -> int:
    """Return how many steps back still matter (1 in 10⁹), at most ``n``."""
    return int(min(n, np.ceil(np.log(1e-9) / np.log(keep)) + 1))

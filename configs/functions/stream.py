"""How one quantity departs from its own past, at five scales; for ``configs/agent.nab.toml``.

Rows ``(m, 2)``: the value and the hour of the day. At 5 minutes a row 12 are an hour, 288 a day.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def step(rows: Rows) -> float:
    """Return the newest value less the mean of the hour before."""
    return float(rows[-1, 0]) - _mean(rows, 12, 1)


def level(rows: Rows) -> float:
    """Return the newest value less the mean of the day before."""
    return float(rows[-1, 0]) - _mean(rows, 288, 1)


def hours(rows: Rows) -> float:
    """Return the mean of two hours less that of the day before them."""
    return _mean(rows, 24) - _mean(rows, 288, 24)


def days(rows: Rows) -> float:
    """Return the mean of a day less that of the week before it."""
    return _mean(rows, 288) - _mean(rows, 2000, 288)


def season(rows: Rows) -> float:
    """Return the mean of half an hour less that of this hour of the days before; 0: not known."""
    past = rows[:-1]
    alike = past[past[:, 1] == rows[-1, 1], 0]
    return _mean(rows, 6) - float(alike.mean()) if len(alike) >= 3 else 0.0


def _mean(rows: Rows, width: int, back: int = 0) -> float:
    """Return the mean of as many values as there are, as it was some rows ago."""
    end = max(len(rows) - back, 1)
    begin = max(end - width, 0)
    return float(np.add.reduce(rows[begin:end, 0]) / (end - begin))

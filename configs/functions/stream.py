"""How one quantity departs from its own past, at five scales; for ``configs/agent.nab.toml``.

Rows ``(m, 2)``: the value and the hour of the day. At 5 minutes a row 12 are an hour, 288 a day.
"""

import numpy as np


def step(rows):
    """The newest value less the mean of the hour before."""
    return rows[-1, 0] - _mean(rows, 12, 1)


def level(rows):
    """The newest value less the mean of the day before."""
    return rows[-1, 0] - _mean(rows, 288, 1)


def hours(rows):
    """The mean of two hours less that of the day before them."""
    return _mean(rows, 24) - _mean(rows, 288, 24)


def days(rows):
    """The mean of a day less that of the week before it."""
    return _mean(rows, 288) - _mean(rows, 2000, 288)


def season(rows):
    """The mean of half an hour less that of this hour of the days before; 0: not known."""
    past = rows[:-1]
    alike = past[past[:, 1] == rows[-1, 1], 0]
    return _mean(rows, 6) - alike.mean() if len(alike) >= 3 else 0.0


def _mean(rows, width, back=0):
    """The mean of as many values as there are, as it was some rows ago."""
    end = max(len(rows) - back, 1)
    return np.add.reduce(rows[max(end - width, 0) : end, 0]) / (end - max(end - width, 0))

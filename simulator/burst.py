"""Writes waveform bursts, in the form of docs/payloads.md: as a converter of 16 bits gives them.

Agents have their own reader and writer; the two packages share none, only the description.
"""

import struct

import numpy as np

from contract.arrays import Floats

_HEADER = struct.Struct("<2sBBIdqddBB")
_INT16 = 1
_STEPS = 32767


def encode(samples: Floats, rate_hz: float, *, t_ns: int, unit: str, scale_end: float) -> bytes:
    """Write a burst; what is beyond ``scale_end``, both ways, is clipped there.

    >>> encode(np.array([0.0, 1.0, -99.0]), 10.0, t_ns=1, unit="g", scale_end=50.0)[42:].hex()
    '6700008f020180'
    """
    step = scale_end / _STEPS
    taken = np.clip(np.round(samples / step), -_STEPS, _STEPS).astype("<i2")
    name = unit.encode("ascii")
    head = _HEADER.pack(b"RW", 1, _INT16, taken.size, rate_hz, t_ns, step, 0.0, 0, len(name))
    return head + name + taken.tobytes()

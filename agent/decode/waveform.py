"""Waveform bursts: a small header and the samples as they are in memory, nothing parsed.

Little-endian; a payload is one burst or several, one after the other.

======  =======  ==================================================================================
offset  type     field
======  =======  ==================================================================================
0       2 bytes  ``RW``
2       uint8    version, 1
3       uint8    samples: 0 float32, 1 int16
4       uint32   count of samples, 1 to 1,048,576
8       float64  samples a second
16      int64    time of the first sample, ns since 1970 UTC; 0: the last one came on arrival
24      float64  scale: ``value = sample * scale + offset``
32      float64  offset
40      uint8    flags: 1 a checksum follows the samples; other bits are 0
41      uint8    length of the unit, at most 30
42      ASCII    the unit, then the samples
...     uint32   with flag 1: CRC-32 (zlib's) of all bytes of the burst before it
======  =======  ==================================================================================

The checksum is a choice of the sender: TCP and TLS have their own, and over a waveform it costs
more than all the rest of reading it; on a serial line, where nothing else protects, set it.
"""

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from agent.block import Burst
from contract.errors import DecodeError

MAGIC = b"RW"
MOST_SAMPLES = 1_048_576
"""In one burst."""
LONGEST_S = 86_400
"""Of one burst: what claims to last longer has a wrong rate."""
LONGEST_UNIT = 30

_VERSION = 1
_HEADER = struct.Struct("<2sBBIdqddBB")
_CHECKSUM = struct.Struct("<I")
_WITH_CHECKSUM = 1
_FLOAT32, _INT16 = 0, 1
_SIZES = (4, 2)
HEAD = _HEADER.size
"""Bytes of a burst by which its size is known."""


def encode(
    samples: NDArray[np.generic],
    rate_hz: float,
    *,
    t_ns: int = 0,
    unit: str = "",
    scale: float = 1.0,
    offset: float = 0.0,
    checksum: bool = False,
) -> bytes:
    """Write a burst; int16 samples are kept as the converter gave them, others become float32.

    >>> payload = encode(np.array([0, 1000, -1000], dtype=np.int16), 25600.0, unit="g", scale=1e-3)
    >>> burst, = decode(payload, at_ns=10**18)
    >>> burst.samples, burst.rate_hz, burst.unit
    (array([ 0.,  1., -1.], dtype=float32), 25600.0, 'g')
    """
    code = _INT16 if samples.dtype == np.int16 else _FLOAT32
    name = unit.encode("ascii")
    if not 1 <= samples.size <= MOST_SAMPLES or len(name) > LONGEST_UNIT:
        raise ValueError(
            f"{samples.size} samples in {unit!r}: a burst has 1 to {MOST_SAMPLES} samples, "
            f"and a unit at most {LONGEST_UNIT} letters"
        )
    body = (
        _HEADER.pack(
            MAGIC,
            _VERSION,
            code,
            samples.size,
            rate_hz,
            t_ns,
            scale,
            offset,
            _WITH_CHECKSUM if checksum else 0,
            len(name),
        )
        + name
        + samples.astype("<i2" if code == _INT16 else "<f4").tobytes()
    )
    return body + _CHECKSUM.pack(zlib.crc32(body)) if checksum else body


def decode(payload: bytes, at_ns: int) -> list[Burst]:
    """Read the bursts of a payload; float32 samples without a scale stay where they are.

    Samples that are no number are passed on: whether a burst is good is judged later.

    Raises:
        DecodeError: ``waveform`` (not this format, or its header cannot be), ``length``,
            ``time``, ``checksum``.
    """
    bursts: list[Burst] = []
    at = 0
    while True:
        burst, at = _read(payload, at, at_ns)
        bursts.append(burst)
        if at == len(payload):
            return bursts


def size_of(head: bytes) -> int:
    """Return how many bytes a burst has, by the first of them.

    >>> size_of(encode(np.zeros(100, dtype=np.int16), 10.0, unit="g"))
    243

    Raises:
        DecodeError: as ``decode``.
    """
    code, count, letters, flags = _sizes(head, 0)
    size = HEAD + letters + count * _SIZES[code]
    return size + (_CHECKSUM.size if flags else 0)


def time_of(head: bytes) -> int:
    """Return when a burst begins, by the first of its bytes; 0: it does not say.

    Raises:
        DecodeError: as ``decode``.
    """
    _sizes(head, 0)
    return int(_HEADER.unpack_from(head)[5])


def _sizes(payload: bytes, start: int) -> tuple[int, int, int, int]:
    """Return type and count of samples, letters of the unit, and flags, all within bounds."""
    if len(payload) - start < _HEADER.size:
        raise DecodeError(
            "length", f"{len(payload) - start} bytes are no burst: its header has {_HEADER.size}"
        )
    magic, version, code, count, _, _, _, _, flags, letters = _HEADER.unpack_from(payload, start)
    if magic != MAGIC or version != _VERSION:
        raise DecodeError(
            "waveform", f"begins with {payload[start : start + 3]!r}, not with RW and version 1"
        )
    if code > _INT16 or flags > _WITH_CHECKSUM or letters > LONGEST_UNIT:
        raise DecodeError(
            "waveform", f"sample type {code}, flags {flags} or unit length {letters} is unknown"
        )
    if not 1 <= count <= MOST_SAMPLES:
        raise DecodeError("length", f"{count} samples: a burst has 1 to {MOST_SAMPLES}")
    return code, count, letters, flags


def _read(payload: bytes, start: int, at_ns: int) -> tuple[Burst, int]:
    code, count, letters, flags = _sizes(payload, start)
    rate_hz, t_ns, scale, offset = _HEADER.unpack_from(payload, start)[4:8]
    first = start + _HEADER.size + letters
    end = first + count * _SIZES[code]
    total = end + (_CHECKSUM.size if flags else 0)
    if total > len(payload):
        raise DecodeError("length", f"{count} samples end {total - len(payload)} bytes too late")
    if flags:
        (said,) = _CHECKSUM.unpack_from(payload, end)
        if said != zlib.crc32(memoryview(payload)[start:end]):
            raise DecodeError("checksum", "the burst was damaged on its way: its CRC-32 differs")
    # Written so that what is not a number fails, too.
    if not (0 < rate_hz < math.inf and count <= rate_hz * LONGEST_S):
        raise DecodeError(
            "waveform", f"rate {rate_hz} Hz: must be above 0, and {count} samples last below a day"
        )
    if not (scale != 0 and math.isfinite(scale) and math.isfinite(offset)):
        raise DecodeError("waveform", f"scale {scale} and offset {offset} must be finite, not 0")
    unit = payload[start + _HEADER.size : first]
    if unit and not (unit.isascii() and unit.decode("ascii").isprintable()):
        raise DecodeError("waveform", f"unit {unit!r} is not printable ASCII")
    if t_ns < 0:
        raise DecodeError("time", f"time {t_ns} ns is before 1970")
    if t_ns == 0:
        t_ns = at_ns - round((count - 1) / rate_hz * 1e9)
    samples: NDArray[np.float32]
    if code == _FLOAT32:
        samples = np.frombuffer(payload, "<f4", count, first)
        if scale != 1.0 or offset != 0.0:
            samples = _scaled(samples, scale, offset)
    else:
        samples = _scaled(np.frombuffer(payload, "<i2", count, first), scale, offset)
    return Burst("", "", t_ns, rate_hz, unit.decode("ascii"), samples), total


def _scaled(
    raw: NDArray[np.float32] | NDArray[np.int16], scale: float, offset: float
) -> NDArray[np.float32]:
    # In float32 throughout (a scale beyond it becomes inf, which quality judges), without warnings.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        samples = raw * np.float32(scale)
        if offset != 0.0:
            samples = samples + np.float32(offset)
    return samples.astype(np.float32, copy=False)

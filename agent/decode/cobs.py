"""Records for a serial line: COBS frames, each with a CRC-16, that end with a zero byte.

COBS (Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking
7(2), 1999) writes any bytes without a zero, so that the zero ends a frame and a receiver that
joins in the middle, or lost bytes, is in step again at the next one.

A frame is the stuffed form of a body and the CRC-16 of it (polynomial 0x1021, from 0xFFFF, high
byte first), then a zero. The body of a reading, little-endian:

======  =========  ============================================================================
offset  type       field
======  =========  ============================================================================
0       uint8      version, 1
1       uint8      flags: 1 sent after the fact, from the sender's store; other bits are 0
2       uint64     time, ns since 1970 UTC; 0: on arrival
10      uint16     count of values
12      float32    the values, in the order of the channels; NaN for one that is missing
======  =========  ============================================================================
"""

import binascii
import itertools
import struct

import numpy as np
from numpy.typing import NDArray

from agent.block import Block
from contract.errors import DecodeError

MOST_VALUES = 1024
"""In one record."""

_VERSION = 1
_HISTORICAL = 1
_HEAD = struct.Struct("<BBQH")
_FULL = 0xFF
"""A code that says: 254 bytes follow, and no zero after them."""
_LONGEST_SHORT = 253
"""Up to so many bytes, a body and CRC are stuffed into one byte more, whatever they are."""
_LATEST_NS = 2**63 - 1
_SEED = 0xFFFF
_FEW = 24
"""From so many frames on, they are unstuffed together."""

Refused = list[tuple[bytes, DecodeError]]


def stuff(data: bytes) -> bytes:
    """Write bytes without a zero.

    >>> stuff(bytes([0x11, 0x22, 0x00, 0x33])).hex(" ")
    '03 11 22 02 33'
    """
    out = bytearray()
    for run in data.split(b"\0"):
        at = 0
        while len(run) - at >= _FULL - 1:
            out.append(_FULL)
            out += run[at : at + _FULL - 1]
            at += _FULL - 1
        out.append(len(run) - at + 1)
        out += run[at:]
    return bytes(out)


def unstuff(stuffed: bytes) -> bytes:
    """Read what ``stuff`` wrote; a last code of 1 after a full run may be there or not.

    Raises:
        DecodeError: ``cobs``.
    """
    out = bytearray()
    at = 0
    while at < len(stuffed):
        code = stuffed[at]
        end = at + code
        if code == 0 or end > len(stuffed):
            raise DecodeError("cobs", "a frame's inner lengths do not add up: bytes were lost")
        out += stuffed[at + 1 : end]
        at = end
        if code < _FULL and at < len(stuffed):
            out.append(0)
    return bytes(out)


def frame(body: bytes) -> bytes:
    """Add the CRC-16, stuff, and end with a zero.

    >>> unframe(frame(b"any bytes"))
    b'any bytes'
    """
    return stuff(body + binascii.crc_hqx(body, _SEED).to_bytes(2, "big")) + b"\0"


def unframe(framed: bytes) -> bytes:
    """Return the body of one frame, with or without its last zero.

    Raises:
        DecodeError: ``cobs``, ``checksum``.
    """
    data = unstuff(framed.removesuffix(b"\0"))
    if len(data) < 2 or binascii.crc_hqx(data, _SEED) != 0:
        raise DecodeError("checksum", "a frame was damaged on its way: its CRC-16 differs")
    return data[:-2]


def encode_record(values: list[float], t_ns: int = 0, *, historical: bool = False) -> bytes:
    """Write one reading of the channels as a frame."""
    head = _HEAD.pack(_VERSION, _HISTORICAL if historical else 0, t_ns, len(values))
    return frame(head + struct.pack(f"<{len(values)}f", *values))


def decode_records(
    payload: bytes, at_ns: int, columns: tuple[str, ...]
) -> tuple[list[Block], Refused]:
    """Read the frames of one read of a port; what is wrong with one costs no other.

    Records without a time, of one payload, are taken to have come a nanosecond apart, the last
    of them at ``at_ns``: they stay apart, and in order.

    Args:
        payload: whole frames; what follows the last zero is refused as cut off.
        at_ns: when it came.
        columns: of the values, in order; "" is left out.

    Returns:
        At most one block of live and one of historical readings, and per frame that was refused
        its bytes and the reason: ``cobs``, ``checksum``, ``record``, ``time``.
    """
    if not 1 <= len(columns) <= MOST_VALUES:
        raise ValueError(f"{len(columns)} columns: a record has 1 to {MOST_VALUES} values")
    layout = np.dtype(
        [
            ("version", "u1"),
            ("flags", "u1"),
            ("t_ns", "<u8"),
            ("count", "<u2"),
            ("values", "<f4", (len(columns),)),
            ("crc", "u1", (2,)),
        ]
    )
    size = layout.itemsize
    refused: Refused = []
    *frames, rest = payload.split(b"\0")
    if rest:
        refused.append((rest, DecodeError("cobs", "a frame is cut off: no zero ends it")))
    good: list[bytes] = []
    bodies = _unstuff_all(frames, size)
    for framed, data in zip(frames, bodies, strict=True):
        if data and len(data) == size and binascii.crc_hqx(data, _SEED) == 0:
            good.append(data)
        elif framed:
            refused.append((framed, _why(framed, len(columns))))
    if not good:
        return [], refused
    records = np.frombuffer(b"".join(good), layout)
    wrong = (
        (records["version"] != _VERSION)
        | (records["flags"] > _HISTORICAL)
        | (records["count"] != len(columns))
        | (records["t_ns"] > _LATEST_NS)
    )
    if wrong.any():
        refused += [
            (good[i], _wrong_record(good[i], len(columns))) for i in np.flatnonzero(wrong).tolist()
        ]
        records = records[~wrong]
    return _blocks(records, at_ns, columns), refused


def _unstuff_all(frames: list[bytes], size: int) -> list[bytes]:
    """Unstuff frames of ``size`` bytes; "" for those that are of another length or do not add up.

    All at once, a byte of each per step: what is a code and what is data differs by frame, so
    each frame has its own place of the next code.
    """
    fits = [len(framed) == size + 1 for framed in frames] if size <= _LONGEST_SHORT else []
    if sum(fits) < _FEW:
        return [_try_unstuff(framed) for framed in frames]
    stuffed = np.frombuffer(b"".join(itertools.compress(frames, fits)), np.uint8)
    stuffed = stuffed.reshape(-1, size + 1).T.copy()  # (byte, frame): a step is one run in memory
    data = np.empty((size, stuffed.shape[1]), np.uint8)
    code_at = stuffed[0].astype(np.int16)
    for j in range(1, size + 1):
        is_code = code_at == j
        np.multiply(stuffed[j], ~is_code, out=data[j - 1])  # a code stands for a zero
        np.add(code_at, stuffed[j], out=code_at, where=is_code)
    adds_up = (code_at == size + 1).tolist()
    joined = data.T.tobytes()
    rows = iter(joined[i * size : (i + 1) * size] if ok else b"" for i, ok in enumerate(adds_up))
    return [next(rows) if fit else b"" for fit in fits]


def _try_unstuff(framed: bytes) -> bytes:
    try:
        return unstuff(framed)
    except DecodeError:  # told by _why, with the frame
        return b""


def _why(framed: bytes, count: int) -> DecodeError:
    """Say what is wrong with a frame that is not one of ours."""
    try:
        body = unframe(framed)
    except DecodeError as error:
        return error
    return _wrong_record(body, count)


def _wrong_record(body: bytes, count: int) -> DecodeError:
    if len(body) < _HEAD.size:
        return DecodeError("record", f"a record of {len(body)} bytes: it has {_HEAD.size} or more")
    version, flags, t_ns, said = _HEAD.unpack_from(body)
    if version != _VERSION or flags > _HISTORICAL:
        return DecodeError("record", f"version {version} with flags {flags} is unknown")
    if said == count and t_ns > _LATEST_NS:
        return DecodeError("time", f"time {t_ns} ns is out of range")
    values = (len(body) - _HEAD.size) / 4
    return DecodeError(
        "record", f"says {said} values and has {values:g}: the configuration names {count} columns"
    )


def _blocks(records: NDArray[np.void], at_ns: int, columns: tuple[str, ...]) -> list[Block]:
    kept = [i for i, column in enumerate(columns) if column]
    names = tuple(columns[i] for i in kept)
    n = len(records)
    if n == 0 or not kept:
        return []
    values = records["values"].astype(np.float64)
    if len(kept) < len(columns):
        values = values[:, kept]
    t_ns = records["t_ns"].astype(np.int64)
    t_ns = np.where(t_ns == 0, at_ns - np.arange(n - 1, -1, -1, dtype=np.int64), t_ns)
    historical = records["flags"] == _HISTORICAL
    if not historical.any():
        return [Block("", names, t_ns, values)]
    parts = ((~historical, False), (historical, True))
    return [
        Block("", names, t_ns[rows], values[rows], (), flag) for rows, flag in parts if rows.any()
    ]

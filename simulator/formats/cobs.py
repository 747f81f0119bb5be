"""Records for a noisy serial line: float32 values and a CRC-16, stuffed so that a zero ends each.

The description is in docs/payloads.md; agents have their own reader, and nothing is shared.
"""

import binascii
import struct
from collections.abc import Sequence

from simulator.formats.batches import Form, Row

_HEAD = struct.Struct("<BBQH")
_FULL = 254


def cobs(rows: Sequence[Row]) -> Form:
    """Write a frame a row.

    >>> cobs([Row(0.0, "pump-1", {"flow": 12.5, "speed": 1480.0}, {})]).payload.hex(" ")
    '02 01 01 01 01 01 01 01 01 01 02 02 01 01 03 48 41 01 05 b9 44 6d 3f 00'
    """
    return Form(b"".join(_frame(row) for row in rows))


def _frame(row: Row) -> bytes:
    values = list(row.values.values())
    body = _HEAD.pack(1, 0, round(row.t * 1e9), len(values))
    body += struct.pack(f"<{len(values)}f", *values)
    body += binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "big")
    out = bytearray()
    for run in body.split(b"\0"):
        left = run
        while len(left) >= _FULL:
            out += b"\xff" + left[:_FULL]
            left = left[_FULL:]
        out += bytes([len(left) + 1]) + left
    return bytes(out) + b"\0"

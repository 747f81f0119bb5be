"""MATLAB's files of level 5, as far as measurements need it: real arrays of numbers, by name.

The MathWorks, *MAT-File Format*, version 5: a header of 128 bytes, then elements of a tag (type and
size) and data, padded to 8 bytes; a small one has its data within the tag. Level 7.3 is HDF5.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contract.arrays import Floats
from contract.errors import DataError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_NUMERIC = range(6, 16)  # classes double, single, and whole numbers
_COMPLEX = 0x08
_LARGEST = 2**31


class _Element(NamedTuple):
    kind: int
    data: memoryview


def load(path: Path) -> dict[str, Floats]:
    """Return the real numeric arrays of a file by their names; what else there is is passed over.

    Raises:
        DataError: it is no such file, or is cut off.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if content.startswith(b"\x89HDF") or b"HDF5" in content[:_HEADER]:
        raise DataError(f'{path.name}: level 7.3 (HDF5); in MATLAB, save it with "-v7"')
    order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER - 2 : _HEADER])
    if order is None:
        raise DataError(f"{path.name}: not a MATLAB file of level 5")
    arrays: dict[str, Floats] = {}
    try:
        for element in _elements(memoryview(content)[_HEADER:], order):
            matrix = element
            if matrix.kind == _COMPRESSED:
                plain = zlib.decompressobj().decompress(matrix.data, _LARGEST)
                (matrix,) = _elements(memoryview(plain), order)
            if matrix.kind == _MATRIX:
                named = _array(matrix.data, order)
                if named is not None:
                    arrays[named[0]] = named[1]
    except (struct.error, zlib.error, ValueError) as error:
        raise DataError(f"{path.name}: cut off or damaged ({error})") from error
    return arrays


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # small: both in the first word
            kind, size, first, at = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            first = at + 8
            # What is compressed is not padded.
            at = first + size + (0 if kind == _COMPRESSED else -size % 8)
        if first + size > len(data):
            raise ValueError(f"{size} bytes are said to be there, {len(data) - first} are")
        yield _Element(kind, data[first : first + size])


def _array(data: memoryview, order: str) -> tuple[str, Floats] | None:
    """Return name and values of a matrix; None: it is not of real numbers."""
    parts = _elements(data, order)
    flags = struct.unpack_from(f"{order}I", next(parts).data)[0]
    if flags & 0xFF not in _NUMERIC or flags >> 8 & _COMPLEX:
        return None
    shape = np.frombuffer(next(parts).data, f"{order}i4").tolist()
    name = bytes(next(parts).data).decode("ascii")
    values = next(parts, None)
    if values is None or values.kind not in _TYPES:
        raise ValueError(f"{name!r} has no numbers of a known type")
    numbers = np.frombuffer(values.data, order + _TYPES[values.kind])
    # Stored column by column; kept in the smallest type that holds them.
    return name, numbers.astype(np.float64).reshape(shape, order="F")

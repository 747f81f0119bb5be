"""The federation's journal as TensorBoard event files: a step for each training.

TFRecord framing (length, masked CRC32C, content, masked CRC32C) around ``Event`` messages with
scalar summaries; written here, as the few fields that takes are not worth TensorFlow.
"""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from contract import npz
from server.registry import Registry, cohorts

FILE = "events.out.tfevents.0.runout"
_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, reflected: RFC 3720, appendix B.4."""
_VERSION = b"brain.Event:2"


@cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ _POLYNOMIAL if byte & 1 else byte >> 1  # noqa: PLW2901
        table.append(byte)
    return tuple(table)


def crc32c(content: bytes) -> int:
    """Return the checksum of RFC 3720.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table, crc = _table(), 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(content: bytes) -> bytes:
    """Return one record of a TFRecord file."""
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def event(wall_s: float, step: int, scalars: dict[str, float]) -> bytes:
    """Return an ``Event`` message with scalars by tag."""
    values = b"".join(
        _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        for tag, value in scalars.items()
    )
    head = b"\x09" + struct.pack("<d", wall_s) + b"\x10" + _varint(step)
    return head + _field(5, values)


def content_of(registry: Registry) -> bytes:
    """Return the event file of a class: its journal, oldest first."""
    begin = b"\x09" + struct.pack("<d", 0.0) + _field(3, _VERSION)
    rows = [record(begin)]
    rows += [record(event(at, step, scalars)) for at, step, scalars in _scalars(registry)]
    return b"".join(rows)


def _scalars(registry: Registry) -> Iterator[tuple[float, int, dict[str, float]]]:
    step = 0
    for one in registry.journal():
        number = one.get("training")
        step = number if isinstance(number, int) else step
        at = one.get("t")
        found = {tag: float(v) for tag, v in _told(one) if isinstance(v, int | float)}
        if found and isinstance(at, int | float):
            yield float(at), step, found


def _told(one: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield tags and values of an event of the journal."""
    if one.get("event") == "phase":
        phase = str(one.get("phase", ""))
        yield f"seconds/{phase}", one.get("seconds")
        for key in ("asked", "accepted", "failed"):
            if isinstance(one.get(key), list | dict):
                yield f"{key}/{phase}", len(one[key])
        for key in ("rows", "nodes_in_sum"):
            yield f"{key}/{phase}", one.get(key)
    elif one.get("event") == "release":
        yield "release/version", one.get("version")
        contributors = one.get("contributors")
        yield "release/contributors", len(contributors) if isinstance(contributors, list) else None
        metrics = one.get("metrics")
        if isinstance(metrics, dict):
            for name, value in sorted(metrics.items()):
                yield f"heldout/{name}", value


def write(state: Path, out: Path) -> list[Path]:
    """Write a folder with an event file for each class; returns the files.

    Each is written whole again: TensorBoard reads what has changed.
    """
    paths = []
    for name in cohorts(state):
        folder = out / name.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        npz.write(path, content_of(Registry(state, name)), durable=False)
        paths.append(path)
    return paths

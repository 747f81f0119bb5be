"""Lines of separated values, as a serial port or an MQTT payload brings them, one or many.

.. code-block:: text

    12.5,1480,0.31
    1767225600.25;12.5;1480;0.31
    $12.5,1480,0.31*09

The configuration names the columns. Fields are separated by comma, semicolon or tab (found out);
an empty field is a value that is missing; a header line that equals the columns is skipped. A
line may end with ``*`` and two hexadecimal digits: the exclusive-or of all bytes before it but a
leading ``$``, as in NMEA 0183. It is verified where it is there, and can be demanded.

Times are as in ``agent.decode.json``: seconds, milliseconds, microseconds or nanoseconds since
1970 UTC, or ISO 8601 text with an offset. The decimal sign is the point.
"""

import functools
import operator
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from agent.block import Block
from agent.decode.json import time_ns
from contract.arrays import Floats
from contract.errors import DecodeError

_SEPARATORS = (b",", b";", b"\t")
_LATEST_NS = 2**63 - 1

Refused = list[tuple[bytes, DecodeError]]


def decode(
    payload: bytes,
    at_ns: int,
    columns: tuple[str, ...],
    time: str = "",
    *,
    checksum: bool = False,
) -> tuple[list[Block], Refused]:
    r"""Read lines into one block; what is wrong with one line costs no other.

    Lines of one payload, without a time column, are taken to have come a nanosecond apart, the
    last of them at ``at_ns``: they stay apart, and in order.

    Args:
        payload: whole lines.
        at_ns: when they came.
        columns: names of the fields in order; "" is left out.
        time: which of them bears the time; "": none does.
        checksum: a line without one is refused.

    Returns:
        No block or one, and per line that was refused its bytes and the reason: ``csv`` (not so
        many fields), ``number``, ``time``, ``checksum``.

    >>> (block,), refused = decode(b"12.5,1480\n,1490\n1.5,ready\n", 10**18, ("flow", "speed"))
    >>> block.values.tolist(), refused[0][0]
    ([[12.5, 1480.0], [nan, 1490.0]], b'1.5,ready')
    """
    kept = [i for i, column in enumerate(columns) if column and column != time]
    if not kept:
        raise ValueError("columns name no channel")
    if time and time not in columns:
        raise ValueError(f"the time column {time!r} is not one of the columns {columns}")
    refused: Refused = []
    if b"\r" in payload:
        payload = payload.replace(b"\r", b"\n")
    lines = [line for line in payload.split(b"\n") if line and not line.isspace()]
    if b"*" in payload or checksum:
        lines = _verified(lines, refused, required=checksum)
    if not lines:
        return [], refused
    separator = _separator(lines, len(columns))
    if _is_header(lines[0], separator, columns):
        del lines[0]
    most = len(columns) - 1
    if any(line.count(separator) != most for line in lines):
        whole = []
        for line in lines:
            if line.count(separator) == most:
                whole.append(line)
            else:
                refused.append((line, _miscounted(line, separator, columns)))
        lines = whole
    if not lines:
        return [], refused
    at = columns.index(time) if time else -1
    try:
        t_ns, values = _bulk(lines, separator, len(columns), kept, at)
    except (ValueError, OverflowError, DecodeError):
        t_ns, values = _one_by_one(lines, separator, columns, kept, at, refused)
    if len(values) == 0:
        return [], refused
    if t_ns is None:
        t_ns = at_ns - np.arange(len(values) - 1, -1, -1, dtype=np.int64)
    return [Block("", tuple(columns[i] for i in kept), t_ns, values)], refused


def add_checksum(line: bytes) -> bytes:
    """Write a line with the checksum of it.

    >>> add_checksum(b"12.5,1480")
    b'12.5,1480*39'
    """
    return b"%s*%02X" % (line, functools.reduce(operator.xor, line.removeprefix(b"$"), 0))


def _bulk(
    lines: list[bytes], separator: bytes, width: int, kept: list[int], at: int
) -> tuple[NDArray[np.int64] | None, Floats]:
    """Convert lines that are all clean, a column at a time."""
    fields = separator.join(lines).split(separator)
    values = np.empty((len(lines), len(kept)))
    for j, i in enumerate(kept):
        values[:, j] = _numbers(fields[i::width])
    return (None if at < 0 else _times(fields[at::width])), values


def _numbers(fields: list[bytes]) -> list[float]:
    try:
        numbers = list(map(float, fields))
    except ValueError:
        numbers = [float(x) if x and not x.isspace() else np.nan for x in fields]
    if b"_" in b"".join(fields):  # which Python's numbers may have, and no sender's
        raise ValueError
    return numbers


def _times(fields: list[bytes]) -> NDArray[np.int64]:
    joined = b"".join(fields)
    if joined.isdigit() and all(fields):
        t = np.array(list(map(int, fields)), dtype=np.int64)
        unit = np.where(
            t < 10**11, 10**9, np.where(t < 10**14, 10**6, np.where(t < 10**17, 1000, 1))
        )
        if (t > _LATEST_NS // unit).any():
            raise OverflowError
        return t * unit
    return np.array([_time(field) for field in fields], dtype=np.int64)


def _time(field: bytes) -> int:
    """Return nanoseconds since 1970 UTC."""
    text = field.strip()
    if b"_" in text:
        raise DecodeError("time", f"time {text!r} is no number")
    try:
        t: int | float | str = int(text) if text.isdigit() else float(text)
    except ValueError:
        try:
            t = text.decode("ascii")
        except UnicodeDecodeError as error:
            raise DecodeError("time", f"time {text!r} is no text") from error
    try:
        t_ns = time_ns(t)
    except (OverflowError, ValueError) as error:  # a moment before 1, or after 9999
        raise DecodeError("time", f"time {text!r} is out of range") from error
    if not 0 <= t_ns <= _LATEST_NS:
        raise DecodeError("time", f"time {text!r} is out of range")
    return t_ns


def _one_by_one(
    lines: Iterable[bytes],
    separator: bytes,
    columns: tuple[str, ...],
    kept: list[int],
    at: int,
    refused: Refused,
) -> tuple[NDArray[np.int64] | None, Floats]:
    """Convert line by line, because one or more of them cannot be."""
    times: list[int] = []
    rows: list[list[float]] = []
    for line in lines:
        fields = line.split(separator)
        try:
            row = [_number(fields[i], columns[i]) for i in kept]
            if at >= 0:
                times.append(_time(fields[at]))
        except DecodeError as error:
            if not _is_header(line, separator, columns):
                refused.append((line, error))
        else:
            rows.append(row)
    values = np.array(rows, dtype=np.float64).reshape(-1, len(kept))
    return (None if at < 0 else np.array(times, dtype=np.int64)), values


def _number(field: bytes, column: str) -> float:
    try:
        return _numbers([field])[0]
    except ValueError:
        hint = "; the decimal sign is the point" if any(s in field for s in _SEPARATORS) else ""
        raise DecodeError("number", f"{column} is {field!r}, which is no number{hint}") from None


def _separator(lines: list[bytes], width: int) -> bytes:
    """Return the separator that fits most lines; the comma where none does."""
    if all(line.count(b",") == width - 1 for line in lines) or width == 1:
        return b","
    fits = [sum(line.count(s) == width - 1 for line in lines) for s in _SEPARATORS]
    return _SEPARATORS[fits.index(max(fits))]


def _is_header(line: bytes, separator: bytes, columns: tuple[str, ...]) -> bool:
    fields = line.split(separator)
    return len(fields) == len(columns) and all(
        not column or field.strip() == column.encode()
        for field, column in zip(fields, columns, strict=True)
    )


def _miscounted(line: bytes, separator: bytes, columns: tuple[str, ...]) -> DecodeError:
    n = line.count(separator) + 1
    return DecodeError(
        "csv", f"{n} fields where the configuration names {len(columns)}: {', '.join(columns)}"
    )


def _verified(lines: list[bytes], refused: Refused, *, required: bool) -> list[bytes]:
    """Return the lines whose checksum is right, without it; all are summed at once."""
    bodies: list[bytes] = []
    said: list[bytes | None] = []
    for line in lines:
        body, star, digits = line.rstrip().rpartition(b"*")
        if star:
            bodies.append(body.removeprefix(b"$"))
            said.append(digits)
        elif required:
            refused.append((line, DecodeError("checksum", "the line bears no checksum (*HH)")))
        else:
            bodies.append(line.removeprefix(b"$"))
            said.append(None)
    if not bodies:
        return []
    # A zero after each line changes no sum, and gives an empty line a place.
    joined = np.frombuffer(b"\0".join([*bodies, b""]), np.uint8)
    ends = np.cumsum([len(body) + 1 for body in bodies])
    starts = np.concatenate(([0], ends[:-1]))
    sums = np.bitwise_xor.reduceat(joined, starts).tolist()
    good: list[bytes] = []
    for body, hexadecimal, total in zip(bodies, said, sums, strict=True):
        if hexadecimal is None or hexadecimal.upper() == b"%02X" % total:
            good.append(body)
        else:
            text = f"the line says {hexadecimal!r}, its bytes say {total:02X}"
            error = DecodeError("checksum", text)
            refused.append((body + b"*" + hexadecimal, error))
    return good

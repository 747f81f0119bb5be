"""Times as files write them: ISO 8601 with or without an offset, epochs, numbers of rows."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from agent.decode.json import time_ns
from contract.arrays import Floats
from contract.errors import DecodeError

Integers = NDArray[np.int64]

SCALE = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
FARTHEST_NS = 2**62
_ISO = re.compile(
    rb"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)?) ?(Z|[+-]\d\d:?\d\d)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = 1825, 2114
"""Years within ``FARTHEST_NS``."""


def offset_ns(text: str) -> int:
    """Return an offset from UTC.

    >>> offset_ns("-01:30") // 10**9, offset_ns("Z")
    (-5400, 0)
    """
    if text == "Z":
        return 0
    sign = -1 if text[0] == "-" else 1
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return sign * minutes * 60 * 10**9


def moment_ns(text: str, offset: str = "") -> int:
    """Read one moment as a person writes it: ISO 8601, or a number since 1970.

    Raises:
        ValueError: it is neither, or bears no offset and none is given.

    >>> moment_ns("2020-03-09 10:34:33", "+01:00") == moment_ns("1583746473")
    True
    """
    try:
        number: float = int(text) if text.isdigit() else float(text)
    except ValueError:
        return int(iso_ns([text.encode()], offset)[0])
    try:
        return time_ns(number)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def iso_ns(fields: Sequence[bytes], offset: str) -> Integers:
    """Return nanoseconds since 1970 UTC; raises ``ValueError`` naming the field.

    >>> iso_ns([b"1970-01-01T00:00:01", b"1970-01-01T00:00:02"], "Z").tolist()
    [1000000000, 2000000000]
    """
    found = _alike(fields, offset)
    return np.array([_one(field, offset) for field in fields]) if found is None else found


def _alike(fields: Sequence[bytes], offset: str) -> Integers | None:
    """Convert fields that are all written as the first is; None if they are not."""
    first = _ISO.fullmatch(fields[0])
    if first is None or b"," in fields[0]:
        return None
    given = first[2].decode() if first[2] else offset
    table = np.array(fields)
    length = table.dtype.itemsize
    letters = table.view(np.uint8).reshape(len(fields), length)
    kept = len(first[1])
    pattern = letters[0]
    digit = (pattern >= ord("0")) & (pattern <= ord("9"))
    digit[kept:] = False  # of the offset, every letter must be the same
    if not given or length != len(fields[0]) or (letters[:, ~digit] != pattern[~digit]).any():
        return None
    years = (letters[:, :4].astype(np.int64) - ord("0")) @ [1000, 100, 10, 1]
    if years.min() < _FIRST or years.max() > _LAST:
        return None
    try:
        times = table.astype(f"S{kept}").astype("datetime64[ns]").astype(np.int64)
    except ValueError:  # a 30th of February: the slow way names it
        return None
    return times - offset_ns(given)


def _one(field: bytes, offset: str) -> int:
    text = field.decode("utf-8", errors="replace")
    match = _ISO.fullmatch(field)
    if match is None:
        raise ValueError(f"{text!r} is no time in ISO 8601 (2026-01-31T08:00:00+01:00)")
    given = match[2].decode() if match[2] else offset
    if not given:
        raise ValueError(
            f"the time {text!r} has no offset from UTC: say it with --offset, for example +01:00"
        )
    whole, _, fraction = match[1].decode().replace(",", ".").partition(".")
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"the time {text!r} does not exist: {error}") from error
    if not _FIRST <= moment.year <= _LAST:
        raise ValueError(f"the time {text!r} is out of range")
    nanoseconds = int(fraction.ljust(9, "0")) if fraction else 0
    return (moment - _EPOCH) // timedelta(seconds=1) * 10**9 + nanoseconds - offset_ns(given)


def epoch_ns(fields: Sequence[bytes], unit: str) -> Integers:
    """Return nanoseconds since 1970 UTC; raises ``ValueError`` naming the field.

    >>> epoch_ns([b"1.5"], "auto").tolist(), epoch_ns([b"1583746473000"], "ms").tolist()
    ([1500000000], [1583746473000000000])
    """
    joined = b"".join(fields)
    if joined.isdigit() and all(fields):
        try:
            whole = np.array(list(map(int, fields)), dtype=np.int64)
        except OverflowError as error:
            raise ValueError("a time is out of range") from error
        scale = _scale(whole.astype(np.float64), unit)
        if (whole > FARTHEST_NS // scale).any():
            raise ValueError("a time is out of range")
        return whole * scale
    seconds = _numbers(fields)
    scale = _scale(np.abs(seconds), unit)
    if not (np.abs(seconds) < FARTHEST_NS / scale).all():
        raise ValueError("a time is out of range")
    floor = np.floor(seconds)
    rest = np.rint((seconds - floor) * scale).astype(np.int64)
    return floor.astype(np.int64) * scale + rest


def number_ns(fields: Sequence[bytes], start_ns: int, step_ns: int) -> Integers:
    """Return the times of numbered rows; raises ``ValueError`` naming the field.

    >>> number_ns([b"1", b"2.5"], 0, 10).tolist()
    [10, 25]
    """
    numbers = _numbers(fields)
    if not (np.abs(numbers) < (FARTHEST_NS - abs(start_ns)) / step_ns).all():
        raise ValueError("a row's number is out of range")
    floor = np.floor(numbers)
    rest = np.rint((numbers - floor) * step_ns).astype(np.int64)
    return start_ns + floor.astype(np.int64) * step_ns + rest


def _scale(size: Floats, unit: str) -> Integers:
    if unit != "auto":
        return np.full(len(size), SCALE[unit], dtype=np.int64)
    return np.where(
        size < 1e11, 10**9, np.where(size < 1e14, 10**6, np.where(size < 1e17, 1000, 1))
    )


def _numbers(fields: Sequence[bytes]) -> Floats:
    try:
        numbers = np.array(list(map(float, fields)))
    except ValueError:
        wrong = next(field for field in fields if not is_number(field))
        raise ValueError(f"{wrong.decode('utf-8', 'replace')!r} is not a number") from None
    if not np.isfinite(numbers).all() or any(b"_" in field for field in fields):
        raise ValueError("a time is not a finite number")
    return numbers


def is_number(field: bytes) -> bool:
    """Return whether a field is a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True

"""JSON payloads: one reading, one row of channels, an array of either, or columns.

=========================================  ======================================================
on ``.../<asset>/<channel>``               on ``.../<asset>/readings``
=========================================  ======================================================
``12.5``
``{"t": 1767225600, "v": 12.5}``           ``{"t": 1767225600, "v": {"flow": 12.5, "speed": 1480}}``
``[{"t": ..., "v": 12.5}, ...]``           ``[{"t": ..., "v": {...}}, ...]``
``{"t0": ..., "dt": 0.01, "v": [...]}``    ``{"t0": ..., "dt": 60, "v": {"flow": [...], ...}}``
``{"t": [...], "v": [...]}``               ``{"t": [...], "v": {"flow": [...], ...}}``
=========================================  ======================================================

Times are seconds, milliseconds, microseconds or nanoseconds since 1970 UTC, told apart by their
size (a second count of this century is below 10¹¹, and so on), or ISO 8601 text with an offset;
``dt`` is in seconds. A reading without a time was taken when it arrived. ``null`` is a value that
is missing; NaN and Infinity, which JSON does not have but some senders write, are read as such.
"""

import json
import math
from datetime import datetime

import msgspec

from contract.errors import DecodeError
from contract.report import LifeEvent

Number = float | None
Rows = tuple[list[int], list[list[Number]]]
"""Times in nanoseconds, and per row the values in the order of the wanted channels."""


class _Message(msgspec.Struct):
    v: float | list[Number] | dict[str, Number | list[Number]] | None
    t: int | float | str | list[int | float | str] | None = None
    t0: int | float | str | None = None
    dt: float | None = None


_decoder: msgspec.json.Decoder[_Message | list[_Message] | float | None] = msgspec.json.Decoder(
    _Message | list[_Message] | float | None
)
_event_decoder = msgspec.json.Decoder(LifeEvent)


def time_ns(t: float | str) -> int:
    """Return nanoseconds since 1970 UTC.

    >>> time_ns(1767225600) == time_ns(1767225600000) == time_ns("2026-01-01T00:00:00Z")
    True
    """
    if isinstance(t, str):
        try:
            moment = datetime.fromisoformat(t)
        except ValueError as error:
            raise DecodeError("time", f"time {t!r} is not ISO 8601") from error
        if moment.tzinfo is None:
            raise DecodeError("time", f"time {t!r} has no offset: end it with Z or +01:00")
        return int(moment.timestamp() * 1e6) * 1000
    size = abs(t)
    if not size < 1e20:  # also what is not a number
        raise DecodeError("time", f"time {t!r} is out of range")
    unit = 10**9 if size < 1e11 else 10**6 if size < 1e14 else 1000 if size < 1e17 else 1
    if isinstance(t, int):
        return t * unit
    whole = math.floor(t)
    return whole * unit + round((t - whole) * unit)


def decode_event(payload: bytes, at_ns: int) -> tuple[int, LifeEvent]:
    """Read a life event; its time in nanoseconds beside it."""
    try:
        event = _event_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("event", f"not a life event: {error}") from error
    return (at_ns if event.t is None else time_ns(event.t)), event


def decode(payload: bytes, at_ns: int) -> list[tuple[int, float | None | dict[str, Number]]]:
    """Read a payload into ``(time, value)`` pairs, value a number or a number per channel.

    Raises:
        DecodeError: ``json`` (not JSON), ``type`` (JSON of another shape), ``time``.
    """
    try:
        message = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise DecodeError("type", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = _decode_lenient(payload, error)
    if isinstance(message, _Message):
        v = message.v
        if isinstance(v, float) and isinstance(message.t, (int, float)):  # what most messages are
            return [(time_ns(message.t), v)]
        return _unfold(message, at_ns)
    if isinstance(message, list):
        return [pair for item in message for pair in _unfold(item, at_ns)]
    return [(at_ns, message)]


def _decode_lenient(payload: bytes, first: Exception) -> _Message | list[_Message] | float | None:
    """Read what is JSON but for NaN and Infinity, as Python and JavaScript senders write it."""
    try:
        raw = json.loads(payload)
    except (ValueError, RecursionError):
        raise DecodeError("json", f"not JSON: {first}") from first
    try:
        return msgspec.convert(raw, _Message | list[_Message] | float | None)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise DecodeError("type", str(error)) from error


def _unfold(message: _Message, at_ns: int) -> list[tuple[int, float | None | dict[str, Number]]]:
    v = message.v
    if isinstance(v, dict):
        columns = [x for x in v.values() if isinstance(x, list)]
        if columns:
            if len(columns) != len(v) or len({len(x) for x in columns}) != 1:
                raise DecodeError("type", "the columns of v must be lists of one length")
            times = _times(message, len(columns[0]), at_ns)
            return [
                (t, dict(zip(v, row, strict=True)))
                for t, row in zip(times, zip(*columns, strict=True), strict=True)
            ]
        return [(_time(message, at_ns), v)]  # type: ignore[list-item]  # no lists in it
    if isinstance(v, list):
        return list(zip(_times(message, len(v), at_ns), v, strict=True))
    return [(_time(message, at_ns), v)]


def _time(message: _Message, at_ns: int) -> int:
    if isinstance(message.t, list):
        raise DecodeError("time", "a list of times goes with a list of values")
    t = message.t if message.t is not None else message.t0
    return at_ns if t is None else time_ns(t)


def _times(message: _Message, n: int, at_ns: int) -> list[int]:
    if isinstance(message.t, list):
        if len(message.t) != n:
            raise DecodeError("time", f"{len(message.t)} times for {n} values")
        return [time_ns(t) for t in message.t]
    if message.dt is None or not 0 < message.dt < 1e9:
        raise DecodeError("time", "several values need dt (seconds, above 0) or a list of times t")
    step = round(message.dt * 1e9)
    if step < 1:
        raise DecodeError("time", "dt is below a nanosecond")
    start = _time(message, at_ns)
    return list(range(start, start + step * n, step))

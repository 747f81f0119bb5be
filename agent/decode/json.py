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
is missing; NaN and Infinity, which JSON does not have but some senders write, are read as such;
true is 1 and false is 0.

A message may name its asset, ``"asset": "pump-1"``, and its units, ``"u": "degF"`` or
``"u": {"flow": "l/min"}``, where the topic or the configuration says otherwise. Keys that mean
nothing here are left unread, but for those that others write for ``t`` and ``u``: they are refused.
"""

import json
import math
import re
from datetime import datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.block import Block
from contract.errors import DecodeError
from contract.report import LifeEvent

Number = float | bool | None
Row = dict[str, Number | list[Number]]
"""Values by channel; in a ``Reading`` none of them is a list."""
Reading = tuple[int, Number | Row]
"""One moment: nanoseconds since 1970 UTC, and a value without a name or some by channel."""


class _Message(msgspec.Struct):
    v: float | bool | list[Number] | dict[str, Number | list[Number]] | None
    t: int | float | str | list[int | float | str] | None = None
    t0: int | float | str | None = None
    dt: float | None = None
    asset: str = ""
    u: str | dict[str, str] = ""
    # What other senders call t and u: read as if it were not there, it would change what v means.
    time: None = None
    timestamp: None = None
    ts: None = None
    unit: None = None
    units: None = None


_MEANT = {"time": "t", "timestamp": "t", "ts": "t", "unit": "u", "units": "u"}
_MISNAMED = re.compile(rf"`\$(?:\[\.\.\.\]|\[\d+\])?\.({'|'.join(_MEANT)})`$")
_Payload = _Message | list[_Message] | float | bool | None
_decoder: msgspec.json.Decoder[_Payload] = msgspec.json.Decoder(_Payload)
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


def decode(payload: bytes, at_ns: int) -> Reading | list[Block]:
    """Read a payload: a reading without a name, or blocks.

    Raises:
        DecodeError: ``json`` (not JSON), ``type`` (JSON of another shape), ``time``.
    """
    message = _message(payload)
    if isinstance(message, _Message):
        v = message.v
        # What most messages are.
        if isinstance(v, float) and isinstance(message.t, (int, float)) and not message.u:
            return [_one(message, at_ns)] if message.asset else (time_ns(message.t), v)
        if (
            isinstance(v, dict)
            and not (message.u or message.asset)
            and list not in map(type, v.values())
        ):
            return _time(message, at_ns), v
        return [_block(message, at_ns)]
    if isinstance(message, list):
        return _gathered(message, at_ns)
    return (at_ns, message)


def decode_lines(payload: bytes, at_ns: int) -> tuple[list[Block], list[tuple[bytes, DecodeError]]]:
    """Read one message a line; a line that cannot be read costs no other."""
    messages: list[_Message] = []
    wrong: list[tuple[bytes, DecodeError]] = []
    for line in payload.split(b"\n"):
        if not line.strip():
            continue
        try:
            message = _object(line)
            _block(message, at_ns)  # here, and not among the others: it may be wrong in itself
            messages.append(message)
        except DecodeError as error:
            wrong.append((line, error))
    return _gathered(messages, at_ns), wrong


def _object(line: bytes) -> _Message:
    message = _message(line)
    if not isinstance(message, _Message):
        raise DecodeError("type", 'a line is an object, {"t": ..., "v": ...}')
    return message


def _message(payload: bytes) -> _Payload:
    try:
        message: _Payload = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise _shape(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_lenient(payload, error)
    return message


def _shape(error: Exception) -> DecodeError:
    misnamed = _MISNAMED.search(str(error))
    if misnamed is None:
        return DecodeError("type", str(error))
    key = misnamed[1]
    return DecodeError("type", f"{key!r} is not read: write it as {_MEANT[key]!r}")


def _decode_lenient(payload: bytes, first: Exception) -> _Payload:
    """Read what is JSON but for NaN and Infinity, as Python and JavaScript senders write it."""
    try:
        raw = json.loads(payload)
    except (ValueError, RecursionError):
        raise DecodeError("json", f"not JSON: {first}") from first
    try:
        message: _Payload = msgspec.convert(raw, _Payload)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise _shape(error) from error
    return message


def _gathered(messages: list[_Message], at_ns: int) -> list[Block]:
    """Join what speaks of the same channels, one message after the other, into one block."""
    blocks: list[Block] = []
    run: list[Block] = []
    for message in messages:
        block = _block(message, at_ns)
        if run and (run[0].asset, run[0].channels, run[0].units) != (
            block.asset,
            block.channels,
            block.units,
        ):
            blocks.append(_joined(run))
            run = []
        run.append(block)
    if run:
        blocks.append(_joined(run))
    return blocks


def _joined(run: list[Block]) -> Block:
    if len(run) == 1:
        return run[0]
    return run[0]._replace(
        t_ns=np.concatenate([block.t_ns for block in run]),
        values=np.concatenate([block.values for block in run]),
    )


def _one(message: _Message, at_ns: int) -> Block:
    units: tuple[str, ...] = ()
    if message.u:
        if not isinstance(message.u, str):
            raise DecodeError("type", "a single value has a single unit: write u as a string")
        units = (message.u,)
    value = np.nan if message.v is None else float(message.v)  # type: ignore[arg-type]
    return Block(
        message.asset, ("",), np.array([_time(message, at_ns)]), np.array([[value]]), units
    )


def _block(message: _Message, at_ns: int) -> Block:
    v = message.v
    units: tuple[str, ...] = ()
    if isinstance(v, list):
        if isinstance(message.u, dict):
            raise DecodeError("type", "one list of values has one unit: write u as a string")
        values = np.array(v, dtype=np.float64).reshape(-1, 1)
        units = (message.u,) if message.u else ()
        return Block(message.asset, ("",), _times(message, len(v), at_ns), values, units)
    if not isinstance(v, dict):
        return _one(message, at_ns)
    columns = [x for x in v.values() if isinstance(x, list)]
    if columns:
        if len(columns) != len(v) or len({len(x) for x in columns}) != 1:
            raise DecodeError("type", "the columns of v must be lists of one length")
        values = np.array(columns, dtype=np.float64).T
        times = _times(message, len(columns[0]), at_ns)
    else:
        values = np.array([list(v.values())], dtype=np.float64)
        times = np.array([_time(message, at_ns)])
    if message.u:
        if isinstance(message.u, str):
            raise DecodeError("type", "several channels have a unit each: write u as a table")
        units = tuple(message.u.get(name, "") for name in v)
    return Block(message.asset, tuple(v), times, values, units)


def _time(message: _Message, at_ns: int) -> int:
    if isinstance(message.t, list):
        raise DecodeError("time", "a list of times goes with a list of values")
    t = message.t if message.t is not None else message.t0
    return _in_range(at_ns if t is None else time_ns(t))


def _times(message: _Message, n: int, at_ns: int) -> NDArray[np.int64]:
    if isinstance(message.t, list):
        if len(message.t) != n:
            raise DecodeError("time", f"{len(message.t)} times for {n} values")
        return np.array([_in_range(time_ns(t)) for t in message.t], dtype=np.int64)
    if message.dt is None or not 0 < message.dt < 1e9:
        raise DecodeError("time", "several values need dt (seconds, above 0) or a list of times t")
    step = round(message.dt * 1e9)
    if step < 1:
        raise DecodeError("time", "dt is below a nanosecond")
    start = _time(message, at_ns)
    _in_range(start + step * n)
    return np.arange(start, start + step * n, step, dtype=np.int64)[:n]


def _in_range(t_ns: int) -> int:
    if not -(2**62) < t_ns < 2**62:
        raise DecodeError("time", "time is out of range")
    return t_ns

"""What a Sparkplug metric says: its value by datatype, its unit, its quality."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.decode.gather import Channel
from agent.decode.waveform import LONGEST_S, MOST_SAMPLES
from agent.sparkplug.schema import LATEST_MS, DataType
from contract.errors import DecodeError

GOOD, STALE, BAD = 192, 500, 0
"""Quality codes (section 6.4.9.1)."""
UNIT = "engUnit"
SAMPLE_RATE = "sampleRate"
"""Property of an array that is a waveform: samples a second; ours, the standard has none."""

_CONTROL = re.compile(r"bdSeq$|Node Control/|Device Control/")
_SIGNED = {DataType.Int8: 8, DataType.Int16: 16, DataType.Int32: 32, DataType.Int64: 64}
_UNSIGNED = {DataType.UInt8: 8, DataType.UInt16: 16, DataType.UInt32: 32, DataType.UInt64: 64}
_NUMERIC = frozenset({*_SIGNED, *_UNSIGNED, DataType.Float, DataType.Double, DataType.Boolean})
_NUMBERS = frozenset({"int_value", "long_value", "float_value", "double_value", "boolean_value"})
_WHOLE = frozenset({"int_value", "long_value"})
ARRAYS = {
    DataType.Int8Array: "<i1",
    DataType.Int16Array: "<i2",
    DataType.Int32Array: "<i4",
    DataType.Int64Array: "<i8",
    DataType.UInt8Array: "<u1",
    DataType.UInt16Array: "<u2",
    DataType.UInt32Array: "<u4",
    DataType.UInt64Array: "<u8",
    DataType.FloatArray: "<f4",
    DataType.DoubleArray: "<f8",
}
"""Element types, as numpy writes them."""


class Definition(NamedTuple):
    """What a birth says of a metric, and its data messages need not repeat.

    Attributes:
        name: as the node wrote it.
        datatype: a number of ``DataType``, or one that is not known.
        rate_hz: 0 where the birth names none.
        control: of the protocol, or a command: not a reading.
        channel: of its readings; the unit is "" where the birth names none.
    """

    name: str
    datatype: int
    rate_hz: float
    control: bool
    channel: Channel


def text(value: str | bytes) -> str:
    """Return a string field of protobuf's, which comes as bytes where it is not UTF-8."""
    if isinstance(value, bytes):
        raise DecodeError("text", f"{value[:40]!r} is not UTF-8")
    return value


def define(metric: Any, asset: str) -> Definition:
    """Read a metric of a birth."""
    unit, rate_hz = "", 0.0
    if metric.HasField("properties"):
        for key, value in _properties(metric):
            if key == UNIT and value.HasField("string_value"):
                unit = text(value.string_value)
            elif key == SAMPLE_RATE:
                rate_hz = _plain(value)
    name = text(metric.name)
    return Definition(
        name,
        metric.datatype,
        rate_hz,
        _CONTROL.match(name) is not None,
        Channel(asset, name.replace("/", "."), unit),
    )


def is_number(datatype: int) -> bool:
    """Whether such a metric is a reading."""
    return datatype in _NUMERIC


def number(metric: Any, datatype: int) -> float:
    """Return the value; NaN where it is null, or its quality is another than good.

    Whole numbers travel as unsigned ones: -5 as 4294967291. What they mean follows from the
    datatype.

    Raises:
        DecodeError: ``value``: not one that the datatype can have.
    """
    kind = metric.WhichOneof("value")
    if kind is None or metric.is_null:
        return math.nan
    if kind not in _NUMBERS:
        raise DecodeError("value", f"{_name(metric)} is a number, and came as {kind}")
    if metric.HasField("properties") and not _is_good(metric):
        return math.nan
    raw = getattr(metric, kind)
    if kind in _WHOLE:
        bits = _SIGNED.get(datatype)  # type: ignore[call-overload]
        if bits is not None:
            return float(_signed(raw, bits, metric))
        bits = _UNSIGNED.get(datatype)  # type: ignore[call-overload]
        if bits is not None and raw >> bits:
            raise DecodeError("value", f"{_name(metric)}: {raw} has more than {bits} bits")
    return float(raw)


def array(metric: Any, datatype: int) -> NDArray[np.float32] | None:
    """Return the elements of a numeric array; nothing where it is null, or its quality not good.

    Raises:
        DecodeError: ``value``.
    """
    if metric.is_null or (metric.HasField("properties") and not _is_good(metric)):
        return None
    data = metric.bytes_value
    element = np.dtype(ARRAYS[DataType(datatype)])
    count, left = divmod(len(data), element.itemsize)
    if left or not 1 <= count <= MOST_SAMPLES:
        raise DecodeError(
            "value",
            f"{_name(metric)}: {len(data)} bytes are no 1 to {MOST_SAMPLES} "
            f"elements of {element.itemsize} bytes",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(data, element).astype(np.float32, copy=False)


def check_rate(rate_hz: float, count: int) -> None:
    """Refuse a rate that a waveform cannot have.

    Raises:
        DecodeError: ``value``.
    """
    if not (0 < rate_hz < math.inf and count <= rate_hz * LONGEST_S):
        raise DecodeError("value", f"{SAMPLE_RATE} {rate_hz} Hz: {count} samples last below a day")


def time_ns(metric: Any, payload_ms: int, at_ns: int) -> int:
    """Return when the value was taken: the metric's own time, the payload's, or the arrival.

    Raises:
        DecodeError: ``time``.
    """
    ms = metric.timestamp or payload_ms
    if ms > LATEST_MS:
        raise DecodeError("time", f"{_name(metric)}: time {ms} ms is out of range")
    return int(ms) * 10**6 if ms else at_ns


def _signed(raw: int, bits: int, metric: Any) -> int:
    half = 1 << (bits - 1)
    if raw < half:
        return raw
    # The two's complement in as many bits as the type has, or in all of the field it travels in.
    for width in {bits, 32, 64}:
        if bits <= width and (1 << width) - half <= raw < 1 << width:
            return raw - (1 << width)
    raise DecodeError("value", f"{_name(metric)}: {raw} is no whole number of {bits} bits")


def _is_good(metric: Any) -> bool:
    return all(
        _plain(value) == GOOD for key, value in _properties(metric) if key.lower() == "quality"
    )


def _properties(metric: Any) -> list[tuple[str, Any]]:
    keys, values = metric.properties.keys, metric.properties.values
    if len(keys) != len(values):
        raise DecodeError(
            "properties", f"{_name(metric)}: {len(keys)} keys and {len(values)} values"
        )
    return [(text(key), value) for key, value in zip(keys, values, strict=True)]


def _plain(value: Any) -> float:
    kind = value.WhichOneof("value")
    return float(getattr(value, kind)) if kind in _NUMBERS else math.nan


def _name(metric: Any) -> str:
    return repr(metric.name[:80]) if metric.HasField("name") else f"alias {metric.alias}"

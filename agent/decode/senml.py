"""SenML, Sensor Measurement Lists (RFC 8428, 2018), as JSON and as CBOR.

A pack is an array of records; base fields (``bn bt bu bv bs bver``) hold from their record on,
until they come again. What a record then says is a reading:

===================  ==========================================================================
name ``bn`` + ``n``  after the last ``/`` or ``:`` the channel, before it the asset
unit ``u`` or        passed on as it is; "" where there is none
``bu``
value ``v``          with ``bv`` added to it
``vb``               1 or 0
sum ``s``            with ``bs`` added to it: of a channel of its own, ``<channel>.sum``, in
                     ``<unit>.s``
``vs``, ``vd``       no number: left out beside records that are, else the pack is refused
time ``bt`` + ``t``  below 2**28: seconds from now (negative: ago), else since 1970 UTC
===================  ==========================================================================

A record of base fields alone carries no reading. Fields that are not known are ignored, but where
their name ends with ``_`` the pack is refused, as section 4.4 demands.
"""

import functools
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import NoReturn

import cbor2
import msgspec
from msgspec import UNSET, UnsetType

from agent.block import Block
from agent.decode.gather import Channel, Series, gather
from contract.errors import DecodeError

VERSION = 10
"""Of the format, and what a pack without ``bver`` has."""
RELATIVE_S = 2**28
"""Times below are from now."""

_LATEST_S = 9.2e9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_LABELS = {
    -6: "bs", -5: "bv", -4: "bu", -3: "bt", -2: "bn", -1: "bver", 0: "n", 1: "u", 2: "v",
    3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
"""RFC 8428, table 4."""
_NUMBERS: tuple[type, ...] = (int, float, Decimal)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("bn", "bu", "n", "u", "vs"), (str,)),
    "vb": (bool,),
    "vd": (bytes,),
    "bver": (int,),
}
"""Of CBOR values; fields that are not listed are numbers."""
_TAGS = {*range(64), 100, 256, 258, 260, 261, 1004} - {2, 3, 4}
"""Of CBOR, that a reading has no use for: all but whole numbers and decimal fractions."""


class _Record(msgspec.Struct):
    bn: str | UnsetType = UNSET
    bt: float | UnsetType = UNSET
    bu: str | UnsetType = UNSET
    bv: float | UnsetType = UNSET
    bs: float | UnsetType = UNSET
    bver: int | UnsetType = UNSET
    n: str | UnsetType = UNSET
    u: str | UnsetType = UNSET
    v: float | UnsetType = UNSET
    vs: str | UnsetType = UNSET
    vb: bool | UnsetType = UNSET
    vd: str | bytes | UnsetType = UNSET
    s: float | UnsetType = UNSET
    t: float | UnsetType = UNSET
    ut: float | UnsetType = UNSET


class _JsonRecord(_Record):
    vd: str | UnsetType = UNSET


_json = msgspec.json.Decoder(list[_JsonRecord])
_json_any = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def split_name(name: str) -> tuple[str, str]:
    """Return asset and channel of a resolved name; the asset is "" where nothing precedes.

    >>> split_name("urn:dev:ow:10e2073a01080063:voltage"), split_name("pump-3/flow")
    (('urn:dev:ow:10e2073a01080063', 'voltage'), ('pump-3', 'flow'))
    >>> split_name("flow")
    ('', 'flow')
    """
    name = name.rstrip("/:")
    cut = max(name.rfind("/"), name.rfind(":"))
    return name[: max(cut, 0)].rstrip("/:"), name[cut + 1 :]


def decode_json(payload: bytes, at_ns: int) -> list[Block]:
    """Read a pack of ``application/senml+json``.

    Raises:
        DecodeError: ``json``, ``type`` (not a pack), ``field`` (one that must be understood),
            ``version``, ``name``, ``time``, ``value`` (none, several, or none that is a number).
    """
    try:
        records = _json.decode(payload)
        # A name that ends with "_", or one that may, escaped: only then is each looked at.
        if b'_"' in payload or b"\\u005" in payload:
            for record in _json_any.decode(payload):
                _check_labels(record)
    except msgspec.ValidationError as error:
        raise DecodeError("type", f"not a SenML pack: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("json", f"not JSON: {error}") from error
    return _resolve(records, at_ns)


def decode_cbor(payload: bytes, at_ns: int) -> list[Block]:
    """Read a pack of ``application/senml+cbor``.

    Raises:
        DecodeError: ``cbor``, and as for JSON.
    """
    try:
        pack = _cbor(payload)
    except (cbor2.CBORDecodeError, MemoryError, RecursionError) as error:
        raise DecodeError("cbor", f"not CBOR: {error}") from error
    if not isinstance(pack, list):
        raise DecodeError("type", "not a SenML pack: it is no array")
    try:
        return _resolve([_from_cbor(record) for record in pack], at_ns)
    except OverflowError as error:
        raise DecodeError("value", "a number is too large") from error


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a tag that SenML does not have")


_cbor = functools.partial(
    cbor2.loads, max_depth=8, semantic_decoders=dict.fromkeys(_TAGS, _refuse_tag)
)


def _from_cbor(raw: object) -> _Record:
    """Read a map with the labels of table 4; others are text."""
    if not isinstance(raw, dict):
        raise DecodeError("type", "not a SenML pack: a record is no map")
    _check_labels(label for label in raw if isinstance(label, str))
    record = _Record()
    for label, value in raw.items():
        name = _LABELS.get(label) if type(label) is int else None
        if name is None:
            continue
        kinds = _KINDS.get(name, _NUMBERS)
        if type(value) not in kinds:
            raise DecodeError("type", f"{name} (label {label}) is {type(value).__name__}")
        setattr(record, name, float(value) if kinds is _NUMBERS else value)
    return record


def _check_labels(labels: Iterable[str]) -> None:
    for label in labels:
        if label.endswith("_"):
            raise DecodeError("field", f"{label[:40]!r} must be understood, and is not")


class _Base(msgspec.Struct):
    """The base fields that hold at a record."""

    bn: str = ""
    bt: float = 0.0
    bt_ns: int = 0
    bu: str = ""
    bv: float | UnsetType = UNSET
    bs: float | UnsetType = UNSET
    version: int = 0

    def take(self, record: _Record) -> None:
        """Let the base fields of a record replace those before it."""
        if record.bn is not UNSET:
            self.bn = record.bn
        if record.bt is not UNSET:
            self.bt = record.bt
            self.bt_ns = _whole_ns(record.bt) if abs(record.bt) < _LATEST_S else 0
        if record.bu is not UNSET:
            self.bu = record.bu
        if record.bv is not UNSET:
            self.bv = record.bv
        if record.bs is not UNSET:
            self.bs = record.bs
        if record.bver is not UNSET:
            if not 1 <= record.bver <= VERSION:
                raise DecodeError("version", f"bver is above {VERSION} or below 1")
            if self.version not in {0, record.bver}:  # section 4.4: all records have the same
                raise DecodeError("version", f"bver {self.version} and {record.bver} in one pack")
            self.version = record.bver
        elif self.version == 0:
            self.version = VERSION


def _resolve(records: Iterable[_Record], at_ns: int) -> list[Block]:
    """Apply the base fields, section 4.6, and gather the readings by channel."""
    base = _Base()
    left_out = ""
    channels: dict[Channel, Series] = {}
    known: dict[tuple[str, str], Channel] = {}
    for record in records:
        base.take(record)
        n, s = record.n, record.s
        texts = (record.vs is not UNSET) + (record.vd is not UNSET)
        values = (record.v is not UNSET) + (record.vb is not UNSET) + texts
        if values > 1:
            raise DecodeError("value", "a record has more than one of v, vb, vs and vd")
        if not values and n is UNSET and s is UNSET and record.u is UNSET and record.t is UNSET:
            continue  # base fields alone
        name = base.bn if n is UNSET else base.bn + n
        unit = base.bu if record.u is UNSET else record.u
        channel = known.get((name, unit))
        if channel is None:
            channel = known[name, unit] = _channel(name, unit)
        t = 0.0 if record.t is UNSET else record.t
        if base.bt_ns and abs(t) < RELATIVE_S <= base.bt + t:  # what most records have
            t_ns = base.bt_ns + round(t * 1e9)
        else:
            t_ns = _time_ns(base.bt, t, at_ns)
        if s is not UNSET or base.bs is not UNSET:
            sums = Channel(channel.asset, f"{channel.name}.sum", f"{unit}.s" if unit else "s")
            times, readings = channels.setdefault(sums, ([], []))
            times.append(t_ns)
            readings.append((0.0 if s is UNSET else s) + (0.0 if base.bs is UNSET else base.bs))
        if texts:
            left_out = left_out or name
            continue
        value = _value(record, base)
        if value is None:
            if s is UNSET:
                raise DecodeError("value", f"{name!r} has neither a value nor a sum")
            continue
        times, readings = channels.setdefault(channel, ([], []))
        times.append(t_ns)
        readings.append(value)
    if not channels:
        if left_out:
            raise DecodeError("value", f"{left_out!r} is text or bytes: a reading is a number")
        raise DecodeError("value", "a pack without a reading")
    return gather(channels)


def _value(record: _Record, base: _Base) -> float | None:
    if record.vb is not UNSET:
        return float(record.vb)
    if record.v is UNSET:
        return None if base.bv is UNSET else base.bv
    return record.v if base.bv is UNSET else record.v + base.bv


def _channel(name: str, unit: str) -> Channel:
    if _NAME.fullmatch(name) is None:
        raise DecodeError(
            "name",
            f"name {name[:80]!r}: letters, digits and -:./_ are allowed, a letter or digit first"
            if name
            else "a record has no name: neither bn nor n",
        )
    return Channel(*split_name(name), unit)


def _time_ns(bt: float, t: float, at_ns: int) -> int:
    seconds = bt + t
    if seconds < RELATIVE_S:
        if not seconds > -_LATEST_S:
            raise DecodeError("time", f"time {seconds!r} s is out of range")
        t_ns = at_ns + round(seconds * 1e9)
        if t_ns < 0:
            raise DecodeError("time", f"{-seconds!r} s ago is before 1970")
        return t_ns
    if not seconds < _LATEST_S:
        raise DecodeError("time", f"time {seconds!r} s is out of range")
    # Apart, because their sum no longer holds what is small in one of them.
    return _whole_ns(bt) + _whole_ns(t)


def _whole_ns(seconds: float) -> int:
    if -RELATIVE_S < seconds < RELATIVE_S:
        return round(seconds * 1e9)
    # A double of this size holds a quarter of a microsecond: what is below is not the sender's.
    whole = math.floor(seconds)
    return whole * 10**9 + round((seconds - whole) * 1e6) * 1000

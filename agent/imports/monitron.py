"""Amazon Monitron's export: JSON records of its Kinesis stream, schemas 1 and 2, as they lie in S3.

Formats: Amazon Monitron User Guide, "Understanding the v1 data export schema" and "Understanding
the v2 data export schema" (docs.aws.amazon.com/Monitron/latest/user-guide/data-export-schema.html
and data-export-schema-v2.html): times in UTC as ``yyyy-mm-dd hh:mm:ss.SSS``, accelerations in
m/s², velocities in mm/s, temperatures in °C, ISO 20816 classes ``CLASS1`` to ``CLASS4``, and what a
technician chose when closing a failure. A file of Kinesis in S3 holds records one behind the
other, with or without line ends between them, plain or gzipped.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.files.times import moment_ns
from agent.imports.folder import Found, Machine, plain
from contract.errors import DataError

CLASSES = ("CLASS1", "CLASS2", "CLASS3", "CLASS4")
WELL = frozenset({"HEALTHY", "UNKNOWN"})
NOTHING_WRONG = frozenset({"NO_ISSUE", "UNDETERMINED", ""})
RENEWED = frozenset({"REPLACE", "OVERHAUL"})
_AXES = {"xAxis": "x", "yAxis": "y", "zAxis": "z"}
_TOTAL = {"rms": "rms", "absMax": "max", "absMin": "min", "crestFactor": "crest"}


class _Rms(msgspec.Struct, frozen=True):
    rms: float | None = None


class _Total(msgspec.Struct, frozen=True, rename="camel"):
    rms: float | None = None
    abs_max: float | None = None
    abs_min: float | None = None
    crest_factor: float | None = None


class _Band(msgspec.Struct, frozen=True):
    """The totals are ``totalVibration`` in schema 2; in 1, and in the words about 2, otherwise."""

    totalVibration: _Total | None = None  # noqa: N815  # as the schema writes it
    resultantVector: _Total | None = None  # noqa: N815
    xAxis: _Rms = _Rms()  # noqa: N815
    yAxis: _Rms = _Rms()  # noqa: N815
    zAxis: _Rms = _Rms()  # noqa: N815


class _Features(msgspec.Struct, frozen=True):
    acceleration: dict[str, _Band] = {}
    velocity: dict[str, _Band] = {}
    temperature: float | None = None


class _Iso(msgspec.Struct, frozen=True, rename="camel"):
    iso_class: str = ""


class _Models(msgspec.Struct, frozen=True):
    vibrationISO: _Iso = _Iso()  # noqa: N815


class _State(msgspec.Struct, frozen=True, rename="camel"):
    new_state: str
    previous_state: str = ""


class _Closure(msgspec.Struct, frozen=True, rename="camel"):
    failure_mode: str = ""
    failure_cause: str = ""
    action_taken: str = ""


class _Measurement(msgspec.Struct, frozen=True):
    features: _Features


class _Payload(msgspec.Struct, frozen=True, rename="camel"):
    asset_name: str
    position_name: str
    site_name: str = ""
    make: str = ""
    model: str = ""
    serial_number: str = ""
    features: _Features | None = None
    models: _Models = _Models()
    asset_state: _State | None = None
    closure_code: _Closure | None = None


class _Second(msgspec.Struct, frozen=True, rename="camel"):
    timestamp: str
    event_type: str
    event_payload: dict[str, object]
    event_id: str = ""
    version: str = "2.0"


class _First(msgspec.Struct, frozen=True, rename="camel"):
    timestamp: str
    site_display_name: str
    asset_display_name: str
    sensor_position_display_name: str
    measurement: _Measurement
    event_id: str = ""
    version: str = "1.0"
    models: _Models = _Models()
    asset_state: _State | None = None


def channels() -> dict[str, str]:
    """Return the channels a position has, with their units.

    >>> list(channels())[:3], channels()["temperature"]
    (['velocity_rms', 'velocity_max', 'velocity_min'], 'degC')
    """
    found: dict[str, str] = {}
    for quantity, unit in (("velocity", "mm/s"), ("acceleration", "m/s2")):
        found |= {
            f"{quantity}_{name}": "1" if name == "crest" else unit for name in _TOTAL.values()
        }
        found |= {f"{quantity}_{axis}": unit for axis in _AXES.values()}
    found |= {f"acceleration_wide_{axis}": "m/s2" for axis in _AXES.values()}
    return found | {"temperature": "degC"}


def read(files: list[Path], *, site: str = "", replaced_failed: bool = False) -> Found:
    """Read exports; of each position of each machine becomes an asset, ``machine.position``.

    What was wrong: from when a state left ``HEALTHY`` until a technician closed it with a failure
    mode. A state that nobody confirmed is the opinion of a model, and labels nothing.

    Args:
        files: in any order; records that came twice count once.
        site: whose machines to take; empty: all, if no name stands at two sites.
        replaced_failed: a confirmed failure that was mended by REPLACE or OVERHAUL ends a life.

    Raises:
        DataError: names the file, the record and what does not follow the schema.
    """
    found = Found("Amazon Monitron", channels(), order={"iso_class": CLASSES})
    seen: set[str] = set()
    sites: dict[str, str] = {}
    states: dict[str, list[tuple[int, _State, _Closure | None]]] = {}
    twice = others = 0
    for path in files:
        for place, record in _records(path):
            if not isinstance(record, dict):
                raise DataError(f"{place}: not an object, as each record of the export is")
            t_ns, event_id, said = _payload(place, record)
            if said is None:
                others += 1
                continue
            if event_id and event_id in seen:
                twice += 1
                continue
            seen.add(event_id)
            if site and said.site_name != site:
                continue
            asset = f"{plain(said.asset_name)}.{plain(said.position_name)}"
            if sites.setdefault(asset, said.site_name) != said.site_name:
                raise DataError(
                    f"{place}: {asset} stands at {sites[asset]!r} and at {said.site_name!r}: "
                    "import each site by itself, with --site"
                )
            machine = found.machines.setdefault(asset, Machine())
            _learn_facts(machine, said)
            if said.features is not None:
                machine.rows[t_ns] = _values(said.features)
            if said.asset_state is not None:
                states.setdefault(asset, []).append((t_ns, said.asset_state, said.closure_code))
    for asset, changes in states.items():
        _judge(found.machines[asset], changes, replaced_failed=replaced_failed)
    found.machines = {a: m for a, m in found.machines.items() if m.rows}
    if not found.machines:
        raise DataError(f"{files[0]}: no measurement{f' of site {site!r}' if site else ''} in it")
    found.notes = [
        f"{twice} records came twice, {others} were of gateways and sensors.",
        "Monitron measures once an hour, so the default windows of 16 rows are 16 hours.",
    ]
    return found


def _records(path: Path) -> Iterator[tuple[str, object]]:
    """Yield each record with its place; raises ``DataError``."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    decoder = json.JSONDecoder()
    at, number = 0, 0
    while True:
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1
        if at == len(text):
            return
        number += 1
        place = f"{path}: record {number}, line {text.count(chr(10), 0, at) + 1}"
        try:
            record, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error})") from error
        if isinstance(record, list):  # saved as one array
            yield from ((f"{place}, item {i}", item) for i, item in enumerate(record, start=1))
        else:
            yield place, record


def _payload(place: str, record: dict[str, object]) -> tuple[int, str, _Payload | None]:
    """Return time, id and content of a record; None: it says nothing of a machine."""
    try:
        if "eventPayload" in record or "eventType" in record:
            second = msgspec.convert(record, _Second)
            t_ns = moment_ns(second.timestamp, "Z")
            if second.event_type not in {"measurement", "assetStateTransition"}:
                return t_ns, second.event_id, None
            said = msgspec.convert(second.event_payload, _Payload)
            if second.event_type == "measurement" and said.features is None:
                raise DataError(f"{place}: a measurement without eventPayload.features")
            return t_ns, second.event_id, said
        first = msgspec.convert(record, _First)
        return (
            moment_ns(first.timestamp, "Z"),
            first.event_id,
            _Payload(
                first.asset_display_name,
                first.sensor_position_display_name,
                first.site_display_name,
                features=first.measurement.features,
                models=first.models,
                asset_state=first.asset_state,
            ),
        )
    except (msgspec.ValidationError, ValueError) as error:
        raise DataError(
            f"{place}: not a record of Monitron's export, schema 1 or 2: {error}"
        ) from error


def _values(features: _Features) -> dict[str, float]:
    found: dict[str, float | None] = {"temperature": features.temperature}
    for quantity, bands in (
        ("velocity", features.velocity),
        ("acceleration", features.acceleration),
    ):
        band = bands.get("band10To1000Hz", _Band())
        total = band.totalVibration or band.resultantVector or _Total()
        found |= {
            f"{quantity}_rms": total.rms,
            f"{quantity}_max": total.abs_max,
            f"{quantity}_min": total.abs_min,
            f"{quantity}_crest": total.crest_factor,
        }
        found |= {f"{quantity}_{_AXES[axis]}": getattr(band, axis).rms for axis in _AXES}
    wide = features.acceleration.get("band0To6000Hz", _Band())
    found |= {f"acceleration_wide_{_AXES[axis]}": getattr(wide, axis).rms for axis in _AXES}
    return {name: value for name, value in found.items() if value is not None}


def _learn_facts(machine: Machine, said: _Payload) -> None:
    iso_class = said.models.vibrationISO.iso_class
    facts = {
        "iso_class": iso_class if iso_class in CLASSES else "",
        "make": said.make,
        "model": said.model,
        "serial_number": said.serial_number,
    }
    machine.facts |= {name: word for name, word in facts.items() if word}


def _judge(
    machine: Machine,
    changes: list[tuple[int, _State, _Closure | None]],
    *,
    replaced_failed: bool,
) -> None:
    """Find the windows that a technician confirmed."""
    began: int | None = None
    for t_ns, state, closure in sorted(changes, key=lambda change: change[0]):
        if closure is not None and closure.failure_mode:
            if closure.failure_mode not in NOTHING_WRONG:
                machine.wrong.append((t_ns if began is None else began, t_ns))
                if replaced_failed and closure.action_taken in RENEWED:
                    machine.failed.append(t_ns)
            began = None
        elif state.new_state in WELL:
            began = None
        elif began is None:
            began = t_ns

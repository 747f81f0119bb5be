"""Tables of text, by a description of their columns: one's own in TOML, or a known recording's.

The keys are those of a description for ``runout-agent replay --format``, as far as they are needed
here, so that one file serves both.
"""

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from contract import units
from contract.arrays import Floats
from contract.config import load_toml
from contract.errors import DataError
from contract.topics import check_name
from simulator.recordings import text
from simulator.recordings.series import Series, intervals


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a column becomes.

    Attributes:
        channel: its name.
        unit: what the file has it in.
    """

    channel: str
    unit: str = "1"


class Time(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a row was taken.

    Attributes:
        column: that bears it: ISO 8601, or a number of seconds, or of steps; empty: rows follow one
            another.
        step_s: seconds from one row, or one number of the column, to the next.
        start: of step 0; with its offset from UTC.
        offset: from UTC, of times that say none: ``Z`` or ``+01:00``.
    """

    column: str = ""
    step_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    start: str = "1970-01-01T00:00:00Z"
    offset: str = "Z"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A description of columns.

    Attributes:
        separator: of fields.
        decimal: sign.
        names: of the columns, where the file has no header.
        asset: of a row: text with ``{column}``, ``{stem}`` and ``{folder}``.
        time: of a row.
        channels: by column.
        label: column that is not 0 where something is wrong.
        ignore: columns that are known and not played; others that are no channel are passed over.
        ends: ``failed``: an asset's last row is its failure.
    """

    channels: dict[str, Source]
    separator: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    decimal: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = "."
    names: tuple[str, ...] = ()
    asset: str = "{stem}"
    time: Time = Time()
    label: str = ""
    ignore: tuple[str, ...] = ()
    ends: str = ""


_NAMED = re.compile(r"\{([^{}]*)\}")


def load_map(path: Path) -> Table:
    """Read a description; raises ``ConfigError`` or ``DataError`` with the file and the key."""
    table = load_toml(path, Table)
    try:
        _check(table)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return table


def _check(table: Table) -> None:
    """Refuse what msgspec cannot see; the ``ValueError`` names the key."""
    if not table.channels:
        raise ValueError("channels: name at least one column")
    for source in table.channels.values():
        check_name(source.channel, "channel")
        units.check(source.unit)
    if table.ends not in {"", "failed"}:
        raise ValueError(f"ends = {table.ends!r}: only failed is known")
    if not table.time.column and table.time.step_s is None:
        raise ValueError("time: give column, or step_s and start")
    _when(table.time.start, "Z")
    _when("1970-01-01T00:00:00", table.time.offset)


def read(path: Path, table: Table) -> list[Series]:
    """Read one file; raises ``DataError`` with the place."""
    content = text.lines(path, "utf-8-sig")
    if not content:
        raise DataError(f"{path.name}: is empty")
    first = 1 if not table.names else 0
    header = table.names or tuple(_fields(content[0], table))
    place = {name: at for at, name in enumerate(header)}
    wanted = _wanted(path, table, place)
    assets: dict[str, list[tuple[float, list[float]]]] = {}
    for line, row in enumerate(content[first:], start=first + 1):
        fields = _fields(row, table)
        if len(fields) != len(header):
            raise text.wrong(path, line, None, f"{len(fields)} columns, expected {len(header)}")
        asset = _asset(path, table, place, fields)
        rows = assets.setdefault(asset, [])
        t = _time(path, table.time, place, fields, line, len(rows))
        rows.append((t, [_cell(path, line, at, fields[at], table.decimal) for at in wanted]))
    return [_series(asset, rows, table) for asset, rows in assets.items()]


def _fields(line: str, table: Table) -> list[str]:
    # A blank as separator: any number of them.
    fields = line.split() if table.separator == " " else line.split(table.separator)
    return [field.strip().strip('"') for field in fields]


def _wanted(path: Path, table: Table, place: dict[str, int]) -> list[int]:
    columns = [*table.channels, *([table.label] if table.label else [])]
    needed = [*columns, *([table.time.column] if table.time.column else [])]
    missing = [name for name in needed if name not in place]
    if missing:
        raise DataError(
            f"{path.name}: line 1: no column {missing[0]!r}; there are {', '.join(place)}"
        )
    return [place[name] for name in columns]


def _asset(path: Path, table: Table, place: dict[str, int], fields: list[str]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name == "stem":
            return text.stem(path)
        if name == "folder":
            return path.resolve().parent.name
        if name not in place:
            raise DataError(f"{path.name}: asset: no column {name!r}; there are {', '.join(place)}")
        return fields[place[name]]

    try:
        return check_name(_NAMED.sub(fill, table.asset), "asset")
    except ValueError as error:
        raise DataError(f"{path.name}: {error}") from error


def _time(
    path: Path, time: Time, place: dict[str, int], fields: list[str], line: int, row: int
) -> float:
    if not time.column:
        return _when(time.start, "Z") + row * (time.step_s or 1.0)
    at = place[time.column]
    field = fields[at]
    if time.step_s is not None:
        steps = text.number(path, line, at + 1, field)
        return _when(time.start, "Z") + steps * time.step_s
    try:
        return float(field)
    except ValueError:
        pass  # not seconds: a date
    try:
        return _when(field, time.offset)
    except ValueError as error:
        raise text.wrong(path, line, at + 1, f"{field!r} is no time") from error


def _when(said: str, offset: str) -> float:
    """Return seconds since 1970 of ISO 8601 text.

    >>> _when("1970-01-01 01:00:00", "+01:00")
    0.0
    """
    when = datetime.fromisoformat(said)
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.fromisoformat(f"1970-01-01T00:00:00{offset}").tzinfo)
    return when.astimezone(UTC).timestamp()


def _cell(path: Path, line: int, at: int, field: str, decimal: str) -> float:
    if not field or field.lower() in {"nan", "null", "na"}:
        return math.nan
    return text.number(path, line, at + 1, field.replace(decimal, "."))


def _series(asset: str, rows: list[tuple[float, list[float]]], table: Table) -> Series:
    t: Floats = np.array([when for when, _ in rows])
    values: Floats = np.array([row for _, row in rows])
    abnormal = None
    if table.label:
        abnormal = intervals(t, values[:, -1])
        values = values[:, :-1]
    names = {source.channel: source.unit for source in table.channels.values()}
    return Series(asset, names, t, values, abnormal, failed=table.ends == "failed")

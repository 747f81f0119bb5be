"""Amazon Lookout for Equipment: data sets as they were ingested, labels, and what was inferred.

Formats: Amazon Lookout for Equipment User Guide, "Formatting your data" (a CSV for all sensors, or
one for each, the first column a timestamp, sensors behind it; in a folder for each component),
"Labeling your data" (a CSV without header: start and end of abnormal behaviour) and "Reviewing
inference results in a JSON file" (JSON lines: ``timestamp``, ``prediction`` 0 or 1,
``anomaly_score``, ``diagnostics``); docs.aws.amazon.com/lookout-for-equipment/latest/ug/. Times
bear no offset there.
"""

import csv
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.files.times import moment_ns, offset_ns
from agent.imports.folder import Found, Machine, plain
from contract.errors import ConfigError, DataError

_YEAR_FIRST = re.compile(
    r"(\d{4})([-/ ]?)(\d{1,2})\2(\d{1,2})[-T ](\d{1,2})[-:](\d{2})(?:[-:](\d{2})(\.\d{1,9})?)?"
)
_YEAR_LAST = re.compile(
    r"(\d{1,2})([-/ ])(\d{1,2})\2(\d{4})[T ](\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?"
)
_NOTHING = frozenset({"", "nan", "null", "none", "na", "n/a"})


class _Sensor(msgspec.Struct):
    name: str
    value: float


class _Result(msgspec.Struct):
    timestamp: str
    prediction: int
    prediction_reason: str = ""
    anomaly_score: float | None = None
    diagnostics: list[_Sensor] = []


def time_ns(text: str, offset: str, *, day_first: bool = False) -> int:
    """Return a time in nanoseconds since 1970 UTC.

    Args:
        text: year, month, day, or month, day, year (US), or seconds or milliseconds since 1970.
        offset: from UTC, of times that bear none: ``Z`` or ``+01:00``.
        day_first: where the year is last, the day is first.

    Raises:
        ValueError: it is none of these.

    >>> time_ns("2020/1/1 0:05", "Z") == time_ns("1/1/2020 0:05", "Z") == 1577837100 * 10**9
    True
    """
    text = text.strip()
    if match := _YEAR_FIRST.fullmatch(text):
        year, _, month, day, *clock = match.groups()
    elif match := _YEAR_LAST.fullmatch(text):
        month, _, day, year, *clock = match.groups()
        if day_first:
            month, day = day, month
    else:
        return moment_ns(text, offset)
    hour, minute, second, fraction = clock
    moment = datetime(
        int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC
    )
    part = round(float(fraction or 0) * 1e9)
    return int(moment.timestamp()) * 10**9 + part - offset_ns(offset)


def read(
    paths: list[Path],
    *,
    asset: str,
    offset: str,
    labels: Path | None = None,
    results: Path | None = None,
    units: dict[str, str] | None = None,
    day_first: bool = False,
) -> Found:
    """Read a data set: that of one machine, as Lookout keeps them.

    Args:
        paths: folders of CSV files, or such files. Channels of a file in a folder below one that
            was given bear the folder's name, the component, before their own.
        asset: the machine's name; Lookout knows it by the data set only.
        offset: from UTC of all times.
        labels: CSV of times at which something was wrong.
        results: JSON lines of what was inferred; used where there are no ``labels``.
        units: of channels; of the others it is ``1``: Lookout keeps none.
        day_first: where a year is last, the day is first.

    Raises:
        DataError: names file, line and column.
        ConfigError: a unit is given to a channel that is not there.
    """
    machine = Machine()
    names: dict[str, None] = {}
    files = 0
    for path in paths:
        for file, component in _files(path):
            files += 1
            _table(file, component, machine, names, offset, day_first=day_first)
    if not machine.rows:
        raise DataError(f"{paths[0]}: no row in {files} CSV files")
    given = units or {}
    for name in given:
        if name not in names:
            raise ConfigError(f"--unit {name}: there is no such channel; there are {list(names)}")
    notes = [f"{name}: say its unit; Lookout keeps none." for name in names if name not in given]
    if labels is not None:
        machine.wrong = _labels(labels, offset, day_first=day_first)
    elif results is not None:
        machine.wrong = _inferred(results, offset, day_first=day_first)
        notes.append("labels.json is what Lookout inferred, and not what was found.")
    found = Found("Lookout for Equipment", {name: given.get(name, "1") for name in names})
    found.machines[plain(asset)] = machine
    found.notes = notes
    return found


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    if not path.is_dir():
        yield path, ""
        return
    found = sorted(path.rglob("*.csv"))
    if not found:
        raise DataError(f"{path}: no .csv in this folder or those below")
    for file in found:
        yield file, "" if file.parent == path else file.relative_to(path).parts[0]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _table(
    path: Path,
    component: str,
    machine: Machine,
    names: dict[str, None],
    offset: str,
    *,
    day_first: bool,
) -> None:
    rows = _rows(path)
    line, header = next(rows, (1, []))
    if len(header) < 2:
        raise DataError(f"{path}:{line}: a timestamp and at least one sensor are a table")
    before = f"{plain(component)}_" if component else ""
    columns = [before + plain(name) for name in header[1:]]
    if len(set(columns)) < len(columns) or "" in columns:
        raise DataError(f"{path}:{line}: each sensor needs a name of its own: {header[1:]}")
    names |= dict.fromkeys(columns)
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}:{number}: {len(row)} cells, {len(header)} in the header")
        try:
            t_ns = time_ns(row[0], offset, day_first=day_first)
        except ValueError as error:
            raise DataError(f"{path}:{number}, column {header[0]!r}: {error}") from error
        values = machine.rows.setdefault(t_ns, {})
        for name, cell, title in zip(columns, row[1:], header[1:], strict=True):
            if cell.strip().casefold() in _NOTHING:
                continue
            try:
                value = float(cell)
            except ValueError as error:
                raise DataError(
                    f"{path}:{number}, column {title!r}: {cell[:40]!r} is no number"
                ) from error
            if math.isfinite(value):
                values[name] = value


def _labels(path: Path, offset: str, *, day_first: bool) -> list[tuple[int, int]]:
    found = []
    for number, row in _rows(path):
        if len(row) != 2:
            raise DataError(f"{path}:{number}: {len(row)} cells; a label is a start and an end")
        try:
            start, end = (time_ns(cell, offset, day_first=day_first) for cell in row)
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}; a label file has no header") from error
        if end < start:
            raise DataError(f"{path}:{number}: ends before it starts")
        found.append((start, end))
    return found


def _inferred(path: Path, offset: str, *, day_first: bool) -> list[tuple[int, int]]:
    """Return the runs of results that were predicted abnormal."""
    found: list[tuple[int, int]] = []
    running = False
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            result = msgspec.json.decode(line, type=_Result)
            t_ns = time_ns(result.timestamp, offset, day_first=day_first)
        except (msgspec.DecodeError, ValueError) as error:
            raise DataError(f"{path}:{number}: not a result of an inference: {error}") from error
        if result.prediction and running:
            found[-1] = (found[-1][0], t_ns)
        elif result.prediction:
            found.append((t_ns, t_ns))
        running = bool(result.prediction)
    return found

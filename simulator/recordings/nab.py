"""Numenta Anomaly Benchmark: one value over time; windows of anomalies in a file of their own.

Lavin and Ahmad, *Evaluating real-time anomaly detection algorithms: the Numenta Anomaly Benchmark*,
ICMLA 2015. Layout: ``data/<category>/<file>.csv``, ``labels/combined_windows.json``.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from contract.errors import DataError
from simulator.recordings.series import Series
from simulator.recordings.table import Source, Table, Time, read
from simulator.recordings.text import found

TABLE = Table({"value": Source("value")}, time=Time(column="timestamp"))
_LABELS = "combined_windows.json"
Windows = dict[str, list[tuple[datetime, datetime]]]


def load(where: Path) -> list[Series]:
    """Read all files below a folder; with their windows where the file of labels is there."""
    windows = _windows(where)
    loaded = []
    for path in found(where, ("*.csv",), "NAB"):
        (series,) = read(path, TABLE)
        key = f"{path.parent.name}/{path.name.removesuffix('.gz')}"
        if windows is not None and key in windows:
            times = [
                (begin.replace(tzinfo=UTC).timestamp(), end.replace(tzinfo=UTC).timestamp())
                for begin, end in windows[key]
            ]
            series = replace(series, abnormal=tuple(sorted(times)))
        loaded.append(series)
    return loaded


def _windows(where: Path) -> Windows | None:
    folders = (where, *where.resolve().parents[:3])
    paths = [path for folder in folders for path in (folder / "labels" / _LABELS, folder / _LABELS)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[str, str]]])
        return {
            key: [(datetime.fromisoformat(a), datetime.fromisoformat(b)) for a, b in windows]
            for key, windows in raw.items()
        }
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path}: not windows as NAB has them ({error})") from error

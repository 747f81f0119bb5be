"""Tennessee Eastman process: 52 variables each 3 minutes; in the tests a fault begins at row 160.

Downs and Vogel, *A plant-wide industrial process control problem*, Computers and Chemical
Engineering 17 (1993); the files of Russell, Chiang and Braatz: ``d00.dat`` stored transposed.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contract.arrays import Floats
from contract.errors import DataError
from simulator.recordings import text
from simulator.recordings.series import Series

CHANNELS = tuple(f"xmeas_{i}" for i in range(1, 42)) + tuple(f"xmv_{i}" for i in range(1, 12))
STEP_S = 180.0
FAULT_ROW = 160
_START_T = datetime(1993, 1, 1, tzinfo=UTC).timestamp()


def load(where: Path) -> list[Series]:
    """Read all ``d*.dat`` of a folder, each a plant of its own."""
    return [_read(path) for path in text.found(where, ("d[0-9][0-9]*.dat",), "TEP")]


def _read(path: Path) -> Series:
    rows: list[list[float]] = []
    for line, row in enumerate(text.lines(path), start=1):
        fields = row.split()
        if rows and len(fields) != len(rows[0]):
            raise text.wrong(path, line, None, f"{len(fields)} columns, expected {len(rows[0])}")
        rows.append([text.number(path, line, at, field) for at, field in enumerate(fields, 1)])
    values: Floats = np.array(rows, dtype=np.float64)
    if values.ndim == 2 and values.shape[0] == len(CHANNELS) != values.shape[1]:
        values = values.T
    if values.ndim != 2 or values.shape[1] != len(CHANNELS):
        raise DataError(f"{path.name}: neither rows nor columns are {len(CHANNELS)}")
    t: Floats = _START_T + STEP_S * np.arange(len(values), dtype=np.float64)
    name = text.stem(path)
    healthy = name.startswith("d00")
    first = FAULT_ROW if name.endswith("_te") else 0
    abnormal = () if healthy else ((float(t[first]), float(t[-1])),)
    return Series(name, dict.fromkeys(CHANNELS, "1"), t, np.ascontiguousarray(values), abnormal)

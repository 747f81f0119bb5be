"""FEMTO-ST PRONOSTIA: bearings run to failure in hours, a snapshot of 0.1 s each 10 s.

Nectoux et al., *PRONOSTIA: an experimental platform for bearings accelerated degradation tests*,
IEEE PHM 2012. Either the recordings themselves, ``Bearing1_1/acc_00001.csv``..., whose snapshots
become waveform bursts, or a table of features of them.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contract.arrays import Floats
from contract.errors import DataError
from simulator.recordings import text
from simulator.recordings.series import Burst, Series
from simulator.recordings.table import Source, Table, Time, read

RATE_HZ = 25_600.0
EVERY_S = 10.0
_START = "2010-01-01T00:00:00Z"
_START_T = datetime(2010, 1, 1, tzinfo=UTC).timestamp()
_FEATURES = "rms:g std:g kurt:1 skew:1 peak:g p2p:g crest:1 shape:1 b0:1 b1:1 b2:1 b3:1 b4:1"
_PAIRS = [pair.split(":") for pair in _FEATURES.split()]
TABLE = Table(
    {f"{a}_{name}": Source(f"{a}_{name}", unit) for a in "hv" for name, unit in _PAIRS},
    asset="{bearing}",
    time=Time(column="idx", step_s=EVERY_S, start=_START),
    ends="failed",
)


def load(where: Path) -> list[Series]:
    """Read the bearings below a folder; those of a folder ``Learning_set`` have failed."""
    if where.is_file() or not list(where.rglob("acc_*.csv*")):
        tables = text.found(where, ("femto_features*.csv",), "a table of FEMTO's features")
        return [series for path in tables for series in read(path, TABLE)]
    bearings: dict[Path, list[Path]] = {}
    for path in text.found(where, ("acc_*.csv",), "FEMTO"):
        bearings.setdefault(path.parent, []).append(path)
    return [_bearing(folder, paths) for folder, paths in bearings.items()]


def _bearing(folder: Path, paths: list[Path]) -> Series:
    bursts = []
    for at, path in enumerate(paths):
        samples = _snapshot(path)
        t = _START_T + EVERY_S * at
        bursts += [
            Burst(t, channel, RATE_HZ, "g", samples[:, column])
            for column, channel in enumerate(("h", "v"))
        ]
    failed = any("learning" in part.lower() for part in folder.resolve().parts)
    nothing = np.empty((0, 0))
    return Series(folder.name, {}, np.empty(0), nothing, None, failed, tuple(bursts))


def _snapshot(path: Path) -> Floats:
    """Return horizontal and vertical acceleration ``(n, 2)``: the last columns, behind the time."""
    rows = []
    for line, row in enumerate(text.lines(path), start=1):
        fields = row.replace(";", ",").split(",")
        if len(fields) != 6:
            raise text.wrong(path, line, None, f"{len(fields)} columns, expected 6")
        rows.append([text.number(path, line, at, fields[at - 1]) for at in (5, 6)])
    if not rows:
        raise DataError(f"{path.name}: is empty")
    return np.array(rows)

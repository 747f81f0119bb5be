"""UCI gas turbine CO and NOx: a real plant, hourly, a file a year; rows follow one another.

Kaya, Tüfekci and Uzun, *Predicting CO and NOx emissions from gas turbines*, Turkish Journal of
Electrical Engineering and Computer Sciences 27 (2019). Some headers have blanks that are none of
the name. Documented as mbar, CDP can only be bar: a compressor that delivers 10 mbar does not.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contract.arrays import Floats
from simulator.recordings.series import Series
from simulator.recordings.table import Source, Table, Time, read
from simulator.recordings.text import found

_UNITS = {
    "AT": "degC",
    "AP": "mbar",
    "AH": "%RH",
    "AFDP": "mbar",
    "GTEP": "mbar",
    "TIT": "degC",
    "TAT": "degC",
    "TEY": "MWh",
    "CDP": "bar",
    "CO": "mg/m3",
    "NOX": "mg/m3",
}
HOUR_S = 3600.0
TABLE = Table(
    {name: Source(name, unit) for name, unit in _UNITS.items()},
    asset="gasturbine",
    time=Time(step_s=HOUR_S),
)


def load(where: Path) -> list[Series]:
    """Read all years as one series, an hour a row from 2011 on."""
    years = [read(path, TABLE)[0] for path in found(where, ("gt_20*.csv",), "the gas turbine")]
    values = np.concatenate([year.values for year in years])
    start_t = datetime(2011, 1, 1, tzinfo=UTC).timestamp()
    t: Floats = start_t + HOUR_S * np.arange(len(values), dtype=np.float64)
    return [replace(years[0], t=t, values=values)]

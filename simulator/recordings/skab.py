"""Skoltech Anomaly Benchmark: a water circuit, a row a second, ``anomaly`` is the label.

Katser and Kozitsin, *Skoltech Anomaly Benchmark (SKAB)*, 2020. Layout: ``data/<group>/<n>.csv``.
"""

from pathlib import Path

from simulator.recordings.series import Series
from simulator.recordings.table import Source, Table, Time, read
from simulator.recordings.text import found

TABLE = Table(
    {
        "Accelerometer1RMS": Source("accelerometer_1", "g"),
        "Accelerometer2RMS": Source("accelerometer_2", "g"),
        "Current": Source("current", "A"),
        "Pressure": Source("pressure", "bar"),
        "Temperature": Source("temperature", "degC"),
        "Thermocouple": Source("thermocouple", "degC"),
        "Voltage": Source("voltage", "V"),
        "Volume Flow RateRMS": Source("flow", "l/min"),
    },
    separator=";",
    asset="{folder}-{stem}",
    time=Time(column="datetime"),
    label="anomaly",
)


def load(where: Path) -> list[Series]:
    """Read all labelled files below a folder."""
    groups = ("valve1/*.csv", "valve2/*.csv", "other/*.csv")
    return [series for path in found(where, groups, "SKAB") for series in read(path, TABLE)]

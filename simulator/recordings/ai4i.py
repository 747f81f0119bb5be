"""AI4I 2020: made-up milling, a part a row, taken as a minute; ``Machine_failure`` is the label.

Matzka, *Explainable artificial intelligence for predictive maintenance applications*, AI4I 2020.
"""

from pathlib import Path

from simulator.recordings.series import Series
from simulator.recordings.table import Source, Table, Time, read
from simulator.recordings.text import found

TABLE = Table(
    {
        "Air temperature [K]": Source("air_temperature", "K"),
        "Process temperature [K]": Source("process_temperature", "K"),
        "Rotational speed [rpm]": Source("speed", "rpm"),
        "Torque [Nm]": Source("torque", "Nm"),
        "Tool wear [min]": Source("tool_wear", "min"),
    },
    asset="mill",
    time=Time(column="UDI", step_s=60, start="2020-01-01T00:00:00Z"),
    label="Machine_failure",
)


def load(where: Path) -> list[Series]:
    """Read ``ai4i2020.csv``."""
    return [series for path in found(where, ("ai4i*.csv",), "AI4I") for series in read(path, TABLE)]

"""The descriptions of well-known recordings in their original forms, and how they are recognised.

========== =====================================================================================
cmapss     turbofan engines, run to failure or cut off (Saxena et al. 2008): blanks, no header; a
           cycle is an hour, as ``runout-simulator replay`` plays them
skab       Skoltech Anomaly Benchmark: a water circuit, a row a second, ``anomaly`` is the label
nab        Numenta Anomaly Benchmark: ``timestamp,value``; its windows by ``--labels``
gasturbine UCI gas turbine CO and NOx: rows an hour apart, years one after the other
tep        Tennessee Eastman process (Downs and Vogel 1993): ``d00``, ``d01_te``...; blanks, no
           header, a row each 3 minutes, ``d00`` stored transposed
ai4i       AI4I 2020: made-up milling; the rows are parts, a minute apart here
femto      features of FEMTO-ST PRONOSTIA bearings (Nectoux et al. 2012), a snapshot each 10 s
========== =====================================================================================
"""

from agent.files import times
from agent.files.parse import BadFieldError, separator_of, split
from agent.files.table import Source, Table, Time

_TURBOFAN = (
    "setting_1:kft setting_2:1 setting_3:deg T2:degR T24:degR T30:degR T50:degR P2:psia P15:psia "
    "P30:psia Nf:rpm Nc:rpm epr:1 Ps30:psia phi:pps/psi NRf:rpm NRc:rpm BPR:1 farB:1 htBleed:1 "
    "Nf_dmd:rpm PCNfR_dmd:rpm W31:lbm/s W32:lbm/s"
)
_TENNESSEE = tuple(f"xmeas_{i}" for i in range(1, 42)) + tuple(f"xmv_{i}" for i in range(1, 12))
_SNAPSHOT = "rms:g std:g kurt:1 skew:1 peak:g p2p:g crest:1 shape:1 b0:1 b1:1 b2:1 b3:1 b4:1"


def _sources(text: str) -> dict[str, Source]:
    """Read ``column:unit`` pairs; columns are called as their channels."""
    pairs = (pair.partition(":") for pair in text.split())
    return {name: Source(name, unit) for name, _, unit in pairs}


_CMAPSS_CHANNELS = _sources(_TURBOFAN)

FORMATS: dict[str, Table] = {
    "csv": Table(),
    "cmapss": Table(
        separator=" ",
        names=("unit", "cycle", *_CMAPSS_CHANNELS),
        asset="{stem}-{unit}",
        time=Time(column="cycle", step_s=3600, start="2008-01-01T00:00:00Z"),
        channels=_CMAPSS_CHANNELS,
        ends="failed",
        ends_in=("train_*",),
        contiguous=True,
    ),
    "skab": Table(
        separator=";",
        asset="{folder}-{stem}",
        time=Time(column="datetime", offset="Z"),
        channels={
            "Accelerometer1RMS": Source("accelerometer_1", "g"),
            "Accelerometer2RMS": Source("accelerometer_2", "g"),
            "Current": Source("current", "A"),
            "Pressure": Source("pressure", "bar"),
            "Temperature": Source("temperature", "degC"),
            "Thermocouple": Source("thermocouple", "degC"),
            "Voltage": Source("voltage", "V"),
            "Volume Flow RateRMS": Source("flow", "l/min"),
        },
        label="anomaly",
        ignore=("changepoint",),
    ),
    "nab": Table(
        separator=",",
        time=Time(column="timestamp", offset="Z"),
        channels={"value": Source("value")},
    ),
    "gasturbine": Table(
        separator=",",
        asset="gasturbine",
        time=Time(step_s=3600, start="2011-01-01T00:00:00Z"),
        # Documented as mbar, CDP can only be bar: a compressor that delivers 10 mbar does not.
        channels=_sources(
            "AT:degC AP:mbar AH:%RH AFDP:mbar GTEP:mbar TIT:degC TAT:degC TEY:MWh CDP:bar "
            "CO:mg/m3 NOX:mg/m3"
        ),
    ),
    "tep": Table(
        separator=" ",
        names=_TENNESSEE,
        time=Time(step_s=180, start="1993-01-01T00:00:00Z"),
        faults={"d00*": -1, "d*_te": 160, "d*": 0},
        transposed="auto",
    ),
    "ai4i": Table(
        separator=",",
        asset="mill",
        time=Time(column="UDI", step_s=60, start="2020-01-01T00:00:00Z"),
        channels={
            "Air temperature [K]": Source("air_temperature", "K"),
            "Process temperature [K]": Source("process_temperature", "K"),
            "Rotational speed [rpm]": Source("speed", "rpm"),
            "Torque [Nm]": Source("torque", "Nm"),
            "Tool wear [min]": Source("tool_wear", "min"),
        },
        label="Machine_failure",
        ignore=("Product ID", "Type", "TWF", "HDF", "PWF", "OSF", "RNF"),
    ),
    "femto": Table(
        separator=",",
        asset="{bearing}",
        time=Time(column="idx", step_s=10, start="2010-01-01T00:00:00Z"),
        channels=_sources(
            " ".join(f"{axis}_{pair}" for axis in "hv" for pair in _SNAPSHOT.split())
        ),
        ignore=("split", "n"),
        ends="failed",
        ends_in=("*learning*",),
        contiguous=True,
    ),
}


def _header_of(table: Table) -> frozenset[str]:
    columns = {*table.channels, *table.ignore, table.label, table.time.column}
    if "{bearing}" in table.asset:
        columns.add("bearing")
    return frozenset(columns - {""})


_HEADERS = {_header_of(FORMATS[name]): name for name in ("skab", "gasturbine", "ai4i", "femto")}
"""Not nab: a time and a value may be anybody's."""


def recognise(head: list[bytes]) -> str:
    """Return the name of the format that the first lines of a file have; "" where none is certain.

    >>> recognise([b"1 1 " + b"0.5 " * 24, b"1 2 " + b"0.5 " * 24])
    'cmapss'
    >>> recognise([b"timestamp,value", b"2014-05-14 01:14:00,85.8"])
    ''
    """
    if not head:
        return ""
    separator = separator_of(head[0])
    try:
        fields = split(head[0], separator)
    except BadFieldError:
        return ""
    if separator != b" ":
        header = frozenset(field.decode("utf-8", "replace").strip() for field in fields)
        return _HEADERS.get(header, "")
    if not all(times.is_number(field) for field in fields):
        return ""
    if len(fields) == 26 and fields[0].isdigit() and fields[1] == b"1":
        return "cmapss"
    # 52 columns; or one column a line, and then some hundred rows.
    whole = len(fields) == 52 or len(fields) >= 480
    return "tep" if whole and all(b"e" in field.lower() for field in fields) else ""

"""SenML (RFC 8428), as JSON and as CBOR: a pack of one machine's rows."""

from collections.abc import Sequence

import cbor2
import msgspec

from simulator.formats.batches import Form, Row

_LABELS = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "t": 6}
"""Section 6, table 4."""


def json(rows: Sequence[Row]) -> Form:
    """Write a pack as JSON.

    >>> json([Row(3e8, "pump-1", {"flow": 1.5}, {"flow": "l/s"})]).payload
    b'[{"bn":"pump-1/","bt":300000000.0,"n":"flow","v":1.5,"u":"l/s"}]'
    """
    return Form(msgspec.json.encode(_records(rows)))


def cbor(rows: Sequence[Row]) -> Form:
    """Write a pack as CBOR.

    >>> cbor([Row(3e8, "pump-1", {"flow": 1.5}, {})]).payload.hex()[:20]
    '81a4216770756d702d31'
    """
    labelled = [{_LABELS[key]: value for key, value in one.items()} for one in _records(rows)]
    return Form(cbor2.dumps(labelled))


def _records(rows: Sequence[Row]) -> list[dict[str, str | float]]:
    records: list[dict[str, str | float]] = []
    for row in rows:
        for name, value in row.values.items():
            record: dict[str, str | float] = {"n": name, "v": value}
            if row.t != rows[0].t:
                record["t"] = row.t - rows[0].t
            if row.units.get(name):
                record["u"] = row.units[name]
            records.append(record)
    base: dict[str, str | float] = {"bn": f"{rows[0].asset}/", "bt": rows[0].t}
    records[0] = base | records[0]
    return records

"""JSON with several rows: an array of them, or a column a channel; rows that name their asset."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from simulator.formats.batches import Form, Row


def array(rows: Sequence[Row]) -> Form:
    """Write an array of rows.

    >>> array([Row(60.0, "pump-1", {"flow": 1.5}, {})]).payload
    b'[{"t":60.0,"v":{"flow":1.5}}]'
    """
    return Form(msgspec.json.encode([{"t": row.t, "v": row.values} for row in rows]))


def columns(rows: Sequence[Row]) -> Form:
    """Write a column a channel, with a beginning and a spacing where the rows have one.

    >>> rows = [Row(t, "pump-1", {"flow": 1.5}, {}) for t in (60.0, 120.0, 180.0)]
    >>> columns(rows).payload
    b'{"t0":60.0,"dt":60.0,"v":{"flow":[1.5,1.5,1.5]}}'
    """
    values = {name: [row.values[name] for row in rows] for name in rows[0].values}
    times = [row.t for row in rows]
    apart = {later - sooner for sooner, later in pairwise(times)}
    if len(apart) == 1 and min(apart) > 0:
        return Form(msgspec.json.encode({"t0": times[0], "dt": apart.pop(), "v": values}))
    return Form(msgspec.json.encode({"t": times, "v": values}))


def named(rows: Sequence[Row]) -> Form:
    r"""Write a line a row, each with the name of its machine.

    >>> named([Row(60.0, "pump-1", {"flow": 1.5}, {})]).payload
    b'{"asset":"pump-1","t":60.0,"v":{"flow":1.5}}\n'
    """
    said = [{"asset": row.asset, "t": row.t, "v": row.values} for row in rows]
    return Form(b"".join(msgspec.json.encode(one) + b"\n" for one in said))

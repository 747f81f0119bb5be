"""Lines of values separated by commas, the time first; on a serial line with a checksum each."""

from collections.abc import Sequence
from functools import reduce
from operator import xor

from simulator.formats.batches import Form, Row

LEAF = "csv"
"""Of the topic: what it means must be told to an agent (``mqtt.subscribe``)."""


def csv(rows: Sequence[Row]) -> Form:
    r"""Write lines.

    >>> csv([Row(60.0, "pump-1", {"flow": 1.5, "speed": 1480.0}, {})])
    Form(payload=b'60.0,1.5,1480.0\n', leaf='csv')
    """
    return Form(b"".join(_line(row) + b"\n" for row in rows), LEAF)


def lines(rows: Sequence[Row]) -> Form:
    r"""Write lines as in NMEA 0183: the exclusive-or of what is between ``$`` and ``*``.

    >>> lines([Row(60.0, "pump-1", {"flow": 1.5, "speed": 1480.0}, {})]).payload
    b'$60.0,1.5,1480.0*21\r\n'
    """
    said = [_line(row) for row in rows]
    return Form(b"".join(b"$%b*%02X\r\n" % (line, reduce(xor, line)) for line in said), LEAF)


def _line(row: Row) -> bytes:
    return ",".join(map(repr, (row.t, *row.values.values()))).encode("ascii")

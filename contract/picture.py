"""What a device shows of an asset beside its health: features now and then, spectra of bursts.

For people who look, and for nothing else: they are thinned, of a bounded size, and none is sent
again that was lost.
"""

from typing import Annotated

import msgspec

MOST_FEATURES = 32
"""In a message."""
MOST_POINTS = 400
"""Of a spectrum."""
MOST_BYTES = 32_000
"""Of a message: the names are the asset's own, and the rest is below 14 kB."""

_Name = Annotated[str, msgspec.Meta(max_length=200)]
_Points = Annotated[tuple[float, ...], msgspec.Meta(max_length=MOST_POINTS)]


class Features(msgspec.Struct, frozen=True, tag_field="type", tag="features"):
    """Some of the features that an asset's health is judged by.

    Attributes:
        asset: which.
        t: seconds since 1970 UTC, of the data.
        names: ``channel statistic``, those of a class always the same ones in the same order.
        values: of each, in the unit of its channel where the statistic has one; None: not known.
    """

    asset: str
    t: float
    names: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=MOST_FEATURES)]
    values: Annotated[tuple[float | None, ...], msgspec.Meta(max_length=MOST_FEATURES)]


class Lines(msgspec.Struct, frozen=True):
    """A spectrum, of each stretch the highest line.

    Attributes:
        hz: of the lines, rising.
        values: their amplitudes.
    """

    hz: _Points
    values: _Points


class Spectrum(msgspec.Struct, frozen=True, tag_field="type", tag="spectrum"):
    """The spectrum of a burst, and where faults would show in it.

    Attributes:
        asset: which.
        t: seconds since 1970 UTC, of the first sample.
        waveform: its name.
        unit: of the amplitudes.
        lines: of the burst; a sine shows its amplitude.
        envelope: of the squared envelope of a band, over the median of that: noise shows 1 to 2.
            None: there is no bearing to look for in it.
        rpm: of the shaft at that time; None: not known, and so nothing is known of ``at_hz``.
        at_hz: where lines are to be expected: ``shaft``, ``mesh`` of a gear, and of a bearing
            ``bpfo bpfi bsf ftf``; the last four in the envelope.
    """

    asset: str
    t: float
    waveform: str
    unit: str
    lines: Lines
    envelope: Lines | None = None
    rpm: float | None = None
    at_hz: Annotated[dict[_Name, float], msgspec.Meta(max_length=16)] = {}


Picture = Features | Spectrum

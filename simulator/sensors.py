"""What can be wrong with a sensor: it says something else than the machine does.

Each fault is a table of a scenario, and spoils the rows of one channel, or the samples of a burst,
between two times of a life. Nothing here changes the machine.
"""

from typing import Annotated, Protocol

import msgspec
import numpy as np

from contract import units
from contract.arrays import Floats

Hours = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Spoils(Protocol):
    """What a fault does to values that were measured while it was there."""

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Return what is said ``(k,)`` in place of ``column``, ``hours`` after it began."""
        ...

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Return what is said ``(n,)`` in place of a burst in g."""
        ...


class _Sensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault"):
    """One sensor's fault.

    Attributes:
        machine: whose.
        channel: which; that of the waveform, too.
        life: which of the machine's lives, from 0; absent: the present one.
        from_h: hours of that life after which it begins.
        to_h: hours after which it ends; absent: it stays.
    """

    machine: str
    channel: str
    life: int | None = None
    from_h: Hours = 0.0
    to_h: Hours | None = None


class Drift(_Sensor, frozen=True, forbid_unknown_fields=True, tag="drift"):
    """Off by more and more.

    Attributes:
        per_h: in the channel's unit, each hour.
    """

    per_h: float = 0.0

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Add what has drifted."""
        del unit, rng
        return column + self.per_h * hours

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Add it to all samples."""
        del rate_hz, rng
        return samples + self.per_h * hours


class Stuck(_Sensor, frozen=True, forbid_unknown_fields=True, tag="stuck"):
    """Says for ever what it said when it began."""

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Hold the first value."""
        del hours, unit, rng
        return np.full_like(column, column[0])

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Say nothing that swings."""
        del hours, rate_hz, rng
        return np.full_like(samples, samples[0])


class Noise(_Sensor, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="noise"):
    """A loose shield, a bad earth.

    Attributes:
        sd: deviation of what is added, in the channel's unit.
    """

    sd: Positive

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Add noise."""
        del hours, unit
        return column + self.sd * rng.standard_normal(len(column))

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Add noise."""
        del hours, rate_hz
        return samples + self.sd * rng.standard_normal(len(samples))


class Clipping(_Sensor, frozen=True, forbid_unknown_fields=True, tag="clipping"):
    """A range that is too small for what is measured.

    Attributes:
        low: nothing below is said.
        high: nothing above.
    """

    low: float | None = None
    high: float | None = None

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Cut off."""
        del hours, unit, rng
        return np.clip(column, self.low, self.high)

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Cut off."""
        del hours, rate_hz, rng
        return np.clip(samples, self.low, self.high)


class LooseMount(_Sensor, frozen=True, forbid_unknown_fields=True, tag="loose_mount"):
    """A sensor that is no longer held tight: deaf to what is fast, and it rattles.

    Attributes:
        resonance_hz: of sensor and what is left of its mount: it hears below, and not above.
        deaf: share of a row's value that is lost.
    """

    resonance_hz: Positive = 800.0
    deaf: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Say less, and not steadily."""
        del hours, unit
        return column * (1.0 - self.deaf) * np.exp(0.3 * rng.standard_normal(len(column)))

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Answer as a mass on a spring does: more at its resonance, and hardly above."""
        del hours, rng
        ratio = np.fft.rfftfreq(len(samples), 1 / rate_hz) / self.resonance_hz
        answer = 1.0 / (1.0 - ratio**2 + 2j * 0.1 * ratio)
        heard: Floats = np.fft.irfft(np.fft.rfft(samples) * answer, len(samples))
        return heard


class WrongUnit(_Sensor, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="wrong_unit"):
    """Says the right thing in a unit that nobody was told of.

    Attributes:
        unit: in which it speaks.
    """

    unit: str

    def rows(self, column: Floats, hours: Floats, unit: str, rng: np.random.Generator) -> Floats:
        """Convert."""
        del hours, rng
        factor, offset = units.convert(unit, self.unit)
        return column * factor + offset

    def burst(
        self, samples: Floats, hours: float, rate_hz: float, rng: np.random.Generator
    ) -> Floats:
        """Convert from g."""
        del hours, rate_hz, rng
        factor, offset = units.convert("g", self.unit)
        return samples * factor + offset


class Swapped(_Sensor, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="swapped"):
    """Two plugs in each other's place.

    Attributes:
        other: the channel that it changed places with.
    """

    other: str


Sensor = Drift | Stuck | Noise | Clipping | LooseMount | WrongUnit | Swapped


def spoil_rows(
    sensor: Sensor,
    readings: Floats,
    hours: Floats,
    channels: tuple[str, ...],
    their_units: tuple[str, ...],
    rng: np.random.Generator,
) -> Floats:
    """Return a life's rows ``(n, C)``, ``hours`` after its beginning, as a bad sensor says them."""
    on = (hours >= sensor.from_h) & (hours < (np.inf if sensor.to_h is None else sensor.to_h))
    if sensor.channel not in channels or not on.any():
        return readings
    at = channels.index(sensor.channel)
    said = readings.copy()
    if isinstance(sensor, Swapped):
        other = channels.index(sensor.other)
        said[on, at], said[on, other] = readings[on, other], readings[on, at]
        return said
    spoilt = sensor.rows(readings[on, at], hours[on] - sensor.from_h, their_units[at], rng)
    said[on, at] = np.round(spoilt, 4)
    return said


def spoil_burst(
    sensor: Sensor, samples: Floats, hour: float, rate_hz: float, rng: np.random.Generator
) -> Floats:
    """Return a burst in g, ``hour`` hours after its life began, as a bad sensor says it."""
    ended = sensor.to_h is not None and hour >= sensor.to_h
    if hour < sensor.from_h or ended or isinstance(sensor, Swapped):
        return samples
    return sensor.burst(samples, hour - sensor.from_h, rate_hz, rng)


def check(
    sensor: Sensor, channels: tuple[str, ...], their_units: tuple[str, ...], wave: str
) -> None:
    """Refuse what cannot be; the ``ValueError`` names what there is.

    Args:
        sensor: of a scenario.
        channels: of its machine.
        their_units: of each.
        wave: name of its waveform; empty: there is none.
    """
    known = (*channels, wave) if wave else channels
    if sensor.channel not in known:
        raise ValueError(f"channel {sensor.channel!r} is none of {', '.join(known)}")
    if sensor.to_h is not None and sensor.to_h <= sensor.from_h:
        raise ValueError(f"to_h = {sensor.to_h:g} is not above from_h = {sensor.from_h:g}")
    unit = "g" if sensor.channel == wave else their_units[channels.index(sensor.channel)]
    if isinstance(sensor, Swapped) and (
        sensor.other not in channels or sensor.channel in {wave, sensor.other}
    ):
        raise ValueError(f"other = {sensor.other!r} is none of the other channels of the rows")
    if isinstance(sensor, WrongUnit):
        units.convert(unit, sensor.unit)
    if isinstance(sensor, Drift) and sensor.per_h == 0:
        raise ValueError("per_h is 0: it would not drift")
    if isinstance(sensor, Clipping):
        if sensor.low is None and sensor.high is None:
            raise ValueError("neither low nor high is there: nothing would be clipped")
        if sensor.low is not None and sensor.high is not None and sensor.low >= sensor.high:
            raise ValueError(f"low = {sensor.low:g} is not below high = {sensor.high:g}")

"""What a machine is to a plant, and the physics that several of them share."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.machines.structure import Structure

VOLTAGE = 400.0
"""Between two phases."""


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What a plant does to its machines beside their faults, each ``(n,)``, 0 for nothing.

    Attributes:
        ambient_k: warmer than usual, in kelvin: the season, a hall whose cooling fails.
        demand: more asked of the machine, as a share of the rated.
    """

    ambient_k: Floats
    demand: Floats

    @classmethod
    def none(cls, n: int) -> Self:
        """Return nothing out of the usual."""
        return cls(np.zeros(n), np.zeros(n))


class Machine(Protocol):
    """One machine of a fleet, drawn with its own sizes.

    Attributes:
        channels: names of what is measured.
        units: of each channel.
        decimals: that each sensor gives.
        what: it is, in a few words.
        faults: names of those that it can have.
        structure: by which it shakes; None: nobody listens to its waveform.
    """

    channels: ClassVar[tuple[str, ...]]
    units: ClassVar[tuple[str, ...]]
    decimals: ClassVar[tuple[int, ...]]
    what: ClassVar[str]
    faults: ClassVar[tuple[str, ...]]
    structure: ClassVar[Structure | None]

    @property
    def vibration_mms(self) -> float:
        """Return the velocity, rms, of the healthy machine."""
        ...

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw one."""
        ...

    def run(
        self,
        t: Floats,
        effect: Effect,
        rng: np.random.Generator,
        around: Surroundings | None = None,
    ) -> Floats:
        """Return what the sensors say at times ``t`` (seconds UTC, evenly spaced): ``(n, C)``.

        What is drawn does not depend on the effect.
        """
        ...


def step_of(t: Floats) -> float:
    """Return the spacing of times in seconds; 600 for one alone."""
    return float(t[1] - t[0]) if len(t) > 1 else 600.0


def shaken(effect: Effect, response: float) -> Floats:
    """Return how many times its own a machine shakes: independent causes add as squares."""
    times: Floats = np.sqrt(1.0 + (response * effect.vibration) ** 2)
    return times


def current(power_kw: Floats, efficiency: float, power_factor: float) -> Floats:
    """Return the active current in A that a shaft power takes from three phases."""
    amps: Floats = 1000.0 * power_kw / (efficiency * np.sqrt(3) * VOLTAGE * power_factor)
    return amps


def shifts(t: Floats, begin_h: float, end_h: float) -> Floats:
    """Return 1 in working hours of Monday to Saturday, 0 else, over times in seconds UTC.

    >>> monday = 4 * 86400.0  # 1970 began on a Thursday
    >>> shifts(monday + 3600 * np.array([5.0, 6.0, 21.0, 22.0, -1.0]), 6, 22).tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0]
    """
    hour = t / 3600.0 % 24.0
    weekday = (t // 86400.0 + 3) % 7
    works: Floats = ((hour >= begin_h) & (hour < end_h) & (weekday < 6)).astype(np.float64)
    return works


def rounded(readings: Floats, decimals: tuple[int, ...]) -> Floats:
    """Round each column ``(n, C)`` as its sensor does."""
    out: Floats = np.empty_like(readings)
    for column, places in enumerate(decimals):
        out[:, column] = np.round(readings[:, column], places)
    return out

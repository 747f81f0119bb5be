"""What a fault is to a machine, in quantities that any rotating machine has."""

from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np

from contract.arrays import Floats
from simulator.faults.shaking import Shaking


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """Losses and excitations over time, each ``(n,)``, 0 where nothing is wrong.

    Attributes:
        vibration: excited beside the machine's own, as a multiple of it (they add as squares).
        friction: more heat in the bearing, as a share of the rated heat.
        head_loss: of the head that the impeller gives, as a share.
        roughness: deviation of that head from sample to sample, as a share.
        efficiency_loss: of the hydraulic efficiency, as a share.
        winding: more heat in the motor's winding, as a share of the rated heat.
        current: more current than the load takes, as a share.
        wear: more heat in the mesh of gears, as a share of the rated heat.
    """

    vibration: Floats
    friction: Floats
    head_loss: Floats
    roughness: Floats
    efficiency_loss: Floats
    winding: Floats
    current: Floats
    wear: Floats

    @classmethod
    def of(cls, n: int, **quantities: Floats) -> Self:
        """Return an effect in some quantities; the others are 0 at all ``n`` times."""
        return cls(**{f.name: quantities.get(f.name, np.zeros(n)) for f in fields(cls)})


class Fault(Protocol):
    """One way to fail."""

    @property
    def name(self) -> str:
        """Return its name in scenarios and truth."""
        ...

    @property
    def moves(self) -> tuple[str, ...]:
        """Return the channels on which a technician sees it, where a machine has them."""
        ...

    @property
    def what(self) -> str:
        """Return what it is, in a sentence."""
        ...

    def severity(self, age: Floats) -> Floats:
        """Return 0 before birth (age 0), 1 at failure (age 1), never falling in between."""
        ...

    def effect(self, severity: Floats) -> Effect:
        """Return what a severity ``(n,)`` does."""
        ...

    def shakes(self, severity: float) -> Shaking:
        """Return what a severity adds to a waveform."""
        ...


def felt_age(fault: Fault, threshold: float) -> float:
    """Return the age, 0 to 1, at which severity first reaches ``threshold``."""
    ages = np.linspace(0.0, 1.0, 10_001)
    return float(ages[np.searchsorted(fault.severity(ages), threshold)])


def moved(fault: Fault, channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of a machine's channels that a fault moves.

    >>> from simulator.faults import FAULTS
    >>> moved(FAULTS["winding"], ("vibration", "motor_current"))
    ('motor_current',)
    """
    return tuple(channel for channel in fault.moves if channel in channels)

"""Unbalance: mass off the axis; it shakes once a turn."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class Unbalance:
    """A rotor that gathers dirt on one side, or loses a weight."""

    name = "unbalance"
    moves = ("vibration",)
    what = "unbalance: vibration at the speed of the shaft"

    def severity(self, age: Floats) -> Floats:
        """Rise a little faster and faster."""
        grown: Floats = np.clip(age, 0.0, 1.0) ** 1.3
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake; the bearing carries more, and warms a little."""
        return Effect.of(
            len(severity),
            vibration=3.0 * severity,
            friction=0.15 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Shake once a turn."""
        return Shaking(shaft=(4.5 * severity,))

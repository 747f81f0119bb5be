"""Rolling bearing damage: vibration rises exponentially, heat follows."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking, struck


class Bearing:
    """A spall that grows with every ball that passes over it."""

    name = "bearing"
    moves = ("vibration", "bearing_temp")
    what = "bearing damage: vibration rises exponentially, bearing temperature follows"

    def severity(self, age: Floats) -> Floats:
        """Rise exponentially, twentyfold from the first tenth to the end."""
        grown: Floats = np.expm1(3.0 * np.clip(age, 0.0, 1.0)) / np.expm1(3.0)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake and heat; the hydraulics hardly notice."""
        return Effect.of(
            len(severity),
            vibration=4.5 * severity,
            friction=1.0 * severity,
            efficiency_loss=0.02 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Strike as a spall on the outer ring does, the part that fails most often."""
        return struck("outer", severity, 9.0)

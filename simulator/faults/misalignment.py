"""Misalignment: two shafts off one line; it shakes twice a turn and heats the bearings."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class Misalignment:
    """A coupling that settles, or a foundation that gives way."""

    name = "misalignment"
    moves = ("vibration", "bearing_temp")
    what = "misalignment: vibration at twice the speed of the shaft, warmer bearings"

    def severity(self, age: Floats) -> Floats:
        """Rise almost steadily."""
        grown: Floats = np.clip(age, 0.0, 1.0) ** 1.1
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake, and press on the bearings; a little power is lost."""
        return Effect.of(
            len(severity),
            vibration=2.2 * severity,
            friction=0.60 * severity,
            efficiency_loss=0.03 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Shake twice a turn, less at once and three times."""
        return Shaking(shaft=(1.2 * severity, 3.0 * severity, 1.0 * severity))

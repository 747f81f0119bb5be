"""Winding damage: turns short-circuit; current and heat rise, the motor hums."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class Winding:
    """Insulation that ages by its own heat, turn after turn."""

    name = "winding"
    moves = ("winding_temp", "motor_current")
    what = "winding damage: more current than the load takes, a hotter winding"

    def severity(self, age: Floats) -> Floats:
        """Rise exponentially: each turn that is lost heats the others."""
        grown: Floats = np.expm1(2.5 * np.clip(age, 0.0, 1.0)) / np.expm1(2.5)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Draw more and heat the winding; a hum at twice the frequency of the mains."""
        return Effect.of(
            len(severity),
            vibration=0.4 * severity,
            winding=0.45 * severity,
            current=0.14 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Hum at twice the frequency of the mains."""
        return Shaking(hum=8.0 * severity)

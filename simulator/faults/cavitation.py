"""Cavitation: vapour at the impeller's eye; head drops and becomes noisy, the pump rattles."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class Cavitation:
    """A suction that clogs until the pump boils the water it draws."""

    name = "cavitation"
    moves = ("flow", "pressure", "vibration", "motor_current")
    what = "cavitation: flow and pressure drop and become noisy, vibration rises, load falls"

    def severity(self, age: Floats) -> Floats:
        """Rise faster and faster as the margin of suction pressure is used up."""
        grown: Floats = np.clip(age, 0.0, 1.0) ** 1.6
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Lose head unsteadily, and shake in all frequencies."""
        return Effect.of(
            len(severity),
            vibration=1.8 * severity,
            head_loss=0.20 * severity,
            roughness=0.05 * severity,
            efficiency_loss=0.12 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Hiss in all frequencies, in pulses as the vanes pass."""
        return Shaking(hiss=6.0 * severity, pulse=0.8 * severity)

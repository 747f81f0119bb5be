"""Gear wear: flanks lose their form; the mesh grows loud, and the oil warm."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class GearWear:
    """Pitting that spreads over the flanks of the teeth."""

    name = "gear_wear"
    moves = ("vibration", "oil_temp")
    what = "gear wear: the mesh grows loud with sidebands, the oil warms"

    def severity(self, age: Floats) -> Floats:
        """Rise faster and faster as the form is lost."""
        grown: Floats = np.clip(age, 0.0, 1.0) ** 1.5
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake, and lose power in the mesh."""
        return Effect.of(
            len(severity),
            vibration=2.8 * severity,
            wear=0.55 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Raise the mesh and its second multiple, and modulate it by the shaft."""
        return Shaking(mesh=2.5 * severity, sidebands=0.9 * severity, hiss=0.5 * severity)

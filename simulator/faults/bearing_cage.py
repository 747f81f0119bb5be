"""Rolling bearing damage: a worn cage: balls bunch together, and it rubs."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking, struck


class BearingCage:
    """A cage that wears out: slow to grow, seldom alone."""

    name = "bearing_cage"
    moves = ("vibration", "bearing_temp")
    what = "a worn cage: balls bunch together, and it rubs"

    def severity(self, age: Floats) -> Floats:
        """Rise exponentially."""
        grown: Floats = np.expm1(2.0 * np.clip(age, 0.0, 1.0)) / np.expm1(2.0)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake and heat."""
        return Effect.of(
            len(severity),
            vibration=2.4 * severity,
            friction=0.7 * severity,
            efficiency_loss=0.02 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Strike once a turn of the cage."""
        return struck("cage", severity, 7.0)

"""Rolling bearing damage: a spall on the outer ring: struck by every ball that passes."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking, struck


class BearingOuter:
    """A spall on the ring that stands still, in the zone of load."""

    name = "bearing_outer"
    moves = ("vibration", "bearing_temp")
    what = "a spall on the outer ring: struck by every ball that passes"

    def severity(self, age: Floats) -> Floats:
        """Rise exponentially."""
        grown: Floats = np.expm1(3.0 * np.clip(age, 0.0, 1.0)) / np.expm1(3.0)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake and heat."""
        return Effect.of(
            len(severity),
            vibration=4.0 * severity,
            friction=0.9 * severity,
            efficiency_loss=0.02 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Strike once for each ball that passes."""
        return struck("outer", severity, 9.0)

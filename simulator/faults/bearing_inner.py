"""Rolling bearing damage: a spall on the inner ring: struck as it turns through the load."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking, struck


class BearingInner:
    """A spall on the ring that turns: in and out of the zone of load with each turn."""

    name = "bearing_inner"
    moves = ("vibration", "bearing_temp")
    what = "a spall on the inner ring: struck as it turns through the load"

    def severity(self, age: Floats) -> Floats:
        """Rise exponentially."""
        grown: Floats = np.expm1(3.0 * np.clip(age, 0.0, 1.0)) / np.expm1(3.0)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake and heat."""
        return Effect.of(
            len(severity),
            vibration=3.6 * severity,
            friction=0.9 * severity,
            efficiency_loss=0.02 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Strike once for each ball that passes, harder in the zone of load."""
        return struck("inner", severity, 11.0)

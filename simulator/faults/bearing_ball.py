"""Rolling bearing damage: a spall on a ball: it strikes both rings as it spins."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking, struck


class BearingBall:
    """A spall on a rolling element: it strikes both rings, and rides with the cage."""

    name = "bearing_ball"
    moves = ("vibration", "bearing_temp")
    what = "a spall on a ball: it strikes both rings as it spins"

    def severity(self, age: Floats) -> Floats:
        """Rise exponentially."""
        grown: Floats = np.expm1(2.6 * np.clip(age, 0.0, 1.0)) / np.expm1(2.6)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake and heat."""
        return Effect.of(
            len(severity),
            vibration=3.2 * severity,
            friction=0.8 * severity,
            efficiency_loss=0.02 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Strike twice a spin of the ball."""
        return struck("ball", severity, 9.0)

"""Looseness: a foot or a fit with play; it rattles at many multiples of the speed."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class Looseness:
    """A bolt that loses its tension: slowly, then all at once, then little is left to lose."""

    name = "looseness"
    moves = ("vibration",)
    what = "mechanical looseness: vibration at many multiples of the speed of the shaft, and halves"

    def severity(self, age: Floats) -> Floats:
        """Rise along a logistic curve from 0 at birth to 1 at failure."""
        x = np.clip(age, 0.0, 1.0)
        low, high = 1 / (1 + np.exp(6.0 * 0.6)), 1 / (1 + np.exp(-6.0 * 0.4))
        grown: Floats = (1 / (1 + np.exp(-6.0 * (x - 0.6))) - low) / (high - low)
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Shake."""
        return Effect.of(
            len(severity),
            vibration=2.6 * severity,
            friction=0.10 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Shake at many multiples of the speed, and at halves."""
        return Shaking(
            shaft=(2.0 * severity, *(0.9**k * 1.5 * severity for k in range(9))),
            halves=1.0 * severity,
            hiss=0.5 * severity,
        )

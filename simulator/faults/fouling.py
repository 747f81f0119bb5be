"""Fouling of wheels and blades: deposits narrow the channels; flow falls, power is wasted."""

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.faults.shaking import Shaking


class Fouling:
    """Deposits that grow almost steadily, and waste power as heat."""

    name = "fouling"
    moves = (
        "flow", "pressure", "motor_current", "bearing_temp", "discharge_temp", "hpc_temp", "egt",
        "static_pressure", "fuel_flow",
    )  # fmt: skip
    what = "fouling: flow falls slowly, more power is drawn, temperature rises a little"

    def severity(self, age: Floats) -> Floats:
        """Rise almost steadily."""
        grown: Floats = np.clip(age, 0.0, 1.0) ** 1.2
        return grown

    def effect(self, severity: Floats) -> Effect:
        """Lose head smoothly and efficiency more so; a little unbalance, a little heat."""
        return Effect.of(
            len(severity),
            vibration=0.6 * severity,
            friction=0.40 * severity,
            head_loss=0.10 * severity,
            efficiency_loss=0.38 * severity,
        )

    def shakes(self, severity: float) -> Shaking:
        """Shake once a turn, a little: deposits are never even."""
        return Shaking(shaft=(1.2 * severity,))

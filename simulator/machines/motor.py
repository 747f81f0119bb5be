"""A four-pole induction motor at the mains, as six sensors see it.

The load comes in shifts; slip grows with it, losses in the winding with the square of the current,
and the winding warms in a quarter of an hour, the bearing in one.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from contract.arrays import Floats
from contract.spec import Bearing
from simulator.faults.effect import Effect
from simulator.machines.machine import (
    VOLTAGE,
    Surroundings,
    current,
    rounded,
    shaken,
    shifts,
    step_of,
)
from simulator.machines.structure import Structure
from simulator.signals import daily, lag, wander

_EFFICIENCY = 0.93
_POWER_FACTOR = 0.86
_SYNCHRONOUS_RPM = 1500.0


@dataclass(frozen=True, slots=True)
class Motor:
    """One motor of the fleet.

    Attributes:
        power_kw: rated, at the shaft.
        slip: at rated load.
        vibration_mms: velocity, rms, of the healthy machine.
        ambient_c: mean temperature of the hall.
        winding_k: rise of the winding above it at rated load.
        bearing_k: rise of the bearing.
        winding_s: time constant of the winding.
        bearing_s: time constant of the bearing.
        begin_h: first working hour.
        idle: magnetising current as a share of the rated current.
        response: how strongly vibration and heat answer a fault.
    """

    power_kw: float
    slip: float
    vibration_mms: float
    ambient_c: float
    winding_k: float
    bearing_k: float
    winding_s: float
    bearing_s: float
    begin_h: float
    idle: float
    response: float

    channels: ClassVar[tuple[str, ...]] = (
        "vibration",
        "bearing_temp",
        "winding_temp",
        "motor_current",
        "voltage",
        "speed",
    )
    units: ClassVar[tuple[str, ...]] = ("mm/s", "degC", "degC", "A", "V", "rpm")
    decimals: ClassVar[tuple[int, ...]] = (3, 2, 2, 2, 1, 1)
    what: ClassVar[str] = "induction motor at the mains, its load in shifts"
    faults: ClassVar[tuple[str, ...]] = (
        "winding", "unbalance", "misalignment", "looseness", "bearing", "bearing_outer",
        "bearing_inner", "bearing_ball", "bearing_cage",
    )  # fmt: skip
    structure: ClassVar[Structure | None] = Structure(
        bearing=Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04), mains_hz=50.0
    )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a motor."""
        return cls(
            power_kw=rng.uniform(22, 75),
            slip=rng.uniform(0.012, 0.02),
            vibration_mms=rng.uniform(0.8, 1.6),
            ambient_c=rng.uniform(18, 27),
            winding_k=rng.uniform(60, 75),
            bearing_k=rng.uniform(22, 32),
            winding_s=rng.uniform(900, 1500),
            bearing_s=rng.uniform(3000, 4500),
            begin_h=rng.uniform(5, 7),
            idle=rng.uniform(0.30, 0.40),
            response=rng.uniform(0.85, 1.15),
        )

    def run(
        self,
        t: Floats,
        effect: Effect,
        rng: np.random.Generator,
        around: Surroundings | None = None,
    ) -> Floats:
        """Return what the sensors say at times ``t``: ``(n, 6)`` in the order of ``channels``."""
        n, step_s = len(t), step_of(t)
        around = around or Surroundings.none(n)
        noise = rng.standard_normal((6, n))
        works = lag(shifts(t, self.begin_h, self.begin_h + 16), step_s, 600.0)
        load = 0.45 + 0.40 * works + 0.04 * wander(rng, n, step_s, 3600)
        hall_c = self.ambient_c + 2.5 * daily(t, 15.0) + 0.5 * wander(rng, n, step_s, 14400)
        mains = 1.0 + 0.01 * wander(rng, n, step_s, 1800)

        hall_c = hall_c + around.ambient_k
        load = np.clip(load + around.demand, 0.05, 1.2) / (1.0 - effect.efficiency_loss)
        rated_a = float(current(np.array([self.power_kw]), _EFFICIENCY, _POWER_FACTOR)[0])
        taken = np.hypot(load / mains, self.idle * mains) * (1.0 + effect.current)
        losses = taken**2 * (1.0 + self.response * effect.winding)
        heat = self.bearing_k * (0.6 + 0.4 * load) * (1.0 + self.response * effect.friction)
        own = 0.85 + 0.15 * load
        readings = np.column_stack(
            (
                self.vibration_mms * own * shaken(effect, self.response)
                * np.exp(0.05 * noise[0]),
                lag(hall_c + heat, step_s, self.bearing_s) + 0.15 * noise[1],
                lag(hall_c + self.winding_k * losses, step_s, self.winding_s) + 0.3 * noise[2],
                rated_a * taken * (1.0 + 0.008 * noise[3]),
                VOLTAGE * mains + 0.5 * noise[4],
                _SYNCHRONOUS_RPM * (1.0 - self.slip * load / mains**2) + 0.3 * noise[5],
            )
        )  # fmt: skip
        return rounded(readings, self.decimals)

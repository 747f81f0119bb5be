"""A one-stage helical gearbox between motor and mill, as six sensors see it.

A share of the power is lost in the mesh and warms the oil, which grows thin (viscosity falls
exponentially with temperature) and so loses pressure before the filter.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from contract.arrays import Floats
from contract.spec import Bearing
from simulator.faults.effect import Effect
from simulator.machines.machine import Surroundings, rounded, shaken, shifts, step_of
from simulator.machines.structure import Structure
from simulator.signals import daily, lag, wander


@dataclass(frozen=True, slots=True)
class Gearbox:
    """One gearbox of the fleet.

    Attributes:
        torque_nm: rated, of the input shaft.
        speed_rpm: rated, of the input shaft.
        vibration_mms: velocity, rms, of the healthy machine at rated load.
        ambient_c: mean temperature of the hall.
        oil_k: rise of the oil above it at rated load.
        bearing_k: rise of the bearing above the oil.
        oil_s: time constant of the oil.
        bearing_s: time constant of the bearing.
        oil_bar: pressure of the oil at 60 degC and rated speed.
        begin_h: first working hour.
        response: how strongly vibration and heat answer a fault.
    """

    torque_nm: float
    speed_rpm: float
    vibration_mms: float
    ambient_c: float
    oil_k: float
    bearing_k: float
    oil_s: float
    bearing_s: float
    oil_bar: float
    begin_h: float
    response: float

    channels: ClassVar[tuple[str, ...]] = (
        "vibration",
        "oil_temp",
        "bearing_temp",
        "oil_pressure",
        "torque",
        "speed",
    )
    units: ClassVar[tuple[str, ...]] = ("mm/s", "degC", "degC", "bar", "Nm", "rpm")
    decimals: ClassVar[tuple[int, ...]] = (3, 2, 2, 3, 1, 1)
    what: ClassVar[str] = "one-stage helical gearbox, its load in shifts"
    faults: ClassVar[tuple[str, ...]] = (
        "gear_wear", "misalignment", "unbalance", "looseness", "bearing", "bearing_outer",
        "bearing_inner", "bearing_ball", "bearing_cage",
    )  # fmt: skip
    structure: ClassVar[Structure | None] = Structure(
        bearing=Bearing(balls=9, ball_mm=12.0, pitch_mm=60.0), teeth=23
    )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a gearbox."""
        return cls(
            torque_nm=rng.uniform(300, 700),
            speed_rpm=rng.uniform(1475, 1488),
            vibration_mms=rng.uniform(1.2, 2.4),
            ambient_c=rng.uniform(18, 27),
            oil_k=rng.uniform(28, 36),
            bearing_k=rng.uniform(8, 14),
            oil_s=rng.uniform(4800, 7200),
            bearing_s=rng.uniform(900, 1500),
            oil_bar=rng.uniform(1.8, 2.6),
            begin_h=rng.uniform(5, 7),
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
        works = lag(shifts(t, self.begin_h, self.begin_h + 16), step_s, 900.0)
        load = 0.50 + 0.35 * works + 0.05 * wander(rng, n, step_s, 2700)
        hall_c = self.ambient_c + 2.5 * daily(t, 15.0) + 0.5 * wander(rng, n, step_s, 14400)

        load = np.clip(load + around.demand, 0.1, 1.2)
        hall_c = hall_c + around.ambient_k
        speed = 1.0 - 0.008 * (load - 0.8)
        mesh = self.oil_k * (0.5 + 0.5 * load) * (1.0 + self.response * effect.wear)
        oil_c = lag(hall_c + mesh, step_s, self.oil_s)
        rubs = self.bearing_k * (0.5 + 0.5 * load) * (1.0 + 2.0 * self.response * effect.friction)
        own = 0.55 + 0.45 * load
        readings = np.column_stack(
            (
                self.vibration_mms * own * shaken(effect, self.response)
                * np.exp(0.06 * noise[0]),
                oil_c + 0.15 * noise[1],
                lag(oil_c + rubs, step_s, self.bearing_s) + 0.15 * noise[2],
                self.oil_bar * speed * np.exp(-0.018 * (oil_c - 60.0)) * (1.0 + 0.01 * noise[3]),
                self.torque_nm * load * (1.0 + 0.01 * noise[4]),
                self.speed_rpm * speed + 0.5 * noise[5],
            )
        )  # fmt: skip
        return rounded(readings, self.decimals)

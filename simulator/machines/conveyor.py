"""A belt conveyor and its drive, as eight sensors see it.

Power is what moves the empty belt and what lifts the load; tension follows both. The material comes
in shifts and in heaps, so that the load is what changes fastest.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from contract.arrays import Floats
from contract.spec import Bearing
from simulator.faults.effect import Effect
from simulator.machines.machine import Surroundings, current, rounded, shaken, shifts, step_of
from simulator.machines.structure import Structure
from simulator.signals import daily, lag, wander

_MOTOR = 0.92
_POWER_FACTOR = 0.85
_EMPTY = 0.30  # of the rated power: the belt alone


@dataclass(frozen=True, slots=True)
class Conveyor:
    """One conveyor of the fleet.

    Attributes:
        load_th: rated stream of material.
        belt_ms: speed of the belt.
        power_kw: at rated load.
        speed_rpm: of the motor.
        vibration_mms: velocity, rms, at the drive pulley.
        ambient_c: mean temperature outdoors.
        heat_k: rise of the pulley's bearing above it.
        oil_k: rise of the gear's oil above it.
        lag_s: time constant of both.
        begin_h: first working hour.
        idle: magnetising current as a share of the rated current.
        response: how strongly vibration and heat answer a fault.
    """

    load_th: float
    belt_ms: float
    power_kw: float
    speed_rpm: float
    vibration_mms: float
    ambient_c: float
    heat_k: float
    oil_k: float
    lag_s: float
    begin_h: float
    idle: float
    response: float

    channels: ClassVar[tuple[str, ...]] = (
        "vibration", "bearing_temp", "oil_temp", "motor_current", "load", "tension", "belt_speed",
        "speed",
    )  # fmt: skip
    units: ClassVar[tuple[str, ...]] = ("mm/s", "degC", "degC", "A", "t/h", "kN", "m/s", "rpm")
    decimals: ClassVar[tuple[int, ...]] = (3, 2, 2, 2, 1, 3, 3, 1)
    what: ClassVar[str] = "belt conveyor and its drive, loaded by shifts and in heaps"
    faults: ClassVar[tuple[str, ...]] = (
        "bearing", "bearing_outer", "bearing_inner", "bearing_ball", "bearing_cage",
        "misalignment", "looseness", "gear_wear", "winding",
    )  # fmt: skip
    structure: ClassVar[Structure | None] = Structure(
        bearing=Bearing(balls=10, ball_mm=12.7, pitch_mm=70.0), teeth=17, mains_hz=50.0
    )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a conveyor."""
        return cls(
            load_th=rng.uniform(300, 800),
            belt_ms=rng.uniform(1.6, 2.6),
            power_kw=rng.uniform(30, 75),
            speed_rpm=rng.uniform(1470, 1485),
            vibration_mms=rng.uniform(1.5, 2.8),
            ambient_c=rng.uniform(8, 18),
            heat_k=rng.uniform(18, 26),
            oil_k=rng.uniform(30, 40),
            lag_s=rng.uniform(3600, 5400),
            begin_h=rng.uniform(5, 7),
            idle=rng.uniform(0.3, 0.4),
            response=rng.uniform(0.85, 1.15),
        )

    def run(
        self,
        t: Floats,
        effect: Effect,
        rng: np.random.Generator,
        around: Surroundings | None = None,
    ) -> Floats:
        """Return what the sensors say at times ``t``: ``(n, 8)`` in the order of ``channels``."""
        n, step_s = len(t), step_of(t)
        around = around or Surroundings.none(n)
        noise = rng.standard_normal((8, n))
        works = lag(shifts(t, self.begin_h, self.begin_h + 16), step_s, 600.0)
        heaps = 0.08 * wander(rng, n, step_s, 1200)
        load = works * (0.75 + heaps)
        air_c = self.ambient_c + 4.0 * daily(t, 15.0) + 1.0 * wander(rng, n, step_s, 14400)

        air_c = air_c + around.ambient_k
        load = np.clip(load * (1.0 + around.demand), 0.0, 1.2)
        cold = 1.0 + 0.004 * np.maximum(15.0 - air_c, 0.0)  # stiff grease and belt in winter
        power = (_EMPTY * cold + (1.0 - _EMPTY) * load) * (1.0 + 0.25 * effect.friction)
        power = power * (1.0 + 0.15 * effect.wear) / (1.0 - effect.efficiency_loss)
        slip = 0.01 * power
        rated_a = float(current(np.array([self.power_kw]), _MOTOR, _POWER_FACTOR)[0])
        rubs = self.heat_k * (0.6 + 0.4 * power) * (1.0 + self.response * effect.friction)
        mesh = self.oil_k * (0.5 + 0.5 * power) * (1.0 + self.response * effect.wear)
        pull_kn = self.power_kw / self.belt_ms * (0.4 + power)
        own = 0.7 + 0.3 * load
        readings = np.column_stack(
            (
                self.vibration_mms * own * shaken(effect, self.response)
                * np.exp(0.08 * noise[0]),
                lag(air_c + rubs, step_s, self.lag_s) + 0.2 * noise[1],
                lag(air_c + mesh, step_s, self.lag_s) + 0.2 * noise[2],
                rated_a * np.hypot(power, self.idle) * (1.0 + effect.current)
                * (1.0 + 0.01 * noise[3]),
                np.maximum(self.load_th * (load + 0.005 * noise[4]), 0.0),
                pull_kn * (1.0 + 0.01 * noise[5]),
                self.belt_ms * (1.0 - slip) * (1.0 + 0.002 * noise[6]),
                self.speed_rpm * (1.0 - slip) + 0.5 * noise[7],
            )
        )  # fmt: skip
        return rounded(readings, self.decimals)

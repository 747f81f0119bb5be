"""An oil-flooded screw compressor on a variable-speed drive, as seven sensors see it.

Its speed follows the demand of the net, whose pressure gives way where delivery is short. What is
lost in compression leaves with the oil, so that the discharge temperature tells load, efficiency
and the season.
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
_POWER_FACTOR = 0.88
_KW_PER_M3MIN = 6.2  # at 7 bar: a good machine's specific power


@dataclass(frozen=True, slots=True)
class Compressor:
    """One compressor of the fleet.

    Attributes:
        flow_m3h: rated delivery, of free air.
        pressure_bar: what it holds.
        speed_rpm: rated speed.
        vibration_mms: velocity, rms, of the healthy machine at rated speed.
        ambient_c: mean temperature of the air it draws.
        discharge_k: rise of the discharge above it at rated load.
        bearing_k: rise of the bearing above the air.
        lag_s: time constant of oil and bearing.
        begin_h: first working hour.
        idle: magnetising current as a share of the rated current.
        response: how strongly vibration and heat answer a fault.
    """

    flow_m3h: float
    pressure_bar: float
    speed_rpm: float
    vibration_mms: float
    ambient_c: float
    discharge_k: float
    bearing_k: float
    lag_s: float
    begin_h: float
    idle: float
    response: float

    channels: ClassVar[tuple[str, ...]] = (
        "vibration", "discharge_temp", "bearing_temp", "motor_current", "flow", "pressure", "speed",
    )  # fmt: skip
    units: ClassVar[tuple[str, ...]] = ("mm/s", "degC", "degC", "A", "m3/h", "bar", "rpm")
    decimals: ClassVar[tuple[int, ...]] = (3, 2, 2, 2, 1, 3, 1)
    what: ClassVar[str] = "screw compressor that follows the demand of a net, by shifts"
    faults: ClassVar[tuple[str, ...]] = (
        "bearing", "bearing_outer", "bearing_inner", "bearing_ball", "bearing_cage", "unbalance",
        "misalignment", "looseness", "fouling", "winding",
    )  # fmt: skip
    structure: ClassVar[Structure | None] = Structure(
        bearing=Bearing(balls=14, ball_mm=12.7, pitch_mm=70.0, contact_deg=40.0),
        vanes=4,
        mains_hz=50.0,
    )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a compressor."""
        return cls(
            flow_m3h=rng.uniform(300, 700),
            pressure_bar=rng.uniform(6.8, 7.6),
            speed_rpm=rng.uniform(2940, 2980),
            vibration_mms=rng.uniform(2.0, 3.2),
            ambient_c=rng.uniform(18, 26),
            discharge_k=rng.uniform(48, 56),
            bearing_k=rng.uniform(30, 38),
            lag_s=rng.uniform(1500, 2700),
            begin_h=rng.uniform(5, 7),
            idle=rng.uniform(0.25, 0.35),
            response=rng.uniform(0.85, 1.15),
        )

    def run(
        self,
        t: Floats,
        effect: Effect,
        rng: np.random.Generator,
        around: Surroundings | None = None,
    ) -> Floats:
        """Return what the sensors say at times ``t``: ``(n, 7)`` in the order of ``channels``."""
        n, step_s = len(t), step_of(t)
        around = around or Surroundings.none(n)
        noise = rng.standard_normal((7, n))
        rough = rng.standard_normal(n)
        works = lag(shifts(t, self.begin_h, self.begin_h + 16), step_s, 1200.0)
        demand = 0.45 + 0.40 * works + 0.05 * wander(rng, n, step_s, 2700)
        air_c = self.ambient_c + 3.0 * daily(t, 15.0) + 0.5 * wander(rng, n, step_s, 14400)

        air_c = air_c + around.ambient_k
        demand = np.clip(demand + around.demand, 0.3, 1.1)
        delivers = 1.0 - effect.head_loss + effect.roughness * rough
        speed = np.clip(demand, 0.3, 1.05)
        flow = speed * delivers
        pressure = np.clip(flow / demand, 0.5, 1.05) ** 0.8  # the net gives way where it is short
        rated_kw = self.flow_m3h / 60 * _KW_PER_M3MIN
        power = speed * (0.15 + 0.85 * pressure) / (1.0 - effect.efficiency_loss)
        idle_a = self.idle * current(np.array([rated_kw]), _MOTOR, _POWER_FACTOR)
        active_a = current(rated_kw * power, _MOTOR, _POWER_FACTOR)
        heat = 0.75 + 0.25 * power
        rubs = self.bearing_k * (0.6 + 0.4 * speed) * (1.0 + self.response * effect.friction)
        own = 0.6 + 0.4 * speed**2
        readings = np.column_stack(
            (
                self.vibration_mms * own * shaken(effect, self.response)
                * np.exp(0.06 * noise[0]),
                lag(air_c + self.discharge_k * heat, step_s, self.lag_s) + 0.2 * noise[1],
                lag(air_c + rubs, step_s, self.lag_s) + 0.15 * noise[2],
                np.hypot(active_a, idle_a) * (1.0 + effect.current) * (1.0 + 0.008 * noise[3]),
                self.flow_m3h * flow * (1.0 + 0.01 * noise[4]),
                self.pressure_bar * pressure * (1.0 + 0.004 * noise[5]),
                self.speed_rpm * speed + 1.0 * noise[6],
            )
        )  # fmt: skip
        return rounded(readings, self.decimals)

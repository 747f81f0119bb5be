"""A centrifugal fan in a duct, as six sensors see it.

A parabolic characteristic against a resistance without a static part, so that flow follows speed
and pressure its square; both heavier in cold air (the density goes by the inverse temperature).
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from contract.arrays import Floats
from contract.spec import Bearing
from simulator.faults.effect import Effect
from simulator.machines.machine import Surroundings, current, rounded, shaken, step_of
from simulator.machines.structure import Structure
from simulator.signals import daily, lag, wander

_SHUTOFF = 1.30  # pressure at no flow and rated speed, as a share of the rated pressure
_MOTOR = 0.91
_POWER_FACTOR = 0.84


@dataclass(frozen=True, slots=True)
class Fan:
    """One fan of the fleet.

    Attributes:
        flow_m3h: rated flow.
        pressure_pa: rated rise of pressure, at 20 degC.
        speed_rpm: rated speed.
        efficiency: at the best point.
        vibration_mms: velocity, rms, of the healthy machine at rated speed.
        ambient_c: mean temperature of the air it draws.
        heat_k: rise of the bearing above it at rated load.
        lag_s: time constant of the bearing's temperature.
        peak_h: hour of the day of the highest demand.
        swing: half the difference between day's and night's demand.
        idle: magnetising current as a share of the rated current.
        response: how strongly vibration and heat answer a fault.
    """

    flow_m3h: float
    pressure_pa: float
    speed_rpm: float
    efficiency: float
    vibration_mms: float
    ambient_c: float
    heat_k: float
    lag_s: float
    peak_h: float
    swing: float
    idle: float
    response: float

    channels: ClassVar[tuple[str, ...]] = (
        "vibration",
        "bearing_temp",
        "motor_current",
        "flow",
        "pressure",
        "speed",
    )
    units: ClassVar[tuple[str, ...]] = ("mm/s", "degC", "A", "m3/h", "Pa", "rpm")
    decimals: ClassVar[tuple[int, ...]] = (3, 2, 2, 0, 1, 1)
    what: ClassVar[str] = "centrifugal fan in a duct, its speed by the day's demand"
    faults: ClassVar[tuple[str, ...]] = (
        "unbalance", "misalignment", "looseness", "bearing", "bearing_outer", "bearing_inner",
        "bearing_ball", "bearing_cage", "fouling", "winding",
    )  # fmt: skip
    structure: ClassVar[Structure | None] = Structure(
        bearing=Bearing(balls=8, ball_mm=22.2, pitch_mm=96.0), vanes=11, mains_hz=50.0
    )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a fan."""
        return cls(
            flow_m3h=rng.uniform(12_000, 30_000),
            pressure_pa=rng.uniform(1200, 2200),
            speed_rpm=rng.uniform(1460, 1490),
            efficiency=rng.uniform(0.72, 0.82),
            vibration_mms=rng.uniform(1.0, 2.0),
            ambient_c=rng.uniform(16, 24),
            heat_k=rng.uniform(16, 24),
            lag_s=rng.uniform(2400, 5400),
            peak_h=rng.uniform(11, 15),
            swing=rng.uniform(0.08, 0.14),
            idle=rng.uniform(0.28, 0.38),
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
        rough = rng.standard_normal(n)
        demand = 0.85 + self.swing * daily(t, self.peak_h) + 0.02 * wander(rng, n, step_s, 5400)
        damper = 1.0 + 0.03 * wander(rng, n, step_s, 10800)
        air_c = self.ambient_c + 3.0 * daily(t, 15.0) + 0.5 * wander(rng, n, step_s, 14400)
        air_c = air_c + around.ambient_k

        speed = np.clip(demand + around.demand, 0.5, 1.05)
        density = 293.15 / (273.15 + air_c)
        wheel = 1.0 - effect.head_loss + effect.roughness * rough
        flow = speed * np.sqrt(_SHUTOFF * np.maximum(wheel, 0.05) / (_SHUTOFF - 1.0 + damper))
        rise = damper * flow**2 * density
        efficiency = (
            self.efficiency
            * (1.0 - 0.4 * (flow / speed - 1.0) ** 2)
            * (1.0 - effect.efficiency_loss)
        )
        rated_kw = self.flow_m3h / 3600 * self.pressure_pa / 1000
        active_a = current(rated_kw * flow * rise / efficiency, _MOTOR, _POWER_FACTOR)
        idle_a = self.idle * current(rated_kw / self.efficiency * np.ones(1), _MOTOR, _POWER_FACTOR)
        heat = self.heat_k * speed**1.5 * (0.7 + 0.3 * flow * rise)
        hotter = 1.0 + self.response * effect.friction
        own = 0.3 + 0.7 * speed**2
        readings = np.column_stack(
            (
                self.vibration_mms * own * shaken(effect, self.response)
                * np.exp(0.06 * noise[0]),
                lag(air_c + heat * hotter, step_s, self.lag_s) + 0.15 * noise[1],
                np.hypot(active_a, idle_a) * (1.0 + effect.current) * (1.0 + 0.008 * noise[2]),
                self.flow_m3h * flow * (1.0 + 0.008 * noise[3]),
                self.pressure_pa * rise * (1.0 + 0.006 * noise[4]),
                self.speed_rpm * speed + 0.8 * noise[5],
            )
        )  # fmt: skip
        return rounded(readings, self.decimals)

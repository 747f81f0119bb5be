"""A centrifugal pump on a variable-speed drive, as six sensors see it.

Head by the affinity laws and a parabolic characteristic against a system of static head and
friction; shaft power from hydraulic power and efficiency; current from power at 400 V; bearing heat
through a first-order lag. Not a model of transients: one sample is a steady state.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from contract.arrays import Floats
from contract.spec import Bearing
from simulator.faults.effect import Effect
from simulator.machines.machine import Surroundings
from simulator.machines.structure import Structure
from simulator.signals import daily, lag, wander

_SHUTOFF = 1.25  # head at no flow and rated speed, as a share of the rated head
_STATIC = 0.40  # of the system's head at rated flow: the height to be lifted
_FRICTION = 1.0 - _STATIC
_MOTOR = 0.92  # efficiency of motor and drive
_POWER_FACTOR = 0.86
_VOLTAGE = 400.0


@dataclass(frozen=True, slots=True)
class Pump:
    """One pump of the fleet: no two are alike.

    Attributes:
        flow_m3h: rated flow.
        pressure_bar: rated pressure difference.
        speed_rpm: rated speed.
        efficiency: at the best point.
        vibration_mms: velocity, rms, of the healthy machine at rated speed.
        ambient_c: mean temperature of the hall.
        heat_k: rise of the bearing above it at rated load.
        lag_s: time constant of the bearing's temperature.
        peak_h: hour of the day of the highest demand.
        swing: half the difference between day's and night's demand.
        idle: magnetising current as a share of the rated current.
        response: how strongly vibration and heat answer a fault.
        sensors: gain of each of the six sensors.
    """

    flow_m3h: float
    pressure_bar: float
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
    sensors: tuple[float, ...]

    channels: ClassVar[tuple[str, ...]] = (
        "vibration",
        "bearing_temp",
        "motor_current",
        "flow",
        "pressure",
        "speed",
    )
    units: ClassVar[tuple[str, ...]] = ("mm/s", "degC", "A", "m3/h", "bar", "rpm")
    decimals: ClassVar[tuple[int, ...]] = (3, 2, 2, 2, 3, 1)
    what: ClassVar[str] = "centrifugal pump on a variable-speed drive with a day-and-night duty"
    faults: ClassVar[tuple[str, ...]] = (
        "bearing", "cavitation", "fouling", "unbalance", "misalignment", "looseness",
        "bearing_outer", "bearing_inner", "bearing_ball", "bearing_cage", "winding",
    )  # fmt: skip
    structure: ClassVar[Structure | None] = Structure(
        bearing=Bearing(balls=8, ball_mm=17.5, pitch_mm=72.5), vanes=6, mains_hz=50.0
    )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a pump."""
        return cls(
            flow_m3h=rng.uniform(80, 160),
            pressure_bar=rng.uniform(3.5, 6.0),
            speed_rpm=rng.uniform(1465, 1490),
            efficiency=rng.uniform(0.70, 0.80),
            vibration_mms=rng.uniform(1.2, 2.2),
            ambient_c=rng.uniform(18, 27),
            heat_k=rng.uniform(20, 30),
            lag_s=rng.uniform(3600, 7200),
            peak_h=rng.uniform(10, 14),
            swing=rng.uniform(0.06, 0.12),
            idle=rng.uniform(0.25, 0.35),
            response=rng.uniform(0.85, 1.15),
            sensors=tuple(rng.uniform(0.97, 1.03, size=6).tolist()),
        )

    def run(
        self,
        t: Floats,
        effect: Effect,
        rng: np.random.Generator,
        around: Surroundings | None = None,
    ) -> Floats:
        """Return what the sensors say at times ``t`` (seconds UTC, evenly spaced): ``(n, 6)``.

        The order is that of ``channels``. What is drawn does not depend on the effect.
        """
        n, step_s = len(t), float(t[1] - t[0]) if len(t) > 1 else 600.0
        noise = rng.standard_normal((6, n))
        rough = rng.standard_normal(n)
        demand = 0.9 + self.swing * daily(t, self.peak_h) + 0.02 * wander(rng, n, step_s, 7200)
        valve = 1.0 + 0.03 * wander(rng, n, step_s, 10800)
        hall_c = self.ambient_c + 2.5 * daily(t, 15.0) + 0.5 * wander(rng, n, step_s, 14400)
        if around is not None:
            demand, hall_c = demand + around.demand, hall_c + around.ambient_k

        speed = np.clip(demand, 0.7, 1.02)  # as a share of the rated, like all that follows
        impeller = 1.0 - effect.head_loss + effect.roughness * rough
        flow = np.sqrt(
            np.maximum(_SHUTOFF * impeller * speed**2 - _STATIC, 0.01)
            / (_SHUTOFF - 1.0 + _FRICTION * valve)
        )
        head = _STATIC + _FRICTION * valve * flow**2
        efficiency = (
            self.efficiency
            * (1.0 - 0.4 * (flow / speed - 1.0) ** 2)
            * (1.0 - effect.efficiency_loss)
        )
        hydraulic_kw = self.flow_m3h / 3600 * self.pressure_bar * 100 * flow * head
        active_a = (
            1000 * hydraulic_kw / (efficiency * _MOTOR)
            / (np.sqrt(3) * _VOLTAGE * _POWER_FACTOR)
        )  # fmt: skip
        idle_a = self.idle * self._rated_a()
        heat = self.heat_k * speed**1.5 * (0.6 + 0.4 * flow * head)
        hotter = 1.0 + self.response * effect.friction
        own = 0.4 + 0.6 * speed**2
        shake = own * np.sqrt(1.0 + (self.response * effect.vibration) ** 2)

        readings = np.column_stack(
            (
                self.vibration_mms * shake * np.exp(0.06 * noise[0]),
                lag(hall_c + heat * hotter, step_s, self.lag_s) + 0.15 * noise[1],
                np.hypot(active_a, idle_a) * (1.0 + effect.current) * (1.0 + 0.008 * noise[2]),
                self.flow_m3h * flow * (1.0 + 0.008 * noise[3]),
                self.pressure_bar * head * (1.0 + 0.006 * noise[4]),
                self.speed_rpm * speed + 0.8 * noise[5],
            )
        ) * np.array(self.sensors)
        rounded: Floats = np.empty_like(readings)
        for column, decimals in enumerate(self.decimals):
            rounded[:, column] = np.round(readings[:, column], decimals)
        return rounded

    def _rated_a(self) -> float:
        power_kw = self.flow_m3h / 3600 * self.pressure_bar * 100 / (self.efficiency * _MOTOR)
        return float(1000 * power_kw / (np.sqrt(3) * _VOLTAGE * _POWER_FACTOR))

"""A turbofan-like engine: slow telemetry, a snapshot in cruise each flight.

Not a thermodynamic cycle: sensitivities about a cruise point, of the size and sign that a two-spool
engine has. What a fouled compressor lacks the control makes up by fuel, so that temperatures and
fuel flow rise and the margin of exhaust temperature is used up. The temperature of its bearings is
that of the oil that leaves them.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from contract.arrays import Floats
from simulator.faults.effect import Effect
from simulator.machines.machine import Surroundings, rounded, shaken, step_of
from simulator.machines.structure import Structure
from simulator.signals import wander


@dataclass(frozen=True, slots=True)
class Turbofan:
    """One engine of the fleet.

    Attributes:
        fan_rpm: in cruise.
        core_rpm: in cruise.
        hpc_r: temperature behind the compressor, degR.
        egt_r: temperature of the exhaust, degR.
        ps30_psia: static pressure behind the compressor.
        fuel_lbh: flow of fuel.
        vibration_mms: of the fan's rotor.
        response: how strongly it answers a fault.
    """

    fan_rpm: float
    core_rpm: float
    hpc_r: float
    egt_r: float
    ps30_psia: float
    fuel_lbh: float
    vibration_mms: float
    response: float

    channels: ClassVar[tuple[str, ...]] = (
        "altitude", "mach", "vibration", "fan_speed", "core_speed", "hpc_temp", "egt",
        "static_pressure", "fuel_flow", "bearing_temp",
    )  # fmt: skip
    units: ClassVar[tuple[str, ...]] = (
        "kft",
        "1",
        "mm/s",
        "rpm",
        "rpm",
        "degR",
        "degR",
        "psia",
        "lbm/h",
        "degC",
    )
    decimals: ClassVar[tuple[int, ...]] = (2, 3, 3, 1, 1, 2, 2, 2, 1, 2)
    what: ClassVar[str] = "turbofan-like engine, a snapshot in cruise each flight"
    faults: ClassVar[tuple[str, ...]] = ("fouling", "unbalance", "bearing")
    structure: ClassVar[Structure | None] = None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw an engine."""
        return cls(
            fan_rpm=rng.uniform(2370, 2400),
            core_rpm=rng.uniform(9020, 9080),
            hpc_r=rng.uniform(1575, 1595),
            egt_r=rng.uniform(1395, 1415),
            ps30_psia=rng.uniform(46.9, 47.6),
            fuel_lbh=rng.uniform(3400, 3900),
            vibration_mms=rng.uniform(3, 6),
            response=rng.uniform(0.85, 1.15),
        )

    def run(
        self,
        t: Floats,
        effect: Effect,
        rng: np.random.Generator,
        around: Surroundings | None = None,
    ) -> Floats:
        """Return what the sensors say at times ``t``: ``(n, 10)`` in the order of ``channels``."""
        n, step_s = len(t), step_of(t)
        around = around or Surroundings.none(n)
        noise = rng.standard_normal((10, n))
        altitude = 35.0 + rng.uniform(-1.0, 1.0, size=n)
        mach = 0.80 + rng.uniform(-0.01, 0.01, size=n)
        thrust = 1.0 + 0.01 * wander(rng, n, step_s, 20 * step_s) + around.demand
        air = 1.0 + (around.ambient_k - 1.98 * (altitude - 35.0)) / 219.0  # of the standard's

        lost = self.response * effect.efficiency_loss  # the fuel makes up for what is lost
        lacks = self.response * effect.head_loss
        dense = np.exp(-(altitude - 35.0) / 24.0) * (1.0 + 0.7 * (mach - 0.80))
        readings = np.column_stack(
            (
                altitude + 0.02 * noise[0],
                mach + 0.001 * noise[1],
                self.vibration_mms * thrust**2 * shaken(effect, self.response)
                * np.exp(0.06 * noise[2]),
                self.fan_rpm * thrust**0.5 * np.sqrt(air) + 1.5 * noise[3],
                self.core_rpm * thrust**0.35 * np.sqrt(air) * (1.0 + 0.03 * lost) + 4.0 * noise[4],
                self.hpc_r * thrust**0.25 * air * (1.0 + 0.05 * lost) + 2.0 * noise[5],
                self.egt_r * thrust**0.3 * air * (1.0 + 0.10 * lost) + 2.5 * noise[6],
                self.ps30_psia * thrust * dense * (1.0 - 0.6 * lacks) * (1.0 + 0.002 * noise[7]),
                self.fuel_lbh * thrust * dense * (1.0 + 0.20 * lost) * (1.0 + 0.003 * noise[8]),
                92.0 + 12.0 * self.response * effect.friction + 30.0 * (thrust - 1.0)
                + 0.6 * noise[9],
            )
        )  # fmt: skip
        return rounded(readings, self.decimals)

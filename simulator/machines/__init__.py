"""Machines: from times, a fault's effect and chance to what sensors say. One file a machine."""

from simulator.machines.compressor import Compressor
from simulator.machines.conveyor import Conveyor
from simulator.machines.fan import Fan
from simulator.machines.gearbox import Gearbox
from simulator.machines.machine import Machine, Surroundings
from simulator.machines.motor import Motor
from simulator.machines.pump import Pump
from simulator.machines.turbofan import Turbofan

MACHINES: dict[str, type[Machine]] = {
    "pump": Pump,
    "fan": Fan,
    "motor": Motor,
    "gearbox": Gearbox,
    "compressor": Compressor,
    "conveyor": Conveyor,
    "turbofan": Turbofan,
}
"""All there are, by the name that scenarios use."""

__all__ = ["MACHINES", "Machine", "Pump", "Surroundings"]

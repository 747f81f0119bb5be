"""Machines: from times, a fault's effect and chance to what sensors say. One file a machine."""

from simulator.machines.pump import Pump

MACHINES: dict[str, type[Pump]] = {"pump": Pump}
"""All there are, by the name that scenarios use."""

__all__ = ["MACHINES", "Pump"]

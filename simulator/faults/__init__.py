"""Faults: how severe at which age, and what each does to a machine. One file a fault."""

from simulator.faults.bearing import Bearing
from simulator.faults.cavitation import Cavitation
from simulator.faults.effect import Effect, Fault, felt_age
from simulator.faults.fouling import Fouling

FAULTS: dict[str, Fault] = {fault.name: fault for fault in (Bearing(), Cavitation(), Fouling())}
"""All there are, by the name that scenarios use."""

__all__ = ["FAULTS", "Effect", "Fault", "felt_age"]

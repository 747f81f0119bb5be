"""Faults: how severe at which age, and what each does to a machine. One file a fault."""

from simulator.faults.bearing import Bearing
from simulator.faults.bearing_ball import BearingBall
from simulator.faults.bearing_cage import BearingCage
from simulator.faults.bearing_inner import BearingInner
from simulator.faults.bearing_outer import BearingOuter
from simulator.faults.cavitation import Cavitation
from simulator.faults.effect import Effect, Fault, felt_age, moved
from simulator.faults.fouling import Fouling
from simulator.faults.gear_wear import GearWear
from simulator.faults.looseness import Looseness
from simulator.faults.misalignment import Misalignment
from simulator.faults.unbalance import Unbalance
from simulator.faults.winding import Winding

_ALL: tuple[Fault, ...] = (
    Bearing(),
    BearingOuter(),
    BearingInner(),
    BearingBall(),
    BearingCage(),
    Cavitation(),
    Fouling(),
    GearWear(),
    Looseness(),
    Misalignment(),
    Unbalance(),
    Winding(),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
"""All there are, by the name that scenarios use."""

__all__ = ["FAULTS", "Effect", "Fault", "felt_age", "moved"]

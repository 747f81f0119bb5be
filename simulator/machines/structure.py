"""By what a machine shakes: shaft, bearing, teeth, vanes, mains, and the housing's own ringing."""

import math
from dataclasses import dataclass

from contract.spec import Bearing
from simulator.faults.shaking import Part


@dataclass(frozen=True, slots=True)
class Structure:
    """What the lines of a vibration spectrum follow from.

    Attributes:
        bearing: that the sensor stands over.
        teeth: on the shaft; 0: there is no gear.
        vanes: or blades or lobes on the shaft; 0: none.
        mains_hz: of an electric motor on the shaft; 0: none.
        resonance_hz: at which the housing rings when it is struck.
        damping: of this ringing, as a share of the critical.
        noise_g: rms of the healthy machine's noise.
    """

    bearing: Bearing
    teeth: int = 0
    vanes: int = 0
    mains_hz: float = 0.0
    resonance_hz: float = 3600.0
    damping: float = 0.04
    noise_g: float = 0.06

    def order(self, part: Part) -> float:
        """Return how often a part of the bearing is struck per turn of the shaft, without slip.

        A spot on a ball strikes twice a spin, once on each ring: this is once.

        Source: R. B. Randall and J. Antoni, Rolling element bearing diagnostics: a tutorial,
        Mechanical Systems and Signal Processing 25 (2011), eq. 1 to 4.

        >>> skf_6205 = Structure(Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04))
        >>> [round(skf_6205.order(part), 3) for part in ("outer", "inner", "ball", "cage")]
        [3.585, 5.415, 2.357, 0.398]
        """
        bearing = self.bearing
        ratio = bearing.ball_mm / bearing.pitch_mm * math.cos(math.radians(bearing.contact_deg))
        orders: dict[Part, float] = {
            "outer": bearing.balls / 2 * (1 - ratio),
            "inner": bearing.balls / 2 * (1 + ratio),
            "ball": bearing.pitch_mm / (2 * bearing.ball_mm) * (1 - ratio**2),
            "cage": (1 - ratio) / 2,
        }
        return orders[part]

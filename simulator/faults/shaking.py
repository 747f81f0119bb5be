"""What a fault adds to the waveform of a vibration sensor, in terms of the machine's structure."""

from dataclasses import dataclass
from typing import Literal

Part = Literal["outer", "inner", "ball", "cage"]


@dataclass(frozen=True, slots=True)
class Shaking:
    """Additions at one severity; all are 0 where nothing is wrong.

    Attributes:
        shaft: lines at 1, 2, 3... times the speed, as multiples of the healthy line at 1.
        halves: lines at 0.5, 1.5, 2.5 and 3.5 times the speed, as multiples of the same.
        part: of the bearing, which is struck.
        blow: height of a strike, in g.
        worn: share of the strikes that have lost their rhythm: a spall that has spread.
        mesh: lines of the gear mesh, as multiples of the healthy one.
        sidebands: depth of the modulation of the mesh by the shaft, beside the healthy one.
        hiss: noise, as a multiple of the healthy one.
        pulse: depth of its modulation by the vanes that pass.
        hum: line at twice the mains, as a multiple of the healthy one.
    """

    shaft: tuple[float, ...] = ()
    halves: float = 0.0
    part: Part | None = None
    blow: float = 0.0
    worn: float = 0.0
    mesh: float = 0.0
    sidebands: float = 0.0
    hiss: float = 0.0
    pulse: float = 0.0
    hum: float = 0.0


def struck(part: Part, severity: float, blow: float) -> Shaking:
    """Return what a damaged part of a bearing adds.

    Strikes grow with the spall; in the last third it has spread, the strikes lose their rhythm and
    noise fills the gaps between them: that is why kurtosis falls again near the end while the rms
    goes on rising.

    Source: N. Tandon and A. Choudhury, A review of vibration and acoustic measurement methods for
    the detection of defects in rolling element bearings, Tribology International 32 (1999).
    """
    spread = max(severity - 0.65, 0.0) / 0.35
    return Shaking(
        part=part,
        blow=blow * min(severity, 0.65),
        worn=0.8 * spread,
        hiss=0.3 * severity + 16.0 * spread**2,
        shaft=(0.5 * severity,),
    )

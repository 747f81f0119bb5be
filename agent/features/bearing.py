"""Defect frequencies of a rolling-element bearing: how often a damaged part is struck."""

import math

from contract.spec import Bearing

LINES = ("bpfo", "bpfi", "bsf", "ftf")
"""Outer ring, inner ring, rolling element, cage."""


def orders(bearing: Bearing) -> dict[str, float]:
    """Return each defect frequency over the shaft's, for a turning inner ring that does not slip.

    ``bsf`` is the spin of a rolling element; a spot on it strikes twice a spin, once on each ring,
    so that its second harmonic is often the larger. Real bearings slip by one or two percent.

    Source: R. B. Randall and J. Antoni, Rolling element bearing diagnostics: a tutorial, Mechanical
    Systems and Signal Processing 25 (2011), eq. 1 to 4.

    The drive-end bearing of the Case Western Reserve University rig, SKF 6205-2RS:

    >>> skf_6205 = Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04)
    >>> {line: round(order, 3) for line, order in orders(skf_6205).items()}
    {'bpfo': 3.585, 'bpfi': 5.415, 'bsf': 2.357, 'ftf': 0.398}
    """
    ratio = bearing.ball_mm / bearing.pitch_mm * math.cos(math.radians(bearing.contact_deg))
    return {
        "bpfo": bearing.balls / 2.0 * (1.0 - ratio),
        "bpfi": bearing.balls / 2.0 * (1.0 + ratio),
        "bsf": bearing.pitch_mm / (2.0 * bearing.ball_mm) * (1.0 - ratio * ratio),
        "ftf": (1.0 - ratio) / 2.0,
    }

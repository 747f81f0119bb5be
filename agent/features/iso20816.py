"""Zones of vibration severity for industrial machines, by the velocity of a bearing housing.

A: newly commissioned; B: fit for long-term operation; C: not, so plan the repair; D: damaging.
The tables are data; a new edition is a new entry.

The standard judges broad-band rms velocity (10 to 1000 Hz; from 2 Hz for machines below 600 rpm,
which ``velocity_rms`` does not cover), in steady operation, by the largest of the directions
measured. It has criteria for displacement and for change, too: a zone alone is not an assessment.
"""

import numpy as np

from contract.arrays import Floats
from contract.errors import ConfigError
from contract.spec import Severity

_PART_3 = {
    (1, "rigid"): (2.3, 4.5, 7.1),
    (1, "flexible"): (3.5, 7.1, 11.0),
    (2, "rigid"): (1.4, 2.8, 4.5),
    (2, "flexible"): (2.3, 4.5, 7.1),
}
"""Group 1: above 300 kW, or electrical machines with shaft height 315 mm and more; 2: above 15 kW,
or shaft height 160 to 315 mm."""

BOUNDARIES = {"ISO 20816-3:2022": _PART_3, "ISO 10816-3:2009": _PART_3}
"""Edition, then group and support: A/B, B/C and C/D in mm/s rms; the newer edition is said to have
kept them (from public secondary sources, not from the standards themselves)."""


def boundaries(severity: Severity) -> tuple[float, float, float]:
    """Return the limits between the zones, in mm/s rms.

    >>> boundaries(Severity(group=2, support="flexible"))
    (2.3, 4.5, 7.1)

    Raises:
        ConfigError: no such edition, or it has no such group.
    """
    if severity.edition not in BOUNDARIES:
        raise ConfigError(
            f"severity: no table for edition {severity.edition!r}; there are {sorted(BOUNDARIES)}"
        )
    table = BOUNDARIES[severity.edition]
    if (severity.group, severity.support) not in table:
        raise ConfigError(
            f"severity: {severity.edition} has no group {severity.group} on {severity.support} "
            f"support; it has groups {sorted({group for group, _ in table})}"
        )
    return table[severity.group, severity.support]


def zone(velocity_mm_s: Floats, limits: tuple[float, float, float]) -> Floats:
    """Return the zone of each rms velocity, 1 to 4 for A to D; a value at a limit is below it.

    >>> zone(np.array([1.4, 1.5, 4.0, 9.0, np.nan]), (1.4, 2.8, 4.5)).tolist()
    [1.0, 2.0, 3.0, 4.0, nan]
    """
    found = 1.0 + np.searchsorted(np.asarray(limits), velocity_mm_s)
    return np.where(np.isnan(velocity_mm_s), np.nan, found)

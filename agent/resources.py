"""What the agent's process and its machine have left, for the status."""

import os
import shutil
from pathlib import Path

from contract.report import Resources

_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")


def look(state: Path) -> Resources | None:
    """Return what there is now; None where the system does not tell (no Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        free = shutil.disk_usage(state).free
        load = os.getloadavg()[0]
    except (OSError, ValueError, IndexError):
        return None
    return Resources(
        memory_mb=_step(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 5),
        disk_free_mb=_step(free / 1e6, 100),
        temperature_c=_temperature(),
        load=_step(load * 2, 1) / 2,
    )


def _temperature() -> int | None:
    try:
        return _step(int(_TEMPERATURE.read_text(encoding="ascii")) / 1000, 5)
    except (OSError, ValueError):
        return None


def _step(value: float, step: int) -> int:
    """Round to steps.

    >>> _step(63.2, 5)
    65
    """
    return step * round(value / step)

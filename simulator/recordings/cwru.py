"""Case Western Reserve University's bearing data: a motor with seeded faults, ``.mat`` files.

Bearing Data Center; see Smith and Randall, *Rolling element bearing diagnostics using the Case
Western Reserve University data: a benchmark study*, Mechanical Systems and Signal Processing 64-65
(2015). A file holds ``X105_DE_time`` (drive end), ``_FE_time`` (fan end), ``_BA_time`` (base), and
``X105RPM``; the rate of 12 or 48 kHz is not in it.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contract.arrays import Floats
from contract.errors import DataError
from simulator.recordings import mat, text
from simulator.recordings.series import Burst, Series

_TIME = re.compile(r"X(\d+)_(DE|FE|BA)_time")
_START_T = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


def load(where: Path, rate_hz: float = 12_000.0, samples: int = 4096) -> list[Series]:
    """Read all ``.mat`` files below a folder, each a machine of its own.

    Args:
        where: folder, or one file.
        rate_hz: of the recordings.
        samples: of a burst; what is left in the end is not played.

    Raises:
        DataError: a file holds no recording, or one shorter than a burst.
    """
    return [_read(path, rate_hz, samples) for path in text.found(where, ("*.mat",), "CWRU")]


def _read(path: Path, rate_hz: float, samples: int) -> Series:
    arrays = mat.load(path)
    waves = {
        match[2].lower(): (match[1], values.ravel())
        for name, values in arrays.items()
        if (match := _TIME.fullmatch(name))
    }
    if not waves:
        raise DataError(
            f"{path.name}: no X..._DE_time; there are {', '.join(arrays) or 'no arrays'}"
        )
    count = min(len(values) for _, values in waves.values()) // samples
    if not count:
        raise DataError(f"{path.name}: shorter than a burst of {samples} samples")
    t: Floats = _START_T + np.arange(count, dtype=np.float64) * (samples / rate_hz)
    bursts = tuple(
        Burst(when, channel, rate_hz, "g", values[at * samples : (at + 1) * samples])
        for at, when in enumerate(t.tolist())
        for channel, (_, values) in waves.items()
    )
    number = next(iter(waves.values()))[0]
    speed = arrays.get(f"X{number}RPM")
    # Nothing is said of a speed that was not recorded.
    values = np.empty((0, 0)) if speed is None else np.full((count, 1), speed.ravel()[0])
    units = {} if speed is None else {"speed": "rpm"}
    return Series(text.stem(path), units, t[: len(values)], values, bursts=bursts)

"""What others know of a recording: windows in which it is faulty, remaining lives at its end."""

import difflib
import math
from pathlib import Path

import msgspec
import numpy as np

from agent.files import times
from agent.files.text import Text
from agent.files.times import Integers
from contract.errors import DataError


def read_rul(path: Path) -> list[float]:
    """Read true remaining lives, one a line; raises ``DataError`` naming the line."""
    left: list[float] = []
    with Text(path) as text:
        for block in text.blocks():
            for number, line in enumerate(block.lines, start=block.first):
                if not line.strip():
                    continue
                try:
                    value = float(line)
                except ValueError as error:
                    word = line[:80].decode("utf-8", "replace")
                    raise DataError(f"{path}: line {number}: {word!r} is no number") from error
                if not 0 <= value < math.inf:
                    raise DataError(f"{path}: line {number}: a remaining life of {value:g}")
                left.append(value)
    return left


class Windows:
    """Times in which files are faulty, as the Numenta Anomaly Benchmark writes them.

    Raises:
        DataError: the file cannot be read, or is no such list.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._windows = msgspec.json.decode(
                path.read_bytes(), type=dict[str, list[tuple[str, str]]]
            )
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except msgspec.DecodeError as error:
            raise DataError(
                f'{path}: not windows: {error}; they are {{"folder/file.csv": [[from, to], ...]}}'
            ) from error

    def of(self, path: Path) -> Integers:
        """Return the windows of a recording ``(k, 2)``, ascending; raises ``DataError``."""
        name = path.name.removesuffix(".gz")
        full = f"{path.resolve().parent.name}/{name}"
        found = [key for key in self._windows if key.rpartition("/")[2] == name]
        if full in self._windows:
            found = [full]
        if len(found) != 1:
            near = difflib.get_close_matches(full, self._windows, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{self._path}: says nothing of {full!r}{meant}")
        try:
            pairs = [
                [times.moment_ns(moment, "Z") for moment in pair]
                for pair in self._windows[found[0]]
            ]
        except ValueError as error:
            raise DataError(f"{self._path}: {found[0]}: {error}") from error
        return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)

"""NASA C-MAPSS turbofan engines, run to failure (train) or cut off before it (test).

Saxena, Goebel, Simon and Eklund, *Damage propagation modeling for aircraft engine run-to-failure
simulation*, PHM 2008. A line is one cycle: unit, cycle, 3 settings, 21 sensors; blanks between and
at the end, no header. The last cycle of a training engine has a remaining life of 0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.errors import DataError
from simulator.recordings.text import lines, number, wrong

Split = Literal["train", "test"]

UNITS: dict[str, str] = {
    "setting_1": "kft",  # altitude
    "setting_2": "1",  # Mach number
    "setting_3": "deg",  # throttle resolver angle
    "T2": "degR",
    "T24": "degR",
    "T30": "degR",
    "T50": "degR",
    "P2": "psia",
    "P15": "psia",
    "P30": "psia",
    "Nf": "rpm",
    "Nc": "rpm",
    "epr": "1",
    "Ps30": "psia",
    "phi": "pps/psi",
    "NRf": "rpm",
    "NRc": "rpm",
    "BPR": "1",
    "farB": "1",
    "htBleed": "1",
    "Nf_dmd": "rpm",
    "PCNfR_dmd": "rpm",
    "W31": "lbm/s",
    "W32": "lbm/s",
}
"""Unit of each channel as in table 2 of the paper; ``1`` is a plain number."""

CHANNELS: tuple[str, ...] = tuple(UNITS)
SUBSETS = ("FD001", "FD002", "FD003", "FD004")
_COLUMNS = 2 + len(CHANNELS)


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """One engine's recording.

    Attributes:
        unit: its number in the file, from 1.
        cycles: ``(n,)`` 1 to n.
        values: ``(n, 24)`` in the order of ``CHANNELS``.
    """

    unit: int
    cycles: NDArray[np.int64]
    values: Floats

    def __len__(self) -> int:
        return len(self.cycles)


def load(folder: Path, subset: str, split: Split) -> list[Engine]:
    """Read all engines of ``train_FD001.txt`` or the like, plain or ``.gz``, in file order.

    Raises ``DataError`` with file, line and column where the file leaves its format.
    """
    path = _find(folder, f"{split}_{subset}.txt")
    engines: list[Engine] = []
    rows: list[list[float]] = []
    unit = 0
    for at, line in enumerate(lines(path), start=1):
        row = _row(path, at, line)
        if int(row[0]) != unit:
            if rows:
                engines.append(_engine(unit, rows))
            if row[0] <= unit:
                raise wrong(path, at, 1, f"unit {row[0]:g} comes after unit {unit}")
            unit, rows = int(row[0]), []
        if row[1] != len(rows) + 1:
            raise wrong(path, at, 2, f"cycle {row[1]:g} of unit {unit}, expected {len(rows) + 1}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: holds no engines")
    engines.append(_engine(unit, rows))
    return engines


def load_rul(folder: Path, subset: str) -> Floats:
    """Read ``RUL_FD001.txt`` or the like: cycles left after each test engine's last, ``(E,)``.

    Raises ``DataError`` where the number of lines is not that of the test engines.
    """
    path = _find(folder, f"RUL_{subset}.txt")
    left: list[float] = []
    for at, line in enumerate(lines(path), start=1):
        fields = line.split()
        if len(fields) != 1:
            raise wrong(path, at, None, f"{len(fields)} columns, expected 1")
        value = number(path, at, 1, fields[0])
        if value < 0:
            raise wrong(path, at, 1, f"a remaining life of {value:g} is below 0")
        left.append(value)
    engines = len(load(folder, subset, "test"))
    if len(left) != engines:
        raise DataError(
            f"{path.name}: {len(left)} lines, but test_{subset}.txt holds {engines} engines"
        )
    return np.array(left)


def _engine(unit: int, rows: list[list[float]]) -> Engine:
    table = np.array(rows)
    return Engine(unit, table[:, 1].astype(np.int64), np.ascontiguousarray(table[:, 2:]))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: neither {name} nor {name}.gz is there")


def _row(path: Path, at: int, line: str) -> list[float]:
    fields = line.split()
    if len(fields) != _COLUMNS:
        raise wrong(path, at, None, f"{len(fields)} columns, expected {_COLUMNS}")
    row = [number(path, at, column, field) for column, field in enumerate(fields, start=1)]
    for column, what in enumerate(("unit", "cycle"), start=1):
        if row[column - 1] < 1 or row[column - 1] != int(row[column - 1]):
            raise wrong(path, at, column, f"{fields[column - 1]!r} is not a {what} number from 1")
    return row

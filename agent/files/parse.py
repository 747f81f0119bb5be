"""Lines into numbers, a column of a block at a time; what is wrong is named with its place."""

import csv
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.files import times
from agent.files.table import Layout, Table
from agent.files.text import Lines
from contract.arrays import Floats
from contract.errors import ConfigError, DataError

SEPARATORS = (b",", b";", b"\t")
_TRUE = {b"true": True, b"yes": True, b"false": False, b"no": False}
NAMED = 3
"""Bad lines that are told in words; the others are counted."""


class Parsed(NamedTuple):
    """The rows of a block.

    Attributes:
        t_ns: ``(n,)``, or None where no column bears the time.
        values: ``(n, C)``, NaN where there is none.
        label: ``(n,)`` whether a row is faulty, or None.
        keys: per column of the asset's name its n fields.
    """

    t_ns: NDArray[np.int64] | None
    values: Floats
    label: NDArray[np.bool_] | None
    keys: list[list[bytes]]


class BadFieldError(ValueError):
    """A field that cannot be read.

    Attributes:
        column: its index; -1: the line as a whole.
    """

    def __init__(self, column: int, text: str) -> None:
        super().__init__(text)
        self.column = column


def separator_of(line: bytes) -> bytes:
    r"""Return what separates the fields of a line.

    >>> separator_of(b"a;b,c;d"), separator_of(b"1 2\t3"), separator_of(b"1  2")
    (b';', b'\t', b' ')
    """
    best = max(SEPARATORS, key=line.count)
    return best if best in line else b" "


def split(line: bytes, separator: bytes) -> list[bytes]:
    """Split one line into its fields; raises ``BadFieldError`` where its quotes do not close."""
    if separator == b" ":
        return line.split()
    if b'"' not in line:
        return line.split(separator)
    reader = csv.reader(
        [line.decode("utf-8", "surrogateescape")], delimiter=separator.decode(), strict=True
    )
    try:
        return [field.encode("utf-8", "surrogateescape") for field in next(reader)]
    except csv.Error as error:
        raise BadFieldError(-1, f"its quotes do not close ({error}); one row is one line") from None


class Parser:
    """Reads the rows of one file.

    Attributes:
        bad: lines that could not be read, and were passed over.
        offset: from UTC of times that bear none, "" where it is not said.
        time_index: of the column with the time.

    Args:
        path: of the file, for what is said of it.
        table: what it looks like.
        layout: which of its columns bear what.
        separator: of its fields.
        skip_bad: count a bad line, in place of raising ``DataError``.
        say: told of the first bad lines.
        transposed: what is a line here was a column in the file.
    """

    def __init__(
        self,
        path: Path,
        table: Table,
        layout: Layout,
        separator: bytes,
        *,
        skip_bad: bool,
        say: Callable[[str], None],
        transposed: bool = False,
    ) -> None:
        self._path = path
        self._table = table
        self._layout = layout
        self._separator = separator
        self._skip_bad = skip_bad
        self._say = say
        self._transposed = transposed
        self.offset = table.time.offset
        self.time_index = layout.time
        self._missing = frozenset(word.encode() for word in table.missing)
        self._kind = table.time.kind
        self._start_ns, self._step_ns = 0, 0
        if table.time.step_s is not None:
            self._kind = "number"
            self._step_ns = max(1, round(table.time.step_s * 1e9))
            self._start_ns = start_ns(table)
        self.bad = 0

    def parse(self, block: Lines) -> Parsed:
        """Return the rows of some lines; blank lines are none.

        Raises:
            DataError: names file, line and column.
        """
        lines = [line for line in block.lines if line and not line.isspace()]
        try:
            return self.fields(lines)
        except BadFieldError:
            return self._one_by_one(block)

    def _one_by_one(self, block: Lines) -> Parsed:
        good: list[bytes] = []
        for number, line in enumerate(block.lines, start=block.first):
            if not line or line.isspace():
                continue
            try:
                self.fields([line])
                good.append(line)
            except BadFieldError as error:
                self.refuse(number, error)
        return self.fields(good)

    def refuse(self, line: int, error: BadFieldError) -> None:
        """Count what cannot be read, or raise ``DataError``."""
        place = f"line {line}"
        if error.column >= 0:
            name = self._layout.names[error.column]
            line, column = (
                (error.column + 1, line) if self._transposed else (line, error.column + 1)
            )
            place = f"line {line}, column {column} ({name})"
        text = f"{self._path}: {place}: {error}"
        if not self._skip_bad:
            raise DataError(f"{text}; --skip-bad passes such lines over, and counts them")
        self.bad += 1
        if self.bad <= NAMED:
            self._say(f"{text}: passed over")

    def fields(self, lines: Sequence[bytes]) -> Parsed:
        """Return rows; raises ``BadFieldError``."""
        layout, width = self._layout, len(self._layout.names)
        if not lines:
            flat: list[bytes] = []
        elif self._separator != b" " and not any(b'"' in line for line in lines):
            most = width - 1
            for line in lines:
                if line.count(self._separator) != most:
                    raise _miscounted(line.count(self._separator) + 1, width)
            flat = self._separator.join(lines).split(self._separator)
        else:
            rows = [split(line, self._separator) for line in lines]
            for row in rows:
                if len(row) != width:
                    raise _miscounted(len(row), width)
            flat = list(chain.from_iterable(rows))
        values = np.empty((len(lines), len(layout.numbers)))
        for j, i in enumerate(layout.numbers):
            values[:, j] = self._numbers(flat[i::width], i)
        t_ns = label = None
        if layout.time >= 0:
            t_ns = self.times(flat[layout.time :: width])
        if layout.label >= 0:
            label = self._labels(flat[layout.label :: width])
        return Parsed(t_ns, values, label, [flat[i::width] for i in layout.keys])

    def _numbers(self, fields: list[bytes], column: int) -> Floats:
        if self._table.decimal == ",":
            fields = [field.replace(b",", b".") for field in fields]
        try:
            numbers = np.fromiter(map(float, fields), np.float64, len(fields))
        except ValueError:
            numbers = np.array([self._number(field, column) for field in fields])
        if b"_" in b"".join(fields):  # which Python's numbers may have, and no file's
            raise BadFieldError(column, "a number has no underscore")
        return numbers

    def _number(self, field: bytes, column: int) -> float:
        try:
            return float(field)
        except ValueError:
            if field.strip().strip(b'"') in self._missing:
                return np.nan
            raise BadFieldError(column, f"{_text(field)} is not a number") from None

    def times(self, fields: list[bytes]) -> NDArray[np.int64]:
        """Return the times of rows; raises ``BadFieldError``."""
        if not fields:
            return np.empty(0, dtype=np.int64)
        time = self._table.time
        if time.kind != "number" and b'"' in b"".join(fields):
            fields = [field.strip(b'" ') for field in fields]
        if self._kind == "auto":
            self._kind = "epoch" if times.is_number(fields[0]) else "iso"
        try:
            if self._kind == "number":
                return times.number_ns(fields, self._start_ns, self._step_ns)
            if self._kind == "epoch":
                return times.epoch_ns(fields, time.unit)
            return times.iso_ns(fields, time.offset)
        except ValueError as error:
            raise BadFieldError(self._layout.time, str(error)) from error

    def _labels(self, fields: list[bytes]) -> NDArray[np.bool_]:
        try:
            numbers = np.fromiter(map(float, fields), np.float64, len(fields))
        except ValueError:
            found = [_TRUE.get(field.strip().lower()) for field in fields]
            if None in found:
                wrong = fields[found.index(None)]
                text = f"the label {_text(wrong)} is neither a number nor true or false"
                raise BadFieldError(self._layout.label, text) from None
            return np.array(found, dtype=np.bool_)
        if np.isnan(numbers).any():
            raise BadFieldError(self._layout.label, "a label is missing")
        return np.asarray(numbers != 0)


def start_ns(table: Table) -> int:
    """Return the time of row 0; raises ``ConfigError``."""
    try:
        return times.moment_ns(table.time.start, table.time.offset)
    except ValueError as error:
        raise ConfigError(f"time.start: {error}") from error


def _miscounted(found: int, width: int) -> BadFieldError:
    return BadFieldError(-1, f"{found} columns, expected {width}")


def _text(field: bytes) -> str:
    return repr(field.decode("utf-8", "replace")[:80])

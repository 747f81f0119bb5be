"""Parquet files, where pyarrow is installed: read by batches of rows, as text files are."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.files import times
from agent.files.parse import BadFieldError, Parsed, Parser
from agent.files.table import Layout
from contract.arrays import Floats
from contract.errors import DataError

MAGIC = b"PAR1"
ROWS = 2048
"""In a batch."""


class Parquet:
    """A Parquet file, open.

    Attributes:
        names: of its columns.
        done: share of its rows that was read.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            arrow = importlib.import_module("pyarrow")
            reader = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise DataError(
                f"{path}: Parquet is read with pyarrow: pip install 'runout[parquet]'"
            ) from error
        self._error: type[Exception] = arrow.ArrowException
        try:
            self._file: Any = reader.ParquetFile(path)
        except (self._error, OSError) as error:
            raise DataError(f"{path}: not a whole Parquet file ({error})") from error
        self.names: list[str] = list(self._file.schema_arrow.names)
        self.done = 0.0

    def parts(self, parser: Parser, layout: Layout) -> Iterator[Parsed]:
        """Yield the file's rows, once."""
        whole = max(1, self._file.metadata.num_rows)
        seen = 0
        try:
            for batch in self._file.iter_batches(batch_size=ROWS):
                yield self._part(batch, parser, layout, seen)
                seen += batch.num_rows
                self.done = seen / whole
        except (self._error, OSError) as error:
            raise DataError(f"{self._path}: after row {seen}: {error}") from error

    def _part(self, batch: Any, parser: Parser, layout: Layout, row: int) -> Parsed:
        n = batch.num_rows
        values = np.empty((n, len(layout.numbers)))
        try:
            for j, i in enumerate(layout.numbers):
                values[:, j] = self._numbers(batch.column(i), i)
            t_ns = self._times(batch.column(layout.time), parser) if layout.time >= 0 else None
            label = None
            if layout.label >= 0:
                label = np.asarray(self._numbers(batch.column(layout.label), layout.label) != 0)
        except BadFieldError as error:
            name = layout.names[error.column]
            raise DataError(
                f"{self._path}: rows {row + 1} to {row + n}, column {name}: {error}"
            ) from error
        keys = [[_text(value) for value in batch.column(i).to_pylist()] for i in layout.keys]
        return Parsed(t_ns, values, label, keys)

    def _numbers(self, column: Any, index: int) -> Floats:
        try:
            numbers: Floats = column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
        except self._error as error:
            raise BadFieldError(index, f"is of type {column.type}, no numbers") from error
        return numbers

    def _times(self, column: Any, parser: Parser) -> NDArray[np.int64]:
        if column.null_count:
            raise BadFieldError(parser.time_index, "a time is missing")
        if not str(column.type).startswith("timestamp"):
            return parser.times([_text(value) for value in column.to_pylist()])
        zone = column.type.tz
        if zone is None and not parser.offset:
            raise BadFieldError(
                parser.time_index,
                "the times have no offset from UTC: say it with --offset, for example +01:00",
            )
        moments = column.cast(f"timestamp[ns{', UTC' if zone else ''}]")
        t_ns: NDArray[np.int64] = moments.cast("int64").to_numpy(zero_copy_only=False)
        return t_ns if zone else t_ns - times.offset_ns(parser.offset)


def _text(value: object) -> bytes:
    return str(value).encode()

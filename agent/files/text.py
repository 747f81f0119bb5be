"""Lines of a text file, plain or gzipped, a block at a time: memory does not grow with the file."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from contract.errors import DataError

BLOCK = 128 * 1024
"""Bytes of text in one block: some hundred rows, so that a batch is as large as a live one."""
MOST_LINE = 1024 * 1024
"""Bytes of a line, or of a transposed file's lines each."""
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class Lines(NamedTuple):
    """Whole lines, without their ends.

    Attributes:
        first: number of the first, from 1.
        lines: themselves; blank ones too.
    """

    first: int
    lines: list[bytes]


class Text:
    """A file of lines.

    Attributes:
        path: of the file.
        size: of it on the disk, in bytes.

    Raises:
        DataError: on opening or reading: it cannot be, or is no whole gzip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw: BinaryIO | None = None
        try:
            self._raw = path.open("rb")
            self.size = path.stat().st_size
            zipped = self._raw.read(2) == _GZIP
            self._raw.seek(0)
        except OSError as error:
            self.close()
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        if path.suffix == ".gz" and not zipped:
            self.close()
            raise DataError(f"{path}: not a gzip file, as its name says; unpack or rename it")
        self._file: BinaryIO | gzip.GzipFile = self._raw
        if zipped:
            self._file = gzip.GzipFile(fileobj=self._raw)
        try:
            self._ahead = self._read().removeprefix(_BOM)
        except DataError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close; safe more than once."""
        if self._raw is not None:
            self._raw.close()

    @property
    def done(self) -> int:
        """Return how many bytes of it on the disk were read."""
        return self._raw.tell() if self._raw is not None and not self._raw.closed else self.size

    @property
    def begin(self) -> bytes:
        """Return the beginning of the file."""
        return self._ahead

    def head(self, most: int) -> list[bytes]:
        """Return the first lines that are not blank, as far as one block holds them whole."""
        whole = self._ahead
        if len(whole) >= BLOCK:
            whole = whole[: whole.rfind(b"\n") + 1] or whole
        lines = (line.strip() for line in whole.splitlines())
        return [line for line in lines if line][:most]

    def blocks(self) -> Iterator[Lines]:
        """Yield the file's lines, once."""
        number = 1
        block, self._ahead = self._ahead, b""
        rest = b""
        while block:
            whole, newline, tail = block.rpartition(b"\n")
            if newline:
                lines = (rest + whole).replace(b"\r\n", b"\n").removesuffix(b"\r").split(b"\n")
                yield Lines(number, lines)
                number += len(lines)
                rest = tail
            else:
                rest += tail
                if len(rest) > MOST_LINE:
                    raise DataError(
                        f"{self.path}: line {number} is longer than {MOST_LINE} bytes: no table"
                    )
            block = self._read()
        if rest:
            yield Lines(number, [rest.removesuffix(b"\r")])

    def _read(self) -> bytes:
        try:
            return self._file.read(BLOCK)
        except EOFError as error:
            raise DataError(f"{self.path}: ends before its gzip stream does: truncated") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{self.path}: not a whole gzip file ({error})") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error

"""Text of recordings, plain or gzipped, with errors that name file, line and column."""

import gzip
import math
import zlib
from pathlib import Path

from contract.errors import DataError


def lines(path: Path, encoding: str = "ascii") -> list[str]:
    """Return the lines without the blank ones at the end; raises ``DataError``."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except EOFError as error:
        raise DataError(f"{path.name}: ends before its gzip stream does: truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path.name}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    # What cannot be decoded becomes a mark that is no number, and so is reported with its place.
    return content.decode(encoding, errors="replace").rstrip().splitlines()


def number(path: Path, line: int, column: int, field: str) -> float:
    """Read a finite number; raises ``DataError``."""
    try:
        value = float(field)
    except ValueError as error:
        raise wrong(path, line, column, f"{field!r} is not a number") from error
    if not math.isfinite(value) or "_" in field:
        raise wrong(path, line, column, f"{field!r} is not a finite number")
    return value


def wrong(path: Path, line: int, column: int | None, text: str) -> DataError:
    """Return the error of a place."""
    place = f"{path.name}: line {line}" + (f", column {column}" if column else "")
    return DataError(f"{place}: {text}")


def stem(path: Path) -> str:
    """Return a file's name without its endings.

    >>> stem(Path("valve1/0.csv.gz"))
    '0'
    """
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def found(where: Path, patterns: tuple[str, ...], what: str) -> list[Path]:
    """Return the files below a folder, by patterns, in order; or the file itself.

    A file that is there plain and gzipped is read once.

    Raises:
        DataError: there is none.
    """
    if where.is_file():
        return [where]
    paths: dict[str, Path] = {}
    for pattern in patterns:
        for path in sorted([*where.rglob(f"{pattern}.gz"), *where.rglob(pattern)]):
            paths[str(path).removesuffix(".gz")] = path
    if not paths:
        raise DataError(
            f"{where}: {what} is not there; looked for {' and '.join(patterns)}, plain or .gz"
        )
    return [paths[name] for name in sorted(paths, key=_natural)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort 2 before 10."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for letter in name + "/":
        if letter.isascii() and letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts

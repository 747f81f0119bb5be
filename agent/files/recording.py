"""One recorded file as chunks of rows: which asset, when, which values; and how assets ended."""

import fnmatch
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agent.files import parquet
from agent.files.chunk import Chunk, Ended, Look
from agent.files.formats import recognise
from agent.files.parse import BadFieldError, Parsed, Parser, separator_of, split, start_ns
from agent.files.table import OF_FILE, PLACE, Layout, stem
from agent.files.text import MOST_LINE, Lines, Text
from agent.files.times import Integers
from contract import topics
from contract.errors import ConfigError, DataError


class Recording:
    """A file of rows, open.

    Attributes:
        path: of the file.
        format: name of the format, "" where it is described elsewhere.
        table: what it looks like.
        layout: which of its columns bear what.
        failing: whether the end of an asset's rows is its failure.

    Args:
        path: of the file.
        look: how it is to be read.
        known: channels that somebody has a use for.
        counted: rows per asset of the files before, for rows without a time; added to.
        most_assets: that may be in it.
        windows: in which it is faulty, ``(k, 2)`` nanoseconds, ascending; None: not known.
        say: told of the first bad lines.

    Raises:
        DataError, ConfigError: it cannot be read.
    """

    def __init__(
        self,
        path: Path,
        look: Look,
        known: set[str],
        counted: dict[str, int],
        *,
        most_assets: int,
        windows: Integers | None,
        say: Callable[[str], None],
    ) -> None:
        self.path = path
        self._look = look
        self._counted = counted
        self._most_assets = most_assets
        self._windows = windows
        self._text = Text(path)
        try:
            self._open(look, known, say)
        except (DataError, ConfigError):
            self.close()
            raise
        self.failing = self.table.ends == "failed" and any(
            fnmatch.fnmatchcase(stem(path), pattern) for pattern in self.table.ends_in
        )
        self._start_ns = start_ns(self.table)
        self._names: dict[tuple[bytes, ...], str] = {}
        self._last: dict[str, tuple[int, bool]] = {}
        """Per asset the time of its last row, and whether that row is wanted."""
        self._present = ""
        self._over: set[str] = set()
        self._row = 0
        self._bad = 0

    def _open(self, look: Look, known: set[str], say: Callable[[str], None]) -> None:
        self._parquet: parquet.Parquet | None = None
        where = str(self.path)
        if self._text.begin[:4] == parquet.MAGIC:
            self.format = look.format
            self.table = look.table("")
            self._parquet = parquet.Parquet(self.path)
            names, separator, self._across = self._parquet.names, b",", False
        else:
            head = self._text.head(1)
            if not head:
                raise DataError(f"{self.path}: holds no rows")
            found = recognise(head)
            self.table = look.table(found)
            self.format = look.format or ("" if look.columns else found)
            separator = self.table.separator.encode()
            if separator == b"auto":
                separator = separator_of(head[0])
            first = self._fields(head[0], separator)
            names = list(self.table.names) or [f.decode("utf-8", "replace") for f in first]
            across = self.table.transposed
            self._across = len(first) != len(names) if across == "auto" else across
        self.layout = Layout(self.table, names, known, where)
        self._separator = separator
        self._parser = Parser(
            self.path, self.table, self.layout, separator,
            skip_bad=look.skip_bad, say=say, transposed=self._across,
        )  # fmt: skip

    def _fields(self, line: bytes, separator: bytes) -> list[bytes]:
        try:
            return [field.strip() for field in split(line, separator)]
        except BadFieldError as error:
            raise DataError(f"{self.path}: line 1: {error}") from error

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
        self._text.close()

    @property
    def done(self) -> float:
        """Return the share of the file that was read."""
        if self._parquet is not None:
            return self._parquet.done
        return self._text.done / max(1, self._text.size)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the file's rows, once; the last chunk may hold nothing but ends.

        Raises:
            DataError: names file, line and column.
        """
        if self._parquet is not None:
            parts = self._parquet.parts(self._parser, self.layout)
        elif self._across:
            parts = self._transposed()
        else:
            parts = self._lines()
        for parsed in parts:
            yield self._chunk(parsed)
        if not self._row:
            raise DataError(f"{self.path}: holds no rows")
        ends = self._ends()
        if ends:
            yield self._chunk(self._parser.fields([]))._replace(ended=ends)

    def _ends(self) -> list[Ended]:
        if not self.failing:
            return []
        names = [self._present] if self.table.contiguous else self._last
        last = [(t_ns, name) for name in names for t_ns, wanted in [self._last[name]] if wanted]
        return [Ended(0, name, t_ns) for t_ns, name in sorted(last)]

    def _lines(self) -> Iterator[Parsed]:
        header: list[bytes] | None = [name.encode() for name in self.layout.names]
        for block in self._text.blocks():
            lines = block
            if header is not None:
                blank = next((i for i, line in enumerate(block.lines) if line.strip()), None)
                if blank is None:
                    continue
                fields = self._fields(block.lines[blank].strip(), self._separator)
                if not self.table.names or fields == header:
                    lines = Lines(block.first + blank + 1, block.lines[blank + 1 :])
                header = None
            yield self._parser.parse(lines)

    def _transposed(self) -> Iterator[Parsed]:
        """Yield the rows of a file whose lines are columns: it is read whole, and so is bounded."""
        names = self.table.names
        columns: list[list[bytes]] = []
        size = 0
        for block in self._text.blocks():
            columns += [split(line, self._separator) for line in block.lines if line.strip()]
            size += sum(map(len, block.lines))
            if len(columns) > len(names) or size > len(names) * MOST_LINE:
                break
        if len(columns) != len(names) or len({len(column) for column in columns}) != 1:
            raise DataError(
                f"{self.path}: line 1: {len(columns[0])} columns, expected {len(names)}; or "
                f"{len(names)} lines of one length, a line a column"
            )
        rows = [self._separator.join(row) for row in zip(*columns, strict=True)]
        yield self._parser.parse(Lines(1, rows))

    def _chunk(self, parsed: Parsed) -> Chunk:
        n = len(parsed.values)
        assets, which = self._assets(parsed.keys, n)
        t_ns = parsed.t_ns
        if t_ns is None:
            t_ns = self._counted_times(assets, which)
        label = self._label(t_ns, parsed.label)
        self._row += n
        wanted = (t_ns >= self._look.from_ns) & (t_ns < self._look.until_ns)
        ended = self._turns(assets, which, t_ns, wanted) if n else []
        bad, self._bad = self._parser.bad - self._bad, self._parser.bad
        chunk = Chunk(assets, which, t_ns, parsed.values, label, ended, bad)
        if wanted.all():
            return chunk
        before = np.concatenate(([0], np.cumsum(wanted)))
        return chunk._replace(
            which=which[wanted],
            t_ns=t_ns[wanted],
            values=parsed.values[wanted],
            label=None if label is None else label[wanted],
            ended=[end._replace(at=int(before[end.at])) for end in ended],
        )

    def _assets(self, keys: list[list[bytes]], n: int) -> tuple[list[str], Integers]:
        if not keys or not n:
            return [self._name(())] if not keys else [], np.zeros(n, dtype=np.int64)
        rows = list(zip(*keys, strict=True))
        if rows.count(rows[0]) == n:
            return [self._name(rows[0])], np.zeros(n, dtype=np.int64)
        place: dict[tuple[bytes, ...], int] = {}
        which = [place.setdefault(row, len(place)) for row in rows]
        return [self._name(row) for row in place], np.array(which)

    def _name(self, key: tuple[bytes, ...]) -> str:
        name = self._names.get(key)
        if name is None:
            name = PLACE.sub(lambda match: self._part(match[1], key), self.layout.asset)
            try:
                topics.check_name(name, "asset")
            except ValueError as error:
                raise DataError(f"{self.path}: {error}: give it another name, --asset") from error
            if len(self._names) >= self._most_assets:
                raise DataError(f"{self.path}: over limits.assets = {self._most_assets} assets")
            self._names[key] = name
        return name

    def _part(self, word: str, key: tuple[bytes, ...]) -> str:
        if word in OF_FILE:
            return stem(self.path) if word == "stem" else self.path.resolve().parent.name
        return key[int(word)].decode("utf-8", "replace").strip(' "')

    def _counted_times(self, assets: list[str], which: Integers) -> Integers:
        """Return the times of rows that are only counted, each asset's own."""
        step_ns = max(1, round((self.table.time.step_s or 0.0) * 1e9))
        number = np.empty(len(which), dtype=np.int64)
        for k, name in enumerate(assets):
            at = np.flatnonzero(which == k)
            before = self._counted.get(name, 0)
            number[at] = before + 1 + np.arange(len(at))
            self._counted[name] = before + len(at)
        return self._start_ns + number * step_ns

    def _label(self, t_ns: Integers, label: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        if self._windows is not None:
            begun = np.searchsorted(self._windows[:, 0], t_ns, side="right")
            over = np.searchsorted(self._windows[:, 1], t_ns, side="left")
            return np.asarray(begun > over)
        if label is not None:
            return label
        for pattern, first in self.table.faults.items():
            if fnmatch.fnmatchcase(stem(self.path), pattern):
                number = self._row + np.arange(len(t_ns))
                return number >= first if first >= 0 else np.zeros(len(t_ns), dtype=np.bool_)
        return None

    def _turns(
        self, assets: list[str], which: Integers, t_ns: Integers, wanted: NDArray[np.bool_]
    ) -> list[Ended]:
        """Note the last row of each asset; return the ends that are known by now."""
        if not self.failing:
            return []
        ended: list[Ended] = []
        if not self.table.contiguous:
            for k, name in enumerate(assets):
                at = int(np.flatnonzero(which == k)[-1])
                self._last[name] = int(t_ns[at]), bool(wanted[at])
            return ended
        starts = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist()]
        for start, end in zip(starts, [*starts[1:], len(which)], strict=True):
            name = assets[which[start]]
            if name != self._present:
                if name in self._over:
                    raise DataError(
                        f"{self.path}: row {self._row - len(which) + start + 1}: asset {name!r} "
                        "comes again after others, but its rows are said to stand together"
                    )
                if self._present:
                    last, inside = self._last.pop(self._present)
                    if inside:
                        ended.append(Ended(start, self._present, last))
                self._over.add(name)
                self._present = name
            self._last[name] = int(t_ns[end - 1]), bool(wanted[end - 1])
        return ended

"""What a table file looks like: said once, in a few keys, for any number of files like it.

A description is built in (``agent.files.formats``) or a TOML file of one's own:

.. code-block:: toml

    asset = "press-{machine}"
    label = "faulty"
    ignore = ["operator"]
    [time]
    column = "when"
    offset = "+01:00"
    [channels]
    "Oil temp" = {channel = "oil_temperature", unit = "degF"}
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contract import units
from contract.config import load_toml
from contract.errors import ConfigError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?")
PLACE = re.compile(r"\{([^{}]+)\}")
OF_FILE = frozenset({"stem", "folder"})
"""In the name of an asset: the file's name without its endings, and its folder's name."""
TIME_NAMES = ("t", "time", "timestamp", "datetime", "date")
_OFFSET = re.compile(r"Z|[+-]\d\d:?\d\d")


class Time(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a row was measured.

    Attributes:
        column: that says it; absent: one called t, time, timestamp, datetime or date, if there is.
        kind: ``iso`` (ISO 8601, with ``T`` or a blank), ``epoch`` (since 1970 UTC), ``number`` (of
            a row or cycle); ``auto``: ``number`` where ``step_s`` is given, else ``iso`` or
            ``epoch`` by the file's first row.
        unit: of an epoch; ``auto``: by its size, as in ``agent.decode.json``.
        offset: from UTC of times that bear none: ``Z`` or ``+01:00``; without it they are refused.
        step_s: seconds from one number to the next; where no column bears it, from one row of an
            asset to the next, through all of its files.
        start: time of number 0; the first row without a column has number 1.
    """

    column: str = ""
    kind: Literal["auto", "iso", "epoch", "number"] = "auto"
    unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    offset: str = ""
    step_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    start: str = "1970-01-01T00:00:00Z"

    def __post_init__(self) -> None:
        """Refuse what could not be read; msgspec turns this into an error with the path."""
        if self.offset and not _OFFSET.fullmatch(self.offset):
            raise ValueError(f"offset {self.offset!r}: write it as Z or +01:00")
        if self.kind == "number" and self.step_s is None:
            raise ValueError("a number of a row needs step_s, the seconds from one to the next")
        if self.step_s is not None and self.kind in {"iso", "epoch"}:
            raise ValueError(f"step_s goes with numbers of rows, not with kind {self.kind!r}")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which channel a column bears.

    Attributes:
        channel: of the asset class.
        unit: of the values in the file; absent: the one the asset class declares.
    """

    channel: str
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse an unknown unit; msgspec turns this into an error with the path."""
        if self.unit:
            units.check(self.unit)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of rows, one of an asset at a time.

    Attributes:
        separator: of the fields; ``auto``: of comma, semicolon, tab and blanks the one that the
            first line has most of, in this order; `` `` is any run of blanks.
        decimal: the decimal sign.
        names: of the columns, where the file bears no header (one that equals them is skipped).
        asset: its name, of ``{column}``, ``{stem}`` (the file's name without its endings) and
            ``{folder}`` (the name of the folder it is in); absent: ``{asset}`` where there is such
            a column, else ``{stem}``.
        time: when each row was measured.
        channels: per column the channel it bears; absent: each column bears the channel of its own
            name, with ``_`` for blanks; a unit may stand behind it: ``oil temp [degF]``.
        ignore: columns that are no channels.
        label: column that says whether a row is faulty: not 0, true. Judged against, never used.
        faults: for a file whose stem matches a pattern, the rows (from 0) at which a fault begins;
            below 0: there is none. The first match holds; used where ``label`` is not.
        ends: what the end of an asset's rows means: ``failed``, or nothing.
        ends_in: patterns of the stems of files to which ``ends`` applies.
        contiguous: all rows of an asset stand together; its end is known where the next begins,
            not only where the file ends.
        transposed: a line holds one column; ``auto``: if there are as many lines as ``names``.
        missing: fields that mean there is no value.
    """

    separator: Literal["auto", ",", ";", "\t", " "] = "auto"
    decimal: Literal[".", ","] = "."
    names: tuple[str, ...] = ()
    asset: str = ""
    time: Time = Time()
    channels: dict[str, Source] = {}
    ignore: tuple[str, ...] = ()
    label: str = ""
    faults: dict[str, int] = {}
    ends: Literal["", "failed"] = ""
    ends_in: tuple[str, ...] = ("*",)
    contiguous: bool = False
    transposed: bool | Literal["auto"] = False
    missing: tuple[str, ...] = MISSING

    def __post_init__(self) -> None:
        """Refuse what no file could be; msgspec turns this into an error with the path."""
        if len(set(self.names)) != len(self.names):
            raise ValueError("names: a column stands twice")
        if self.transposed and not self.names:
            raise ValueError("a transposed file has no header: give names")
        if self.decimal == "," and self.separator in {",", "auto"}:
            raise ValueError("a decimal comma needs a separator other than the comma")
        borne = [source.channel for source in self.channels.values()]
        if len(set(borne)) != len(borne):
            raise ValueError("channels: two columns bear the same channel")


def load(path: Path) -> Table:
    """Read a description; raises ``ConfigError`` naming file, key and mend."""
    return load_toml(path, Table)


def stem(path: Path) -> str:
    """Return a file's name without its endings.

    >>> stem(Path("data/train_FD001.txt.gz"))
    'train_FD001'
    """
    name = path.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name


class Layout:
    """Which of a file's columns bear what.

    Attributes:
        names: of the columns, stripped.
        channels: names of the channels found, one per column in ``numbers``.
        units: of each, "" where the file does not say.
        numbers: indices of the columns that bear them.
        time: index of the column with the time; -1: there is none.
        label: index of the label; -1: there is none.
        keys: indices of the columns that make the asset's name.
        asset: the name's pattern, keys by index: ``engine-{0}``.

    Raises:
        ConfigError: the description names a column that is not there.
    """

    def __init__(self, table: Table, names: list[str], known: set[str], where: str) -> None:
        self.names = [name.strip() for name in names]
        self._where = where
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ConfigError(f"{where}: column {twice!r} stands twice; name the columns yourself")
        self.time = self._time(table)
        self.label = self._index(table.label, "label") if table.label else -1
        pattern = table.asset
        if not pattern:
            pattern = "{asset}" if "asset" in self.names else "{stem}"
        self.keys: list[int] = []
        self.asset = PLACE.sub(self._key, pattern)
        used = {self.time, self.label, *self.keys}
        used |= {self.names.index(name) for name in table.ignore if name in self.names}
        self.channels: list[str] = []
        self.units: list[str] = []
        self.numbers: list[int] = []
        for column, source in table.channels.items():
            self._add(self._index(column, "channels"), source)
        if not table.channels:
            for i, name in enumerate(self.names):
                if i not in used:
                    self._add(i, _own(name, known))
        self.unused = [
            name for i, name in enumerate(self.names) if i not in used and i not in self.numbers
        ]

    def _add(self, index: int, source: Source) -> None:
        self.numbers.append(index)
        self.channels.append(source.channel)
        self.units.append(source.unit)

    def _time(self, table: Table) -> int:
        if table.time.column:
            return self._index(table.time.column, "time.column")
        if table.time.step_s is not None:
            return -1
        lower = [name.casefold() for name in self.names]
        found = [lower.index(name) for name in TIME_NAMES if name in lower]
        if not found:
            raise ConfigError(
                f"{self._where}: no column is called {', '.join(TIME_NAMES)}: name the one that "
                "bears the time (time.column of a description), or say --step, the seconds from "
                f"one row to the next; there are {', '.join(self.names)}"
            )
        return found[0]

    def _key(self, match: re.Match[str]) -> str:
        name = match[1]
        if name in OF_FILE:
            return match[0]
        index = self._index(name, "asset")
        if index not in self.keys:
            self.keys.append(index)
        return f"{{{self.keys.index(index)}}}"

    def _index(self, name: str, key: str) -> int:
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{self._where}: {key}: there is no column {name!r}{meant} "
                f"There are {', '.join(self.names)}"
            )
        return self.names.index(name)


_BEHIND = re.compile(r"(.*\S)\s*(?:\[([^\[\]]+)\]|\(([^()]+)\))")


def _own(name: str, known: set[str]) -> Source:
    """Return the channel that a column is called after, with the unit that stands behind it."""
    plain = "_".join(name.split())
    match = _BEHIND.fullmatch(name)
    if plain in known or match is None:
        return Source(plain)
    unit = (match[2] or match[3]).strip()
    channel = "_".join(match[1].split())
    try:
        return Source(channel, unit)
    except ValueError:
        return Source(channel if channel not in known else plain)

"""Slow facts of assets: nameplate, maintenance, what a nightly batch computed: a row per asset.

```text
asset,rated_kw,age_years,hours_since_overhaul
pump-1,7.5,4.2,310
pump-2,11,,
```

A CSV. An asset class names the columns that its feature vectors bear (``facts = ["rated_kw"]``).
The file is read again when it changes: write it under another name and rename it, so that no half
of it is read.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from agent.config import AgentConfig
from contract import topics
from contract.errors import DataError

MOST_BYTES = 16 * 1024 * 1024

Facts = dict[str, dict[str, float]]
"""By asset and column; a cell that is empty is not in it."""


class FactsFile:
    """The table of a configuration, read when it changes."""

    def __init__(self, config: AgentConfig) -> None:
        self._path = Path(config.facts) if config.facts else None
        self._wanted = frozenset(name for spec in config.asset_class for name in spec.facts)
        self._seen = (0, 0)

    def changed(self) -> Facts | None:
        """Return what the table says, if it was written since it was last read; else None.

        Raises:
            DataError: it cannot be read; it is not tried again before it changes.
        """
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read: {error}") from error
        seen = (stat.st_mtime_ns, stat.st_size)
        if seen == self._seen:
            return None
        self._seen = seen
        return read(self._path, self._wanted)


def read(path: Path, wanted: frozenset[str]) -> Facts:
    """Read the columns that are wanted.

    Raises:
        DataError: names the file, the line and the mend.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: above {MOST_BYTES // 2**20} MB; a row per asset is meant")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    rows = _rows(path, text)
    _, header = next(rows, (1, []))
    if "asset" not in header or len(set(header)) != len(header):
        raise DataError(f"{path}:1: the header needs a column 'asset', and each name once")
    missing = sorted(wanted - set(header))
    if missing:
        raise DataError(f"{path}:1: no column {missing[0]!r}; there are {', '.join(header)}")
    found: Facts = {}
    for line, row in rows:
        if not row:
            continue
        place = f"{path}:{line}"
        if len(row) != len(header):
            raise DataError(f"{place}: {len(row)} cells, {len(header)} in the header")
        cells = dict(zip(header, row, strict=True))
        asset = cells["asset"]
        try:
            topics.check_name(asset, "asset")
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
        if asset in found:
            raise DataError(f"{place}: asset {asset!r} stands twice")
        found[asset] = {
            name: _number(cells[name], f"{place}, column {name!r}")
            for name in sorted(wanted)
            if cells[name].strip()
        }
    return found


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row, with the number of its line."""
    rows = csv.reader(text.splitlines())
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:  # as of a cell that is longer than any number
        raise DataError(f"{path}:{rows.line_num}: {error}: mend or empty the cell") from error


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{place}: {text!r} is no number") from error
    if not math.isfinite(value):
        raise DataError(f"{place}: {text!r} is no number one can compute with")
    return value

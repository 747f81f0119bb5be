"""Slow facts of assets: nameplate, maintenance, what a nightly batch computed.

```text
asset,from,rated_kw,age_years,maker,duty
pump-1,,7.5,4.2,KSB,light
pump-1,2025-03-01,7.5,0,KSB,heavy
pump-2,,11,,Wilo,
```

A CSV, a row per asset; or several, each with the time ``from`` which on it holds (UTC, unless it
says otherwise; empty: ever), so that a reading meets the facts of its own time, in a back-test too.
A row says all that is known from then on. An asset class names the columns that its feature vectors
bear: ``facts = ["rated_kw", {name = "maker", one_of = ["KSB", "Wilo"]}]``. The file is read again
when it changes: write it under another name and rename it, so that no half of it is read.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from agent.config import AgentConfig
from agent.files.times import moment_ns
from contract import topics
from contract.errors import DataError
from contract.spec import AssetClass, Fact

MOST_BYTES = 16 * 1024 * 1024
EVER = -(2**62)
"""From when on facts hold that bear no time."""

Facts = dict[str, list[tuple[int, dict[str, float]]]]
"""By asset, in the order of time: from when on, in nanoseconds, and what then; a feature of which
nothing is known is not in it."""


class FactsFile:
    """The table of a configuration, read when it changes."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._path = Path(config.facts) if config.facts else None
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
        return read(self._path, self._config)


def read(path: Path, config: AgentConfig) -> Facts:
    """Read the columns that the classes of a configuration name.

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
    wanted = {_name(fact) for spec in config.asset_class for fact in spec.facts}
    missing = sorted(wanted - set(header))
    if missing:
        raise DataError(f"{path}:1: no column {missing[0]!r}; there are {', '.join(header)}")
    found: dict[str, dict[int, dict[str, float]]] = {}
    for line, row in rows:
        if not row:
            continue
        place = f"{path}:{line}"
        if len(row) != len(header):
            raise DataError(f"{place}: {len(row)} cells, {len(header)} in the header")
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        asset = cells["asset"]
        try:
            topics.check_name(asset, "asset")
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
        from_ns = _from_ns(cells.get("from", ""), place)
        of_asset = found.setdefault(asset, {})
        if from_ns in of_asset:
            raise DataError(f"{place}: asset {asset!r} stands twice, from the same time on")
        spec = config.class_of(asset)
        of_asset[from_ns] = {} if spec is None else _features(spec, cells, place)
    return {asset: sorted(dated.items()) for asset, dated in found.items()}


def _name(fact: str | Fact) -> str:
    return fact if isinstance(fact, str) else fact.name


def _from_ns(text: str, place: str) -> int:
    try:
        return moment_ns(text, "Z") if text else EVER
    except ValueError as error:
        raise DataError(f"{place}, column 'from': {error}") from error


def _features(spec: AssetClass, cells: dict[str, str], place: str) -> dict[str, float]:
    """Return what the facts of a row become; of an empty cell nothing is known."""
    features: dict[str, float] = {}
    for fact in spec.facts:
        cell = cells[_name(fact)]
        if cell:
            where = f"{place}, column {_name(fact)!r}"
            features |= (
                {fact: _number(cell, where)} if isinstance(fact, str) else _word(fact, cell, where)
            )
    return features


def _word(fact: Fact, word: str, place: str) -> dict[str, float]:
    words = fact.one_of or fact.order
    if word not in words:
        raise DataError(
            f"{place}: {word!r} is none of {', '.join(words)}: mend it, or name it in the class"
        )
    if fact.order:
        return {fact.name: float(words.index(word))}
    return {f"{fact.name}={one}": float(one == word) for one in words}


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
        raise DataError(
            f"{place}: {text!r} is no number; of words the class says which there are"
        ) from error
    if not math.isfinite(value):
        raise DataError(f"{place}: {text!r} is no number one can compute with")
    return value

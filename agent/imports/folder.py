"""What an import leaves: a table per machine, what was wrong with each, a configuration to mend.

```text
agent.toml     a configuration with the channels that were found
tables.toml    what the tables look like, for replay --format
labels.json    when something was wrong, for replay --labels
facts.csv      slow facts, where there are any
rows/*.csv     asset,time,channel [unit],...; a life that ended in failure is called *.failed.csv
```
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from contract import topics
from contract.errors import ConfigError

TABLES = """\
# What the tables look like: runout-agent replay rows/*.csv --format tables.toml
asset = "{asset}"
ends = "failed"
ends_in = ["*.failed"]

[time]
column = "time"
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Machine:
    """What was collected of one machine.

    Attributes:
        rows: by time in nanoseconds since 1970 UTC, the values by channel.
        wrong: windows in which something was wrong: from, until, in nanoseconds.
        failed: when a life ended in failure.
        facts: slow ones, words or numbers.
    """

    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    wrong: list[tuple[int, int]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What an import found.

    Attributes:
        service: it came from.
        units: of each channel.
        machines: by asset.
        order: the words of a fact, from the least to the most, where it is one.
        notes: for whoever reads it.
    """

    service: str
    units: dict[str, str]
    machines: dict[str, Machine] = field(default_factory=dict)
    order: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def plain(name: str) -> str:
    """Return a name that can stand in a topic.

    >>> plain(" Cooling pump #2 / drive end ")
    'Cooling-pump-2-drive-end'
    """
    clean = "".join(" " if c in "/+#\0[]()" or c.isspace() else c for c in name)
    return "-".join(word for word in clean.split() if word)


def iso(t_ns: int) -> str:
    """Return a time as files here write it.

    >>> iso(1_615_501_440_000_000_000)
    '2021-03-11T22:24:00.000000Z'
    """
    moment = _EPOCH + timedelta(microseconds=t_ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write(found: Found, folder: Path, asset_class: str) -> list[str]:
    """Write all of it; returns what was written, in words.

    Raises:
        ConfigError: the folder holds something already, or a name cannot be one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: is there, and not empty: name a new folder")
    try:
        for name in (asset_class, *found.machines, *found.units):
            topics.check_name(name, "name")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows = folder / "rows"
    rows.mkdir(parents=True)
    said: list[str] = []
    labels: dict[str, list[tuple[str, str]]] = {}
    for asset, machine in sorted(found.machines.items()):
        times = sorted(machine.rows)
        begin = 0
        ends = [end for end in sorted(machine.failed) if times and end >= times[0]]
        lives = 0
        for number, end in enumerate([*ends, None], start=1):
            stop = len(times) if end is None else sum(t <= end for t in times)
            name = f"{asset}.csv" if not ends else f"{asset}.{number:03}"
            if ends:
                name += ".csv" if end is None else ".failed.csv"
            if stop > begin:
                _table(rows / name, asset, machine, times[begin:stop], found.units)
                first, last = times[begin], times[stop - 1]
                labels[f"rows/{name}"] = [
                    (iso(a), iso(b)) for a, b in sorted(machine.wrong) if a <= last and b >= first
                ]
                lives += 1
            begin = stop
        said.append(
            f"{asset}: {len(times)} rows, {lives} {'life' if lives == 1 else 'lives'}, "
            f"{len(machine.wrong)} times something was wrong"
        )
    _put(folder / "labels.json", msgspec.json.format(msgspec.json.encode(labels)).decode() + "\n")
    _put(folder / "tables.toml", TABLES)
    facts = sorted({name for machine in found.machines.values() for name in machine.facts})
    if facts:
        _facts(folder / "facts.csv", found.machines, facts)
    _put(folder / "agent.toml", _config(found, folder, asset_class))
    return said


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _table(
    path: Path, asset: str, machine: Machine, times: Sequence[int], units: Mapping[str, str]
) -> None:
    # A unit in the header: when the configuration is mended to another one, values are converted.
    header = [name if unit == "1" else f"{name} [{unit}]" for name, unit in units.items()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["asset", "time", *header])
        for t_ns in times:
            row = machine.rows[t_ns]
            cells = [repr(row[name]) if name in row else "" for name in units]
            writer.writerow([asset, iso(t_ns), *cells])


def _facts(path: Path, machines: Mapping[str, Machine], names: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["asset", "from", *names])
        for asset, machine in sorted(machines.items()):
            writer.writerow([asset, "", *(machine.facts.get(name, "") for name in names)])


def _config(found: Found, folder: Path, asset_class: str) -> str:
    def text(value: str) -> str:
        return msgspec.json.encode(value).decode()  # a JSON string is a TOML string, too

    facts = [name for name in found.order if any(name in m.facts for m in found.machines.values())]
    lines = [f"# Made of what {found.service} had collected: a beginning, to be mended."]
    lines += [f"#   {note}" for note in found.notes]
    if facts:
        lines += ["", f"facts = {text(os.fspath(folder / 'facts.csv'))}"]
    lines += ["", "[node]", f"state = {text(os.fspath(folder / 'state'))}", ""]
    lines += ["[[asset_class]]", f"name = {text(asset_class)}", "channels = ["]
    lines += [
        f"  {{ name = {text(name)}, unit = {text(unit)} }}," for name, unit in found.units.items()
    ]
    lines.append("]")
    if facts:
        each = [
            f"{{ name = {text(name)}, order = [{', '.join(map(text, found.order[name]))}] }}"
            for name in facts
        ]
        lines.append(f"facts = [{', '.join(each)}]")
    return "\n".join(lines) + "\n"

"""What a replay says: outcomes in a file, progress while it runs, a table at its end."""

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import msgspec

from contract.errors import DataError
from contract.report import Alert, Health

_FIELDS = tuple(
    dict.fromkeys(["type", "asset", "time", *Health.__struct_fields__, *Alert.__struct_fields__])
)
ENDINGS = (".jsonl", ".csv")
"""What an outcome file may be called."""
_json = msgspec.json.Encoder()


class Out:
    """A file that outcomes are written to: JSON lines as they are published, or CSV.

    Raises:
        DataError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise DataError(f"--out {path}: cannot be written ({error.strerror})") from error
        self._table: csv.DictWriter[str] | None = None
        if path.suffix == ".csv":
            self._table = csv.DictWriter(self._file, _FIELDS, lineterminator="\n")
            self._table.writeheader()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, outcome: Health | Alert) -> None:
        """Write one."""
        try:
            if self._table is None:
                self._file.write(_json.encode(outcome).decode() + "\n")
            else:
                self._table.writerow(_flat(outcome))
        except OSError as error:
            raise DataError(f"--out {self.path}: cannot be written ({error.strerror})") from error


def _flat(outcome: Health | Alert) -> dict[str, object]:
    row: dict[str, object] = msgspec.to_builtins(outcome)
    for name, value in row.items():
        if isinstance(value, list):
            row[name] = " ".join(map(str, value))
    row["time"] = moment(outcome.t)
    row["why"] = " ".join(f"{why.channel}.{why.feature}:{why.sigmas:+g}" for why in outcome.why)
    return row


def moment(t: float) -> str:
    """Write a time.

    >>> moment(1767225600.25)
    '2026-01-01T00:00:00.250Z'
    """
    text = datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


@dataclass(slots=True)
class Seen:
    """What is known of one asset at the end.

    Attributes:
        asset: which.
        rows: of it.
        first_ns: time of the first.
        last_ns: time of the last.
        marks: reports that bore a mark, by mark.
        last: newest report.
        alerts: raised.
        first_alert_t: when the first was.
        alert: whether one is active.
        failures: lives that ended in one.
    """

    asset: str
    rows: int = 0
    first_ns: int = 0
    last_ns: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    last: Health | None = None
    alerts: int = 0
    first_alert_t: float | None = None
    alert: bool = False
    failures: int = 0

    def take(self, rows: int, first_ns: int, last_ns: int) -> None:
        """Count rows, or bursts, between two times."""
        if not self.rows:
            self.first_ns, self.last_ns = first_ns, last_ns
        self.first_ns, self.last_ns = min(self.first_ns, first_ns), max(self.last_ns, last_ns)
        self.rows += rows

    def hear(self, outcome: Health | Alert) -> None:
        """Take what was said of it."""
        if isinstance(outcome, Health):
            self.last = outcome
            for mark in outcome.marks:
                self.marks[mark] = self.marks.get(mark, 0) + 1
            return
        self.alert = outcome.stands
        if self.alert:
            self.alerts += 1
            if self.first_alert_t is None:
                self.first_alert_t = outcome.t


def table(seen: list[Seen]) -> list[str]:
    """Return the lines of a table, the worst asset first."""
    head = ("asset", "rows", "from", "until", "marks", "health", "score", "hours left",
            "alerts", "first alert")  # fmt: skip
    rows = [head, *(_cells(one) for one in sorted(seen, key=_badness))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    right = {1, 5, 6, 7, 8}
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _badness(one: Seen) -> tuple[bool, bool, float, int, str]:
    health = one.last.health if one.last else None
    return not one.alert, health is None, 1.0 if health is None else health, -one.alerts, one.asset


def _cells(one: Seen) -> tuple[str, ...]:
    last = one.last
    state = "-" if last is None else last.state if last.health is None else f"{last.health:.3f}"
    most = max(one.marks, key=lambda mark: one.marks[mark], default="")
    others = f" +{len(one.marks) - 1}" if len(one.marks) > 1 else ""
    return (
        one.asset,
        str(one.rows),
        _minute(one.first_ns / 1e9),
        _minute(one.last_ns / 1e9),
        f"{most} {one.marks[most]}{others}" if most else "-",
        state,
        "-" if last is None or last.score is None else f"{last.score:.2f}",
        "-" if last is None or last.rul_h is None else f"{last.rul_h:.1f}",
        str(one.alerts),
        "-" if one.first_alert_t is None else _minute(one.first_alert_t),
    )


def _minute(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Progress:
    """Says how far a replay is: over and over on a terminal, now and then in a log."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream is not None and stream.isatty()
        self._begun = self._told = clock()
        self._width = 0

    def tell(self, rows: int, share: float) -> None:
        """Say how many rows were replayed, and which share of the files, if it is time to."""
        if self._stream is None:
            return
        now = self._clock()
        if now - self._told < (0.5 if self._terminal else 10.0):
            return
        self._told = now
        line = f"{share:4.0%}  {rows} rows, {rows / max(now - self._begun, 1e-3):.0f} a second"
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def say(self, line: str) -> None:
        """Say something on a line of its own."""
        if self._stream is None:
            return
        self.clear()
        self._stream.write(line + "\n")
        self._stream.flush()

    def clear(self) -> None:
        """Leave the line of the terminal empty."""
        if self._terminal and self._width and self._stream is not None:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0

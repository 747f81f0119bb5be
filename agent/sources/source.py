"""What every source other than MQTT is to the agent: a thread of its own that puts arrivals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.intake import Arrival
from contract import topics, units

Put = Callable[[Arrival], None]
"""Takes an arrival on; may wait while the intake is full."""


@dataclass(slots=True)
class SourceCounts:
    """What came, since the process began.

    Attributes:
        bytes: received.
        frames: readings' worth handed on: lines or records, rounds of a poll, requests.
        bad_frames: that could not be used: over-long lines, polls that failed, requests refused.
        garbage_bytes: thrown away to find the next frame, the beginning of a line included.
        overflows: frames that were lost or put off because the agent did not keep up.
        reconnects: times the other end was opened again.
        connected: whether the other end is there now.
    """

    bytes: int = 0
    frames: int = 0
    bad_frames: int = 0
    garbage_bytes: int = 0
    overflows: int = 0
    reconnects: int = 0
    connected: bool = False


class Source(Protocol):
    """A place where readings come from, built by its configuration.

    Everything it puts bears its name as ``source``, and for people a topic that begins with
    ``source/<name>``. Used as ``opened.callback(source.close); source.open(intake.put)``.
    """

    @property
    def name(self) -> str:
        """Return its name, one topic level."""

    @property
    def alive(self) -> bool:
        """Return whether its threads run; False after ``open`` means a fault of this program."""

    @property
    def counts(self) -> SourceCounts:
        """Return what came so far; written by the source's threads, to be read only."""

    def open(self, put: Put) -> None:
        """Start; what is at the other end may come and go.

        ``put`` is called from the source's threads. Raises ``ConfigError`` where only a person can
        mend it, as a port of this machine that is taken.
        """

    def close(self) -> None:
        """End the threads, once what was received whole is put; safe before, during and after open.

        To be called while ``put`` still takes on; if it blocks for seconds, what is left is told
        and lost.
        """

    def acknowledge(self, outcomes: Mapping[int, str]) -> None:
        """Take the fate of its own arrivals by token: "" if committed, else why it was refused.

        May be called from any thread; tokens nobody waits for any more are ignored.
        """


def loud(before: int, after: int) -> bool:
    """Return whether a count passed the 1st, 2nd, 4th, 8th... and should be logged.

    >>> [loud(n, n + 1) for n in range(5)]
    [True, True, False, True, False]
    >>> loud(5, 9)
    True
    """
    return after.bit_length() != before.bit_length()


def check_columns(columns: tuple[str, ...], given: Mapping[str, str], time: str) -> None:
    """Raise ``ValueError`` if the columns of a line cannot be told apart, or are not there."""
    names = [name for name in columns if name]
    for name in names:
        topics.check_name(name, "columns:")
    if len(set(names)) != len(names):
        raise ValueError("columns: a name stands twice")
    if columns and not set(names) - {time}:
        raise ValueError("columns: none of them is a channel; name at least one")
    for name in (*given, *([time] if time else [])):
        if name not in names:
            raise ValueError(f"{name!r} is none of columns: {', '.join(names)}")
    check_units(given)


def check_units(given: Mapping[str, str]) -> None:
    """Raise ``ValueError`` if the unit of a channel is not known."""
    for name, unit in given.items():
        try:
            units.check(unit)
        except ValueError as error:
            raise ValueError(f"units: {name}: {error}") from error

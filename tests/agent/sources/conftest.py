"""Pseudo-terminals, what sources put, and what they say: waited for, never timed."""

import logging
import os
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.intake import Arrival
from agent.sources.source import Source

PATIENCE_S = 60


class Taken:
    """What was put, and what was said, by sources that close with the test."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.begun = 0
        """How often ``put`` was called, whether it has returned or not."""
        self.said: list[str] = []
        self.gate = threading.Event()
        """While it is not set, ``put`` waits as a full intake does."""
        self.gate.set()
        self._changed = threading.Condition()

    def put(self, arrival: Arrival) -> None:
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
        assert self.gate.wait(PATIENCE_S)
        with self._changed:
            self.arrivals.append(arrival)
            self._changed.notify_all()

    def hear(self, words: str) -> None:
        with self._changed:
            self.said.append(words)
            self._changed.notify_all()

    @property
    def payload(self) -> bytes:
        return b"".join([arrival.payload for arrival in self.arrivals])

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            done = self._changed.wait_for(ready, PATIENCE_S)
        assert done, (self.said, len(self.arrivals), self.payload[-200:])

    def wait_for(self, payload: bytes) -> None:
        """Wait until so many bytes were put, and find them to be these."""
        self.wait(lambda: sum(len(arrival.payload) for arrival in self.arrivals) >= len(payload))
        assert self.payload == payload

    def wait_said(self, words: str, times: int = 1) -> None:
        self.wait(lambda: self.said.count(words) >= times)


class _Ear(logging.Handler):
    def __init__(self, taken: Taken) -> None:
        super().__init__(logging.DEBUG)
        self._taken = taken

    def emit(self, record: logging.LogRecord) -> None:
        self._taken.hear(record.getMessage())


@pytest.fixture
def taken() -> Iterator[Taken]:
    taken = Taken()
    ear = _Ear(taken)
    log = logging.getLogger("runout")
    level = log.level
    log.addHandler(ear)
    log.setLevel(logging.DEBUG)
    yield taken
    log.removeHandler(ear)
    log.setLevel(level)


@pytest.fixture
def opened(taken: Taken) -> Iterator[ExitStack]:
    """Return what is closed with the test."""
    with ExitStack() as stack:
        yield stack
        taken.gate.set()


@pytest.fixture
def start(taken: Taken, opened: ExitStack) -> Callable[[Source], None]:
    def start(source: Source) -> None:
        opened.callback(source.close)
        source.open(taken.put)

    return start


class Pty:
    """A pseudo-terminal at a path of our choice; ``unplug`` takes it away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._master, slave = os.openpty()
        tty.setraw(slave)
        path.symlink_to(os.ttyname(slave))
        # While nobody has it open, a write would fail.
        self._slave: int | None = slave

    @property
    def fd(self) -> int:
        return self._master

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._master, view) :]

    def unplug(self) -> None:
        if self._slave is not None:
            self._path.unlink()
            os.close(self._master)
            os.close(self._slave)
            self._slave = None


@pytest.fixture
def plug(tmp_path: Path, opened: ExitStack) -> Callable[[], Pty]:
    """Return what makes a pseudo-terminal at ``tmp_path / "port"``."""

    def plug() -> Pty:
        pty = Pty(tmp_path / "port")
        opened.callback(pty.unplug)
        return pty

    return plug


@pytest.fixture
def port(tmp_path: Path) -> str:
    return str(tmp_path / "port")

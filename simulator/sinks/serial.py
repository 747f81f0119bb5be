"""A serial port without hardware: one end of a pseudo-terminal, the other for an agent to open."""

import errno
import fcntl
import os
import select
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.errors import RunoutError
from simulator.clock import Clock, WallClock

_SETTLED_S = 0.5
"""That nothing waits to be read: longer than readers wait for more, since what they hold is lost to
them if the port goes meanwhile."""
_LOOK_S = 0.05
"""Between two looks at a port: the system tells of no opening."""


class SerialSink:
    """Takes what a sender would write to a serial line; as fast as the other end reads.

    Args:
        link: a name for the port; absent: the system's own alone, as in ``/dev/pts/3``.
        opened: is told the port's name, once it can be opened.
        timeout_s: nobody opens it, or reads, for so long: an error; 0: never.
        clock: of the timeout.

    Attributes:
        port: its name.
        unsaid: messages that a serial line has no place for.
    """

    def __init__(
        self,
        link: Path | None,
        *,
        opened: Callable[[str], None] = print,
        timeout_s: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        self.port = ""
        self.unsaid = 0
        self._link = link
        self._opened = opened
        self._timeout_s = timeout_s
        self._clock = clock or WallClock()
        self._end = -1

    def __enter__(self) -> Self:
        """Make the port and wait until it is opened.

        Raises:
            RunoutError: the link's name is taken, or nobody opens it.
        """
        self._end, other = os.openpty()
        try:
            tty.setraw(other)
            self.port = os.ttyname(other)
            if self._link is not None:
                self._make_link(self._link)
        except BaseException:
            os.close(self._end)
            raise
        finally:
            os.close(other)  # so that it shows when somebody else opens it
        os.set_blocking(self._end, False)
        try:
            self._opened(self.port)
            self._until(self._is_open, "opened")
            # Closed by all, a port forgets its settings: until who opened it makes it raw, lines
            # would be edited and echoed.
            other = os.open(self.port, os.O_RDWR | os.O_NOCTTY)
            try:
                tty.setraw(other)
            finally:
                os.close(other)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the port away; what was not read is lost."""
        self._close()

    def send(
        self,
        node: str,
        topic: str,
        payload: bytes,
        *,
        rows: int = 1,
        events: int = 0,
        qos: int = 1,
    ) -> None:
        """Write a payload, once there is room; what is no row is left out and counted."""
        del node, topic, rows, qos
        if events or payload.startswith(b"RW"):
            self.unsaid += 1
            return
        left = memoryview(payload)
        while left:
            self._until(self._has_room, "read")
            try:
                left = left[os.write(self._end, left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error) from error

    def finish(self) -> None:
        """Return when the other end has read everything."""
        other = os.open(self.port, os.O_RDWR | os.O_NOCTTY)
        empty_since: float | None = None

        def read() -> bool:
            # What was written is in the system's hands for a while before it can be read, and
            # nobody tells of it: empty counts once it has lasted.
            nonlocal empty_since
            now = self._clock.now()
            if fcntl.ioctl(other, termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0":
                empty_since = None
            elif empty_since is None:
                empty_since = now
            return empty_since is not None and now - empty_since >= _SETTLED_S

        try:
            self._until(read, "read")
        finally:
            os.close(other)

    def lag(self) -> dict[str, int]:
        """Return nothing: what the other end has read nobody tells."""
        return {}

    def _has_room(self) -> bool:
        return bool(select.select([], [self._end], [], _LOOK_S)[1])

    def _is_open(self) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLHUP)
        return not poll.poll(0)

    def _until(self, done: Callable[[], bool], what: str) -> None:
        began = self._clock.now()
        while not done():
            if self._timeout_s and self._clock.now() - began > self._timeout_s:
                raise RunoutError(
                    f"{self.port} was not {what} for {self._timeout_s:.0f} s: let an agent read"
                    f' it, as in [[source]] kind = "serial", url = "{self._link or self.port}"'
                )
            self._clock.wait(_LOOK_S if what == "opened" else 0.001)

    def _gone(self, error: OSError) -> RunoutError:
        if error.errno == errno.EIO:
            return RunoutError(f"{self.port} was closed by who read it; not all was played")
        return RunoutError(f"{self.port}: cannot be written ({error.strerror})")

    def _make_link(self, link: Path) -> None:
        try:
            if link.is_symlink() and not link.exists():
                link.unlink()  # of a port that is gone
            link.symlink_to(self.port)
        except OSError as error:
            raise RunoutError(f"{link}: cannot be made ({error.strerror})") from error

    def _close(self) -> None:
        if self._link is not None and self._link.is_symlink():
            self._link.unlink()
        os.close(self._end)

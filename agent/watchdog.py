"""What systemd is told: started, alive, ending, and a line of what goes on (``sd_notify``).

Alive is said by the main loop alone: one that hangs falls silent, and systemd starts the agent
anew. Without systemd every call does nothing. Protocol: sd_notify(3), sd_watchdog_enabled(3).
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping

log = logging.getLogger("runout.watchdog")

STATUS_S = 10.0
"""From one line of status to the next, where no watchdog asks for more."""
_LINE = 200


class Watchdog:
    """The datagram socket of the service manager; one thread uses it.

    Args:
        address: of the socket: a path, or ``@`` and an abstract name; empty: nobody listens.
        timeout_s: of silence after which the manager gives the agent up; 0: it does not.
    """

    def __init__(self, address: str = "", timeout_s: float = 0.0) -> None:
        # A third of it, so that two beats may be late: the manual advises half at most.
        self.every_s = min(timeout_s / 3, STATUS_S) if timeout_s > 0 else STATUS_S
        self._beats = timeout_s > 0
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._next_s = float("-inf")
        self._silent = False
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)  # a manager that is stuck must not hold the loop up

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int | None = None) -> "Watchdog":
        """Return the watchdog that the environment of a service names."""
        meant = environ.get("WATCHDOG_PID", "")
        mine = not meant or meant == str(os.getpid() if pid is None else pid)
        usec = environ.get("WATCHDOG_USEC", "")
        timeout_s = int(usec) / 1e6 if mine and usec.isdecimal() else 0.0
        return cls(environ.get("NOTIFY_SOCKET", ""), timeout_s)

    def ready(self) -> None:
        """Say that the state is restored and the loop begins."""
        self._say("READY=1")

    def beat(self, now_s: float, status: Callable[[], str]) -> None:
        """Say that the loop turns, and how things are; does nothing until it is due again."""
        if self._socket is None or now_s < self._next_s:
            return
        self._next_s = now_s + self.every_s
        line = " ".join(status().split())[:_LINE]
        self._say(f"WATCHDOG=1\nSTATUS={line}" if self._beats else f"STATUS={line}")

    def stopping(self) -> None:
        """Say that the agent ends as asked."""
        self._say("STOPPING=1\nSTATUS=ending")

    def close(self) -> None:
        """Close the socket; safe more than once."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:  # it is told again with the next beat, or the manager acts
            if not self._silent:
                log.warning("the service manager was not reached", extra={"error": str(error)})
            self._silent = True
        else:
            self._silent = False

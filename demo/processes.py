"""The demonstration's processes: started together, watched, and ended for certain."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from contract.errors import RunoutError
from server import processes


class Stopped(RunoutError):  # noqa: N818  # no error: what was asked for
    """Ctrl-C or SIGTERM came."""


class Children:
    """Starts processes, each with a log of its own; ``close`` ends them and all their own.

    A signal only sets a flag, which every wait looks at: there is no moment at which a process
    has been started and would not be ended.
    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping = threading.Event()
        processes.adopt_orphans()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())

    def start(self, name: str, command: list[str], **environment: str) -> None:
        """Start a process; what it writes goes to its log."""
        program = Path(sys.executable).parent / command[0]
        if program.exists():
            command = [str(program), *command[1:]]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # Ctrl-C is ours to handle: in what order they end matters.
                start_new_session=True,
            )

    def ended(self, name: str) -> int | None:
        """Return the exit code of a process, None while it runs."""
        return self._running[name].poll()

    def finished(self, name: str) -> bool:
        """Return whether a process has done its work; raises ``RunoutError`` if it failed."""
        code = self.ended(name)
        if code:
            raise RunoutError(f"{name} failed with exit code {code}\n{self._tail(name)}")
        return code == 0

    def wait(
        self, until: Callable[[], bool], timeout_s: float, what: str, *, pause_s: float = 0.1
    ) -> None:
        """Wait until something is so; raises if it takes too long or a process has died."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if self.stopping.wait(pause_s):
                raise Stopped("stopped")
            for name, process in self._running.items():
                code = process.poll()
                if code:
                    raise RunoutError(f"{name} ended with exit code {code}\n{self._tail(name)}")
            if time.monotonic() > deadline:
                raise RunoutError(f"{what}: not within {timeout_s:.0f} s; see {self._logs}")

    def _tail(self, name: str) -> str:
        text = (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-8:])

    def stop(self, prefix: str, grace_s: float = 5.0) -> None:
        """End the processes whose name begins so, and what they started."""
        chosen = [p for name, p in self._running.items() if name.startswith(prefix)]
        pids: set[int] = set()

        def mine() -> list[int]:
            # Looked at anew each time: what is ending may still start something.
            for process in chosen:
                if process.poll() is None:
                    pids.add(process.pid)
                    pids.update(processes.descendants(process.pid))
            return sorted(pids)

        for process in chosen:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        mine()
        for process in chosen:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                mine()
        processes.end(mine, time.sleep, 1.0)
        for process in chosen:
            process.wait()

    def close(self) -> None:
        """End everything, last started first to go."""
        for name in reversed(list(self._running)):
            if name.startswith(("simulator", "node")):
                self.stop(name, 0.5)
        self.stop("")
        # Orphans come to us: whatever is still there was started by one of them.
        processes.end(lambda: processes.descendants(os.getpid()), time.sleep, 1.0)

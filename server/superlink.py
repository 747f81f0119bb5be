"""Flower's SuperLink as a child process: started, waited for, ended for certain."""

import http.client
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from contract.errors import RunoutError
from server import processes
from server.bundle import PACKAGES, toml
from server.config import ServerConfig
from server.status import STATE_VARIABLE

READY_S = 60.0
GRACE_S = 3.0
CONNECTION = "runout"
"""Name of the SuperLink in ``$FLWR_HOME/config.toml``."""


def environment(config: ServerConfig) -> dict[str, str]:
    """Return the variables that Flower's processes run with."""
    beside = Path(sys.executable).parent
    packages = str(PACKAGES)
    known = os.environ
    return {
        **known,
        # flower-superexec and flwr-serverapp are looked for on PATH.
        "PATH": f"{beside}{os.pathsep}{known.get('PATH', '')}",
        # The ServerApp imports the `server` and `contract` that run here, installed or not.
        "PYTHONPATH": os.pathsep.join(filter(None, [packages, known.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        "FLWR_HOME": str(config.folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        STATE_VARIABLE: str(config.folder),
    }


def program(name: str) -> str:
    """Return one of Flower's commands; raises ``RunoutError`` if it is not installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RunoutError(f"{name} is not installed: pip install flwr")
    return found


def command(config: ServerConfig) -> list[str]:
    """Return the command line of SuperLink."""
    line = [
        program("flower-superlink"),
        *("--host", config.superlink[0], "--port", str(config.superlink[1])),
        *("--database", str(config.folder / "superlink.db")),
        "--disable-runtime-dependency-installation",
    ]
    if config.tls is None:
        return [*line, "--insecure"]
    return [
        *line,
        *("--ssl-ca-certfile", str(Path(config.tls.ca).absolute())),
        *("--ssl-certfile", str(Path(config.tls.cert).absolute())),
        *("--ssl-keyfile", str(Path(config.tls.key).absolute())),
        *(["--enable-supernode-auth"] if config.node_auth else []),
    ]


def write_connection(config: ServerConfig) -> None:
    """Tell the ``flwr`` command where this SuperLink is."""
    folder = config.folder / "flwr"
    folder.mkdir(parents=True, exist_ok=True)
    address = f"{_reach(config)}:{config.superlink[1]}"
    values: dict[str, str | int | float | bool] = {"address": address}
    if config.tls is None:
        values["insecure"] = True
    else:
        values["root-certificates"] = str(Path(config.tls.ca).absolute())
    text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n{toml(values)}\n'
    (folder / "config.toml").write_text(text, encoding="utf-8")


class SuperLink:
    """The process, and the thread that writes down what it and its children say.

    Args:
        config: of the server.
        tell: called with each line that is meant for a person.
        wait: ``wait(seconds)``; returns early when the server is to stop.
        stopping: whether it is.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        tell: Callable[[str], None],
        wait: Callable[[float], object],
        stopping: Callable[[], bool],
    ) -> None:
        self._config = config
        self._tell = tell
        self._wait = wait
        self._stopping = stopping
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._pid_file = config.folder / "superlink.pid"

    @property
    def pid(self) -> int | None:
        """Return the process, once it was started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Return once connections are taken; raises ``RunoutError`` if that does not happen."""
        config = self._config
        self._end_leftover()
        if _connects(config):
            raise RunoutError(
                f"{config.inner or config.listen} is in use by another program; stop it, or choose "
                "another port"
            )
        log_folder = config.folder / "log"
        log_folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            command(config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(config),
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        self._pid_file.write_text(str(self._process.pid))
        if self._process.stdout is not None:
            output = log_folder / "superlink.log"
            self._reader = threading.Thread(
                target=self._read, args=(self._process.stdout, output), daemon=True
            )
            self._reader.start()
        until = time.monotonic() + READY_S
        while not _answers(config):
            if self._stopping():
                return
            if self._process.poll() is not None:
                raise RunoutError(
                    f"SuperLink ended with code {self._process.returncode} before it was ready; "
                    f"see {log_folder / 'superlink.log'}"
                )
            if time.monotonic() > until:
                raise RunoutError(f"SuperLink is not ready after {READY_S:.0f} s")
            self._wait(0.2)

    def _end_leftover(self) -> None:
        """End a SuperLink of ours whose server was killed: it holds the port and the database."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return
        if str(self._config.folder / "superlink.db") not in processes.command_of(pid):
            return
        self._tell("ending the SuperLink that an earlier server left behind")
        processes.end(lambda: [pid, *processes.descendants(pid)], self._wait, GRACE_S)

    def _read(self, stream: IO[bytes], path: Path) -> None:
        handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=3, encoding="utf-8")
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            handler.emit(logging.LogRecord("", logging.INFO, "", 0, line, None, None))
        handler.close()
        stream.close()

    def ended(self) -> bool:
        """Return whether the process is gone."""
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End it, and all that it started; safe before, during and after ``start``."""
        if self._process is None:
            return
        pause = threading.Event()  # not the stopping one: that is set by now
        processes.end(lambda: processes.descendants(os.getpid()), pause.wait, GRACE_S)
        self._process.poll()
        if self._process.returncode is None:  # no /proc to find it by
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout=GRACE_S)
        self._pid_file.unlink(missing_ok=True)
        self._process = None


def _connects(config: ServerConfig) -> bool:
    try:
        with socket.create_connection((_reach(config), config.superlink[1]), timeout=1.0):
            return True
    except OSError:
        return False


def _answers(config: ServerConfig) -> bool:
    """Return whether HTTP is spoken; with TLS, whether the port is open."""
    if config.tls is not None:
        return _connects(config)
    connection = http.client.HTTPConnection(_reach(config), config.superlink[1], timeout=2.0)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _reach(config: ServerConfig) -> str:
    host = config.superlink[0]
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104

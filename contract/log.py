"""Log lines: in words for people, as JSON for collectors, as fields for systemd's journal.

The journal's native protocol: datagrams of ``NAME=value`` lines on a socket, as systemd documents
them (JOURNAL_NATIVE_PROTOCOL, systemd.journal-fields(7)).
"""

import array
import errno
import fcntl
import json
import logging
import math
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

Format = Literal["auto", "text", "json", "journal"]
FORMATS: tuple[Format, ...] = get_args(Format)
SOCKET = "/run/systemd/journal/socket"

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return what stands beside a record's message: ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def priority(level: int) -> int:
    """Return syslog's number of a level.

    >>> [priority(n) for n in (logging.CRITICAL, logging.ERROR, logging.WARNING, 20, 10)]
    [2, 3, 4, 6, 7]
    """
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


class Text(logging.Formatter):
    """In words, with the facts behind them as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback behind it."""
        told = " ".join(
            f"{name}={value!r}" if isinstance(value, str) and " " in value else f"{name}={value}"
            for name, value in facts(record).items()
        )
        return f"{super().format(record)} {told}".rstrip()


class Json(logging.Formatter):
    """An object a line: ``time level logger message``, ``error`` with a traceback, the facts.

    What is not a finite number is ``null``: JSON (RFC 8259) has no word for it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a fact named as one of these has a ``_`` behind its name."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        own: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            own["error"] = self.formatException(record.exc_info)
        for name, value in facts(record).items():
            own[f"{name}_" if name in own else name] = _finite(value)
        return json.dumps(own, default=str, ensure_ascii=False, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


class Journal(logging.Handler):
    """Writes to the journal; to standard error with syslog's ``<n>`` before it where it is away.

    Args:
        identifier: of the program, as ``journalctl -t`` asks for it.
        path: of the journal's socket.

    Fields: ``MESSAGE`` (in words, with the facts), ``PRIORITY``, ``SYSLOG_IDENTIFIER``, ``LOGGER``,
    ``CODE_FILE``, ``CODE_LINE``, ``CODE_FUNC``, and each fact as ``RUNOUT_NAME``.
    """

    def __init__(self, identifier: str, path: str = SOCKET) -> None:
        super().__init__()
        self._identifier = identifier
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.setFormatter(Text("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            message = self.format(record)
            if not self._send(entry(message, record, self._identifier)):
                mark = f"<{priority(record.levelno)}>"
                lines = "".join(f"{mark}{line}\n" for line in message.splitlines() or [""])
                sys.stderr.write(lines)
                sys.stderr.flush()
        except Exception:  # noqa: BLE001  # as logging does: no log line may end a program
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _send(self, datagram: bytes) -> bool:
        """Return whether the journal has it."""
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                return False
            return self._send_file(datagram)
        return True

    def _send_file(self, datagram: bytes) -> bool:
        """Send what is too long for a datagram: as a sealed file in memory, by its descriptor."""
        try:
            number = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with open(number, "wb") as file:  # noqa: PTH123  # a descriptor, and no path
                file.write(datagram)
                file.flush()
                fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALED)
                rights = array.array("i", [number])
                told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                self._socket.sendmsg([], told, 0, self._path)
        except OSError:
            return False
        return True


def entry(message: str, record: logging.LogRecord, identifier: str) -> bytes:
    """Return a record as the journal takes it.

    >>> record = logging.makeLogRecord({"levelno": 30, "name": "runout.agent", "asset": "pump-1"})
    >>> lines = entry("late", record, "runout-agent").splitlines()
    >>> lines[0], lines[1], lines[-1]
    (b'MESSAGE=late', b'PRIORITY=4', b'RUNOUT_ASSET=pump-1')
    """
    fields = {
        "MESSAGE": message,
        "PRIORITY": priority(record.levelno),
        "SYSLOG_IDENTIFIER": identifier,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
    }
    for name, value in facts(record).items():
        fields["RUNOUT_" + re.sub(r"[^A-Z0-9_]", "_", name.upper())[:56]] = value
    return b"".join(_field(name, str(value)) for name, value in fields.items())


def _field(name: str, text: str) -> bytes:
    # A path's undecodable bytes, as standard error would show them: no text may be refused here.
    value = text.encode(errors="backslashreplace")
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


def is_journal(environ: Mapping[str, str], number: int = 2) -> bool:
    """Return whether standard error goes to the journal: systemd names its device and inode."""
    try:
        found = os.fstat(number)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


def chosen(form: Format, environ: Mapping[str, str]) -> Format:
    """Return what ``auto`` comes to: the journal's where it listens, else words."""
    if form != "auto":
        return form
    return "journal" if is_journal(environ) else "text"


def set_up(level: int, form: Format = "auto", identifier: str = "runout-agent") -> None:
    """Send this program's log to standard error, or to the journal."""
    form = chosen(form, os.environ)
    output: logging.Handler
    if form == "journal":
        output = Journal(identifier)
    else:
        output = logging.StreamHandler()
        text = Text("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        output.setFormatter(Json() if form == "json" else text)
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)

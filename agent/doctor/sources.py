"""Where readings come from beside the broker: is each port there, open to us, and free?"""

import errno
import grp
import importlib.util
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from agent.config import AgentConfig
from agent.doctor.finding import Finding, fault, ok, warning
from agent.doctor.processes import in_words, is_agent, lock_holders, openers
from agent.doctor.state import running, user_name
from agent.sources import Http, Modbus, SourceConfig

PATIENCE_S = 3.0
_BY_ID = Path("/dev/serial/by-id")
_NO_CONSOLE = "sudo raspi-config, Interface Options, Serial Port: no login shell, hardware enabled"


def checks(config: AgentConfig) -> list[Callable[[], Finding]]:
    """Return a check for each source."""
    at_work = bool(running(config))
    return [partial(source, one, at_work=at_work) for one in config.source]


def source(config: SourceConfig, *, at_work: bool = False) -> Finding:
    """Check one source; ``at_work``: the agent runs, and has it."""
    name = f"source {config.name}"
    if isinstance(config, Http):
        return http(config, name, at_work=at_work)
    if isinstance(config, Modbus) and importlib.util.find_spec("pymodbus") is None:
        return fault(name, "pymodbus is not installed", "install.sh --extra modbus")
    parts = urlsplit(config.url)
    if not parts.scheme:
        return port(Path(config.url), name)
    if parts.hostname:
        return reach(name, parts.hostname, parts.port or 502)
    return ok(name, f"{config.url}: nothing of it can be looked at")


def port(path: Path, name: str, cmdline: Path = Path("/proc/cmdline")) -> Finding:
    """Check a serial port, without opening it: that would reset many a device."""
    try:
        seen = path.stat()
    except PermissionError:
        return fault(name, f"{path} is in a folder that cannot be read", "name it in /dev")
    except OSError:
        there = sorted(str(one) for one in _BY_ID.glob("*")) if _BY_ID.is_dir() else []
        mend = f"plug it in, or name one of these: {', '.join(there)}" if there else "plug it in"
        return fault(name, f"{path} is not there", mend)
    if not stat.S_ISCHR(seen.st_mode):
        return fault(name, f"{path} is no serial port", "name a device, as in /dev/serial/by-id")
    console = path.resolve().name in _consoles(cmdline)
    if not os.access(path, os.R_OK | os.W_OK):
        mend = _NO_CONSOLE if console else _let_in(seen)
        return fault(name, f"{user_name(os.geteuid())} may not use {path}", mend)
    users = sorted({*lock_holders(path), *openers(path)})
    others = [pid for pid in users if not is_agent(pid)]
    if others:
        text = f"{path} is in use by {in_words(others)}"
        return fault(name, text, "end it, or name another port")
    if console:
        return warning(name, f"{path} is the system's own console, too", _NO_CONSOLE)
    return ok(name, f"{path}, {'in use by the agent' if users else 'free'}")


def _let_in(seen: os.stat_result) -> str:
    try:
        group = grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        group = str(seen.st_gid)
    me = user_name(os.geteuid())
    if seen.st_mode & 0o060 == 0o060 and seen.st_gid != 0:
        return f"sudo usermod -a -G {group} {me}, then start the agent anew"
    return f"a serial port is open to its group, mostly dialout: sudo usermod -a -G dialout {me}"


def _consoles(cmdline: Path) -> set[str]:
    try:
        words = cmdline.read_text().split()
    except OSError:
        return set()
    return {word[8:].partition(",")[0] for word in words if word.startswith("console=")}


def http(config: Http, name: str, *, at_work: bool = False) -> Finding:
    """Check that the address can be listened at; ``at_work``: by the agent it is."""
    host, number = config.host, config.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, number))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and at_work:
            return ok(name, f"{host}:{number} is in use, as it is while the agent runs")
        if error.errno == errno.EADDRINUSE:
            mend = "end what listens there (ss -ltnp), or choose another port"
            return fault(name, f"{host}:{number} is in use", mend)
        mend = "choose an address of this device, and a port above 1023"
        return fault(name, f"{host}:{number} cannot be listened at ({error.strerror})", mend)
    return ok(name, f"{host}:{number} is free")


def reach(name: str, host: str, number: int) -> Finding:
    """Check that somebody listens at an address."""
    try:
        socket.create_connection((host, number), timeout=PATIENCE_S).close()
    except OSError as error:
        return fault(name, f"{host}:{number} cannot be reached ({error})", why_not(host, error))
    return ok(name, f"{host}:{number} takes connections")


def why_not(host: str, error: OSError) -> str:
    """Return what may be done about a connection that was not made."""
    if isinstance(error, socket.gaierror):
        return f"is {host!r} spelt right, and is there a name server? Try its number"
    if isinstance(error, ConnectionRefusedError):
        return "start what is to listen there; is the port right?"
    return "look at cable, network and firewall; is the address right?"

"""The machine: architecture, Python, numpy, memory, power, clock."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.config import AgentConfig
from agent.doctor.finding import Finding, fault, ok, warning
from agent.doctor.state import newest_reading_s, refused_as_ahead

_PATIENCE_S = 60
_SUPPORTED = ("aarch64", "arm64", "x86_64", "AMD64")
_EARLIEST_YEAR = 2024
_MEMORY_MB = 80.0
"""What an agent takes when it starts."""

# What is linked is named; that it is there and of this processor is seen when it multiplies.
_TRY_NUMPY = """
import json, numpy
x = numpy.ones((64, 64))
assert (x @ x)[0, 0] == 64
deps = numpy.show_config(mode="dicts").get("Build Dependencies", {})
print(json.dumps([numpy.__version__, deps.get("blas", {}).get("name", "")]))
"""


def architecture(machine: str = platform.machine(), maxsize: int = sys.maxsize) -> Finding:
    """Check that this is a 64-bit system of a kind that numpy has wheels for.

    >>> architecture("aarch64", 2**63 - 1).level, architecture("aarch64", 2**31 - 1).level
    ('ok', 'fault')
    """
    if maxsize <= 2**32:
        return fault(
            "architecture",
            f"a 32-bit Python on {machine}",
            "put the 64-bit Raspberry Pi OS on the card: there is no numpy for 32 bit",
        )
    if machine not in _SUPPORTED:
        return warning(
            "architecture", f"{machine} is not one that was tested", "use aarch64 or x86_64"
        )
    return ok("architecture", f"{machine}, 64 bit")


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Check the version of Python.

    >>> python((3, 9, 2)).level
    'fault'
    """
    text = ".".join(str(part) for part in version)
    if version < (3, 11):
        return fault("python", f"{text} is too old", "use 3.11 or later: Raspberry Pi OS Bookworm")
    return ok("python", text)


def numpy(program: str = sys.executable, environ: Mapping[str, str] | None = None) -> Finding:
    """Check, in a process of its own, that numpy is there and multiplies: a crash is seen, too."""
    try:
        tried = subprocess.run(
            [program, "-c", _TRY_NUMPY],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            env=None if environ is None else dict(environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return fault("numpy", f"cannot be tried ({error})", "may this user run the program?")
    if tried.returncode < 0:
        return fault(
            "numpy",
            f"ended by signal {-tried.returncode}: built for another processor",
            "pip install --force-reinstall --only-binary=:all: numpy",
        )
    if tried.returncode:
        lines = tried.stderr.strip().splitlines() or ["it cannot be imported"]
        wanted = next((line for line in reversed(lines) if ".so" in line), lines[-1])
        blas = any(name in wanted for name in ("blas", "atlas", "lapack"))
        mend = "pip install --force-reinstall --only-binary=:all: numpy"
        if blas:
            mend = f"apt install libopenblas0, or {mend}, which brings its own"
        return fault("numpy", wanted, mend)
    version, name = json.loads(tried.stdout)
    if "openblas" not in name and name not in {"accelerate", "mkl", "blis", "flexiblas"}:
        return warning(
            "numpy",
            f"{version} computes with {name or 'no BLAS'}: slowly",
            "apt install libopenblas0, or pip install --force-reinstall --only-binary=:all: numpy",
        )
    return ok("numpy", f"{version} with {name}")


def memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Finding:
    """Check that there is memory for the agent, and that its limit can be kept."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError as error:
        return ok("memory", f"cannot be asked ({error.strerror})")
    mb = {name: int(rest.split()[0]) / 1024 for name, _, rest in (s.partition(":") for s in lines)}
    total, free = mb.get("MemTotal", 0.0), mb.get("MemAvailable", 0.0)
    swapped = mb.get("SwapTotal", 0.0) - mb.get("SwapFree", 0.0)
    text = f"{free:.0f} of {total:.0f} MB are free"
    if free < _MEMORY_MB:
        return fault("memory", text, "end other programs, or take a device with 1 GB or more")
    if swapped > max(100.0, 0.1 * total):
        return warning(
            "memory",
            f"{text}, {swapped:.0f} MB are swapped out, which wears the card",
            "end other programs, or use zram in place of a swap file",
        )
    controllers = cgroup / "cgroup.controllers"
    if controllers.exists() and "memory" not in controllers.read_text().split():
        return warning(
            "memory",
            f"{text}; systemd cannot limit the agent's: the kernel's memory control group is off",
            "add cgroup_enable=memory to /boot/firmware/cmdline.txt, and start the device anew",
        )
    return ok("memory", text)


def power(find: Callable[[str], str | None] = shutil.which) -> Finding:
    """Ask a Raspberry Pi whether its supply held."""
    program = find("vcgencmd")
    if program is None:
        return ok("power", "cannot be asked: no vcgencmd")
    try:
        said = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=10, check=False
        )
        bits = int(said.stdout.strip().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ok("power", "cannot be asked: vcgencmd says nothing (group video?)")
    if bits & 0x1:
        return fault("power", "under voltage, now", "use the supply and cable made for this board")
    if bits & 0x10000:
        return warning(
            "power",
            "was under voltage since the start: cards are damaged so",
            "use the supply and cable made for this board",
        )
    if bits & 0xC:
        return warning("power", "slowed down: too hot", "give it air or a heat sink")
    return ok("power", "no under voltage since the start")


def synchronised() -> bool | None:
    """Return what systemd knows of the clock; None: nothing."""
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        said = subprocess.run(
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(said.stdout.strip())


def clock(
    config: AgentConfig | None,
    now_s: Callable[[], float] = time.time,
    synchronised: Callable[[], bool | None] = synchronised,
) -> Finding:
    """Check that the clock is not behind what it has already stamped, and follows a server."""
    now = now_s()
    said = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    mend = (
        "sudo timedatectl set-ntp true; without a network set the time (sudo date -s ...), and fit "
        "a real-time clock or install fake-hwclock"
    )
    is_set = synchronised()
    if time.gmtime(now).tm_year < _EARLIEST_YEAR:
        return fault("clock", f"it says {said}", mend)
    if config is not None:
        newest = max(
            (path.stat().st_mtime for path in config.state.glob("*") if path.is_file()), default=0.0
        )
        if newest > now + 60:
            return fault("clock", f"it says {said}: {_span(newest - now)} before newest file", mend)
        reading = newest_reading_s(config.state)
        if reading > now + config.limits.future_s:
            text = f"it says {said}: {_span(reading - now)} behind the data, the newest reading"
            if is_set:
                return warning("clock", f"{text}, and it is synchronised", "set the sender's clock")
            return fault("clock", text, f"{mend}; if it is right, set the sender's")
        refused = refused_as_ahead(config.state, now)
        if refused is not None:
            return warning(
                "clock",
                f"it says {said}; {refused.messages} messages of the last day were refused, the "
                f"newest of {refused.topic}: {refused.text}",
                "set the sender's clock" if is_set else mend,
            )
    if is_set is None:
        return ok("clock", f"{said}; nothing here says whether it follows a server")
    if not is_set:
        return warning("clock", f"{said}, not synchronised", mend)
    return ok("clock", f"{said}, synchronised")


def _span(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds > 172_800 else f"{seconds / 60:.0f} min"

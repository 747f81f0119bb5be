"""Ending what was started, and all that it started in turn, for certain.

Flower's SuperLink puts its own children into sessions of their own, where no process group reaches
them. Linux hands orphans to the nearest ancestor that asks for them: this process does.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has ended (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs, nearest first; empty without ``/proc``."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue  # ended while we looked
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(folder.name))
    found = list(children.get(pid, []))
    for child in found:  # grows as it goes
        found += children.get(child, [])
    return found


def end(pids: Callable[[], list[int]], wait: Callable[[float], object], grace_s: float) -> int:
    """Ask processes to end, wait, kill those that are left; returns how many had to be killed."""
    for pid in pids():
        _signal(pid, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while _alive(pids()) and time.monotonic() < until:
        wait(0.05)
    killed = 0
    while left := _alive(pids()):
        for pid in left:
            _signal(pid, signal.SIGKILL)
        killed = max(killed, len(left))
        wait(0.02)
    return killed


def _alive(pids: list[int]) -> list[int]:
    """Return those that have not ended, and reap those of ours that have."""
    left = []
    for pid in pids:
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            done = 0  # a grandchild, or reaped already: look whether it still does anything
        if not done and not _is_zombie(pid):
            left.append(pid)
    return left


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def runs(pid: int) -> bool:
    """Return whether a process does anything still; a zombie does not."""
    if Path("/proc/self").exists():
        return not _is_zombie(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def command_of(pid: int) -> list[str]:
    """Return the command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

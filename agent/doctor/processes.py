"""Who holds a file: read from ``/proc/locks``, which shows other users' processes, too."""

import os
from pathlib import Path

PROC = Path("/proc")


def lock_holders(path: Path) -> list[int]:
    """Return the numbers of the processes that hold a lock on a file, this one left out.

    Nothing is opened: opening a serial port resets many a device at its other end.
    """
    try:
        seen = path.stat()
        lines = (PROC / "locks").read_text().splitlines()
    except OSError:
        return []
    device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    found = set()
    for line in lines:
        # 1: POSIX  ADVISORY  READ 3012 fe:00:2318717 128 128
        words = [word for word in line.split() if word != "->"]
        if len(words) >= 6 and words[5] == device:
            found.add(int(words[4]))
    return sorted(found - {os.getpid(), 0, -1})


def openers(path: Path) -> list[int]:
    """Return the processes that have a device open, as far as this user may see them."""
    try:
        target = str(path.resolve(strict=True))
        folders = [one for one in PROC.iterdir() if one.name.isdecimal()]
    except OSError:
        return []
    found = []
    for folder in folders:
        try:
            if any(str(fd.readlink()) == target for fd in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:  # another user's, or gone by now
            continue
    return [pid for pid in found if pid != os.getpid()]


def command_of(pid: int) -> list[str]:
    """Return a process's command line; empty: it is gone, or hidden."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def is_agent(pid: int) -> bool:
    """Return whether a process is a ``runout-agent run``."""
    words = command_of(pid)
    ours = any(Path(word).name == "runout-agent" for word in words) or "agent.cli" in words
    return ours and "run" in words


def in_words(pids: list[int]) -> str:
    """Return names and numbers of processes."""
    names = [(Path(command[0]).name if (command := command_of(p)) else "a process") for p in pids]
    return ", ".join(f"{name} (pid {pid})" for name, pid in zip(names, pids, strict=True))

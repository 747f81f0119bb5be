"""The state folder: can it be written, is there room, is the store whole, who uses it."""

import errno
import os
import pwd
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.config import AgentConfig
from agent.doctor.finding import Finding, fault, ok, warning
from agent.doctor.processes import in_words, is_agent, lock_holders
from agent.journal import FOLDER, JournalReader
from agent.store import open_readonly, read_checkpoint
from contract.errors import ContractError
from contract.report import Health

_FULL_MB = 32.0
_FOREIGN = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "vfat", "exfat", "msdos")
_FLEETING = ("tmpfs", "ramfs", "overlay")
_MMC_LIFE = ("device/life_time", "device/pre_eol_info")
_json = msgspec.json.Decoder(Health)


class Mount(NamedTuple):
    """Where a file system hangs, its kind, options and device."""

    at: str
    kind: str
    options: tuple[str, ...]
    device: str


def mount_of(folder: Path) -> Mount | None:
    """Return the mount that a folder is on; None: the system does not say."""
    path = _existing(folder).resolve()
    best: Mount | None = None
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, behind = line.partition(" - ")
        words, more = before.split(), behind.split()
        at = words[4].replace("\\040", " ")
        deeper = best is None or len(at) >= len(best.at)
        if len(more) >= 2 and path.is_relative_to(at) and deeper:
            options = tuple(words[5].split(",")) + tuple(more[2:3])
            best = Mount(at, more[0], options, more[1])
    return best


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def user_name(uid: int) -> str:
    """Return a user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def state(config: AgentConfig) -> Finding:
    """Check, by writing, that the agent can keep its state where it is told to."""
    folder = config.state.absolute()
    if not folder.exists() and not os.access(_existing(folder), os.W_OK):
        return fault(
            "state",
            f"{folder} is not there, and {user_name(os.geteuid())} cannot make it",
            f"sudo install -d -o {user_name(os.geteuid())} {folder}",
        )
    if not folder.exists():
        return ok("state", f"{folder} will be made at the first start")
    me, owner = user_name(os.geteuid()), user_name(folder.stat().st_uid)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno == errno.EROFS:
            mend = "look at `dmesg`: a file system with errors is set so, mostly a card at its end"
            return fault("state", f"{folder} is read-only", mend)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return fault("state", f"{folder} cannot be written: it is full", "see disk")
        if error.errno in {errno.EACCES, errno.EPERM}:
            return fault(
                "state",
                f"{folder} belongs to {owner}, and {me} cannot write it",
                f"run the agent as {owner}, or sudo chown -R {me} {folder}",
            )
        mend = "look at `dmesg`: a card at its end fails so"
        return fault("state", f"{folder} cannot be written ({error.strerror})", mend)
    others = [
        path.name
        for path in sorted([*folder.iterdir(), *(folder / FOLDER).glob("*")])
        if path.is_file() and path.stat().st_uid != folder.stat().st_uid
    ]
    if others:
        return fault(
            "state",
            f"{folder} is {owner}'s, but not {', '.join(others[:5])} in it: run once as another?",
            f"sudo chown -R {owner} {folder}",
        )
    return ok("state", f"{folder} can be written by {me}")


def disk(config: AgentConfig) -> Finding:
    """Check that there is room for what the agent keeps."""
    at = _existing(config.state)
    seen = os.statvfs(at)
    free = seen.f_bavail * seen.f_frsize / 1e6
    size = sum(path.stat().st_size for path in config.state.glob("store.db*")) / 1e6
    size += JournalReader(config.state).size / 1e6
    # Twice the journal: what comes until the next checkpoint is kept beyond it.
    wanted = max(2 * config.keep.journal_mb + 200 - size, 100.0)
    text = f"{free:.0f} MB free for {at}"
    mend = "sudo apt clean; sudo journalctl --vacuum-size=50M; or less keep.journal_mb"
    if seen.f_flag & os.ST_RDONLY:
        said = "look at `dmesg`: a file system with errors is set so, mostly a card at its end"
        return fault("disk", f"{at} is read-only", said)
    if free < _FULL_MB:
        return fault("disk", f"{text}: full", mend)
    if seen.f_files and seen.f_favail < 100:
        return fault("disk", f"{text}, but no more files can be made", "remove small files")
    if free < wanted:
        return warning("disk", f"{text}; the store may want {wanted:.0f} more", mend)
    return ok("disk", text)


def card(config: AgentConfig, sys: Path = Path("/sys")) -> Finding:
    """Check file system and device of the state folder: what loses data, what wears a card."""
    mount = mount_of(config.state)
    if mount is None:
        return ok("card", "the system does not say what the state folder is on")
    text = f"{mount.kind} on {mount.device} at {mount.at}"
    if mount.kind in _FOREIGN:
        mend = "keep the state on a local ext4"
        return fault("card", f"{text}: SQLite cannot keep its word on {mount.kind}", mend)
    if mount.kind in _FLEETING:
        return warning(
            "card",
            f"{text}: what the agent learns may be gone when the power is",
            "keep the state on a disk; a read-only system needs a partition of its own for it",
        )
    name = Path(mount.device).name
    block = name.partition("p")[0] if name.startswith("mmcblk") else ""
    for file in _MMC_LIFE if block else ():
        try:
            used = max(int(word, 16) for word in (sys / "block" / block / file).read_text().split())
        except (OSError, ValueError):  # cards do not say it; built-in memory does
            continue
        if used >= (9 if file.endswith("life_time") else 2):
            return warning("card", f"{text}: near the end of its life", "copy it to a new one")
    if "strictatime" in mount.options:
        return warning("card", f"{text}, each read is written down", "mount it with noatime")
    if block and config.keep.power_loss_safe and config.keep.wait_ms < 200:
        return warning(
            "card",
            f"{text}: each batch is a write of its own",
            "keep.wait_ms = 1000 shares them, and spares the card",
        )
    return ok("card", text)


def running(config: AgentConfig) -> list[int]:
    """Return the agents that have the store of this state folder open."""
    return [pid for pid in lock_holders(config.state / "store.db-shm") if is_agent(pid)]


def agents(config: AgentConfig) -> Finding:
    """Check that one agent at most uses this state folder."""
    pids = running(config)
    if len(pids) > 1:
        return fault(
            "agent",
            f"{in_words(pids)} share the state folder {config.state}",
            "end all but one, and give each a node.name and a node.state of its own",
        )
    if pids:
        return ok("agent", f"runs (pid {pids[0]})")
    return ok("agent", "does not run")


def store(config: AgentConfig) -> Finding:
    """Check that the store is whole, and no larger than it should be."""
    folder = config.state
    if not (folder / "store.db").exists():
        return ok("store", "none yet: the agent has not run with this state folder")
    try:
        with closing(open_readonly(folder)) as db:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        mend = "run this as the agent's user: sudo -u runout runout-agent doctor ..."
        return fault("store", f"{folder / 'store.db'} cannot be opened ({error})", mend)
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        return fault(
            "store",
            f"{folder / 'store.db'} is damaged ({verdict})",
            "start the agent: it sets it aside and goes on from its checkpoint. Change the card",
        )
    aside = sorted(path.name for path in folder.glob("store.damaged-*.db"))
    size = sum(path.stat().st_size for path in folder.glob("store.db*")) / 1e6
    journal = JournalReader(folder).size
    text = f"whole, {size:.1f} MB, and a journal of {journal / 1e6:.1f}"
    if aside:
        mend = "change the card, look at the power supply, then remove them"
        return warning("store", f"{text}; damaged before: {', '.join(aside)}", mend)
    if journal > 2e6 * config.keep.journal_mb:
        return warning(
            "store",
            f"{text}: more than keep.journal_mb = {config.keep.journal_mb:g}",
            "does the agent run for longer than keep.checkpoint_s at a time? See its log",
        )
    return ok("store", text)


def checkpoint(config: AgentConfig) -> Finding:
    """Check that the agent's state can be read back."""
    wrong = []
    for name in ("checkpoint.npz", "checkpoint.prev.npz"):
        path = config.state / name
        if not path.exists():
            continue
        try:
            head, _ = read_checkpoint(path)
        except (ContractError, msgspec.DecodeError) as error:
            wrong.append(str(error))
            continue
        if wrong:
            mend = "nothing: the agent takes the one before, and replays. Twice: change the card"
            return warning("checkpoint", f"{wrong[0]}; the one before is whole", mend)
        return ok("checkpoint", f"{name} of batch {head.get('seq')}")
    if wrong:
        mend = "nothing, if the journal reaches back: the agent replays it. Else it learns anew"
        return fault("checkpoint", "; ".join(wrong), mend)
    return ok("checkpoint", "none yet")


def newest_reading_s(folder: Path) -> float:
    """Return the data time of the newest report among the last; 0: there is none."""
    try:
        with closing(open_readonly(folder)) as db:
            last = "SELECT body FROM result WHERE kind = 'health' ORDER BY id DESC LIMIT 200"
            return max((_json.decode(body).t for (body,) in db.execute(last)), default=0.0)
    except (ContractError, sqlite3.DatabaseError, msgspec.DecodeError):
        return 0.0


class Ahead(NamedTuple):
    """Messages that were refused because their time was ahead of this device's clock.

    Attributes:
        messages: how many, of the last day.
        topic: of the newest.
        text: why that was refused.
    """

    messages: int
    topic: str
    text: str


def refused_as_ahead(folder: Path, now_s: float) -> Ahead | None:
    """Return what was refused in the last day as of the future; None: nothing."""
    since = round((now_s - 86400) * 1e9), round((now_s + 86400) * 1e9)
    query = (
        "SELECT topic, text, COUNT(*) OVER () FROM quarantine WHERE reason = 'future' "
        "AND at_ns > ? AND at_ns < ? ORDER BY id DESC LIMIT 1"
    )
    try:
        with closing(open_readonly(folder)) as db:
            row = db.execute(query, since).fetchone()
    except (ContractError, sqlite3.DatabaseError):
        return None
    return None if row is None else Ahead(row[2], row[0], row[1])

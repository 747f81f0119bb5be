"""What the federation says of itself: status, versions and journals, out of the state folder.

The process that trains may be this one's, another, or none.
"""

import json
import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from contract.errors import ContractError, RunoutError
from contract.release import Manifest, Release
from server import status, wave
from server.registry import Registry, cohorts
from server.restore import before, locked, restore

log = logging.getLogger("runout.fleet")

PATIENCE_S = 5.0
"""For a training that is running, while a person waits for the page."""

KEPT_EVENTS = 2000
"""Of each journal, the newest."""


class Version(msgspec.Struct, frozen=True):
    """A version; ``problem`` says why it cannot be used, if so, and ``way`` how far it has come."""

    number: int
    manifest: Manifest | None
    problem: str
    handed_out: bool
    way: str = ""


class Cohort(msgspec.Struct, frozen=True):
    """An asset class that learns together.

    Attributes:
        name: of the class.
        versions: newest first.
        events: of its journal, newest first.
        rounds: phases in which devices trained, since the journal began.
        rejected: updates that were not used, by phase, since the journal began.
        before: version that judged before the one that is handed out; 0: the devices' own models;
            None: there is nothing to go back to.
    """

    name: str
    versions: tuple[Version, ...]
    events: tuple[dict[str, Any], ...]
    rounds: int
    rejected: dict[str, int]
    before: int | None


class _Journal:
    """Follows one journal: what was read is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._file: tuple[int, int] | None = None
        self.events: list[dict[str, Any]] = []
        self.rounds = 0
        self.rejected: Counter[str] = Counter()

    def read(self) -> None:
        try:
            with self._path.open("rb") as file:
                about = self._path.stat()
                if self._file != (about.st_dev, about.st_ino) or about.st_size < self._at:
                    self._at = 0  # set aside, and begun anew: the counts go on
                    self._file = about.st_dev, about.st_ino
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if isinstance(event, dict):
                self._take(event)
        del self.events[:-KEPT_EVENTS]

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event.get("event") != "phase":
            return
        phase = str(event.get("phase", "")).partition(" ")[0]
        if phase not in {"evaluate", "deploy"}:
            self.rounds += 1
        failed = event.get("failed")
        if isinstance(failed, dict) and failed:
            self.rejected[phase] += len(failed)


class Federation:
    """Reads a server's state folder; any thread.

    Args:
        state: the folder.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self._lock = threading.Lock()
        self._journals: dict[str, _Journal] = {}
        self._manifests: dict[Path, tuple[int, Manifest | None, str]] = {}

    def status(self) -> status.Status | None:
        """Return what the server does; None: it never ran here."""
        return status.read(self.state)

    def stamp(self) -> int:
        """Return a number that changes with the status."""
        try:
            return (self.state / "status.json").stat().st_mtime_ns
        except OSError:
            return 0

    def ask_for_training(self) -> None:
        """Ask the running server to train now."""
        (self.state / status.REQUEST).touch()

    @property
    def asked(self) -> bool:
        """Return whether a training is asked for and has not begun."""
        return (self.state / status.REQUEST).exists()

    def restore(self, name: str, version: int, by: str) -> Release:
        """Hand a version of a class out again, under a new number; 0: the devices' own models.

        Raises:
            RunoutError: no such class or version, or a training does not end.
        """
        if name not in cohorts(self.state):
            raise RunoutError(f"there is no asset class {name!r}")
        with locked(self.state, PATIENCE_S, log.info):
            return restore(Registry(self.state, name), version, by)

    def cohorts(self) -> list[Cohort]:
        """Return what there is of each asset class."""
        with self._lock:
            return [self._cohort(name) for name in cohorts(self.state)]

    def _cohort(self, name: str) -> Cohort:
        registry = Registry(self.state, name)
        journal = self._journals.setdefault(name, _Journal(registry.folder / "rounds.jsonl"))
        journal.read()
        live = registry.pointed()
        try:
            found = wave.read(registry.folder)
        except ContractError:
            found = None  # the server that looks after it says what is wrong
        versions = []
        for number in reversed(registry.versions()):
            manifest, problem = self._manifest(registry, number)
            way = found.in_short if found is not None and found.version == number else ""
            versions.append(Version(number, manifest, problem, number == live, way))
        return Cohort(
            name,
            tuple(versions),
            tuple(reversed(journal.events)),
            journal.rounds,
            dict(journal.rejected),
            _before(name, versions),
        )

    def _manifest(self, registry: Registry, number: int) -> tuple[Manifest | None, str]:
        path = registry.path(number)
        try:
            stamp = path.stat().st_mtime_ns
            known = self._manifests.get(path)
            if known is None or known[0] != stamp:
                known = stamp, registry.get(number).manifest, ""
        except (OSError, ContractError) as error:
            known = 0, None, str(error)
        self._manifests[path] = known
        return known[1], known[2]


def _before(name: str, versions: list[Version]) -> int | None:
    """Return what could be gone back to; None: nothing."""
    manifests = {v.number: v.manifest for v in versions if v.manifest is not None}
    current = next((v.manifest for v in versions if v.handed_out), None)
    try:
        return before(name, current, manifests.__getitem__)
    except (RunoutError, KeyError):
        return None

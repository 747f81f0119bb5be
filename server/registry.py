"""Every version of a cohort's models, what they stand on, and a journal of how they came about.

``registry/<class>/v0001.npz`` versions · ``current`` which of them is handed out · ``line.json``
and ``basis-0001.npz`` what is pinned · ``rounds.jsonl`` the journal. Each is written whole or not
at all: after a kill at any instant there is the state before or the state after.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from contract import npz
from contract.errors import ContractError, RunoutError
from contract.models.ridge import Basis
from contract.release import Release, load_model
from contract.spec import AssetClass
from server.signing import sign

JOURNAL_BYTES = 10_000_000
"""The journal is set aside as ``rounds.1.jsonl`` beyond this, and the one before is dropped."""

_VERSION = re.compile(r"v([0-9]{4,})\.npz")


class Line(msgspec.Struct, frozen=True):
    """What a cohort's versions have in common.

    Attributes:
        digest: of the spec that all must run.
        asset_class: that spec.
        basis_version: counts the standardisations; 0: none yet.
        basis_digest: of the arrays.
        basis_rows: feature vectors behind it.
    """

    digest: str
    asset_class: AssetClass
    basis_version: int = 0
    basis_digest: str = ""
    basis_rows: float = 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """One version in the registry; ``problem`` says why it cannot be used, if so."""

    version: int
    path: Path
    release: Release | None
    problem: str


class Registry:
    """The registry of one cohort; one writer at a time."""

    def __init__(self, state: Path, asset_class: str) -> None:
        self.asset_class = asset_class
        self._state = state
        self.folder = state / "registry" / quote(asset_class, safe="")
        self.folder.mkdir(parents=True, exist_ok=True)

    # -- versions ---------------------------------------------------------------------------

    def versions(self) -> list[int]:
        """Return the versions there are, oldest first."""
        found = (_VERSION.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, version: int) -> Path:
        """Return where a version is, or would be."""
        return self.folder / f"v{version:04d}.npz"

    def get(self, version: int) -> Release:
        """Return a version; raises ``ContractError`` if it is missing or damaged."""
        return load_model(self.path(version))

    def all(self) -> list[Known]:
        """Return all versions, the damaged ones with what is wrong with them."""
        known = []
        for version in self.versions():
            try:
                known.append(Known(version, self.path(version), self.get(version), ""))
            except ContractError as error:
                known.append(Known(version, self.path(version), None, str(error)))
        return known

    def current(self) -> Release | None:
        """Return the version that is handed out; if it is damaged, the newest whole one."""
        try:
            pointed = int((self.folder / "current").read_text())
        except (OSError, ValueError):
            pointed = 0  # never written, or killed before the first was
        newest_first = sorted(self.versions(), reverse=True)
        for version in sorted(newest_first, key=lambda v: v != pointed):
            try:
                return self.get(version)
            except ContractError:
                continue  # it stays in the list with its problem; an older whole one serves
        return None

    def pointed(self) -> int | None:
        """Return the number of the version that is handed out, as far as it is whole."""
        try:
            pointed = int((self.folder / "current").read_text())
        except (OSError, ValueError):
            pointed = 0
        if pointed in self.versions():
            return pointed
        current = self.current()
        return None if current is None else current.version

    def next_version(self) -> int:
        """Return the number of the version to come; numbers are never used twice."""
        return max(self.versions(), default=0) + 1

    def register(self, release: Release) -> None:
        """Sign and keep a release, and hand it out from now on."""
        path = self.path(release.version)
        if path.exists():
            raise RunoutError(f"{path}: version {release.version} exists; versions never change")
        sign(release, self._state)
        release.save(path)
        self.point(release.version)

    def point(self, version: int) -> None:
        """Hand out a version that is here, from now on."""
        npz.write(self.folder / "current", str(version).encode())

    def restore(self, version: int, at_s: float, by: str = "") -> Release:
        """Hand out a version's models again, under a new number; 0: each device's own models.

        ``by``: who asked for it, for the journal; empty: not said.

        Raises:
            ContractError: there is no such version, or it is damaged.
            RunoutError: nothing was handed out yet.
        """
        current = self.current()
        if current is None:
            raise RunoutError(f"{self.asset_class}: nothing was handed out yet")
        source = current if version == 0 else self.get(version)
        manifest = msgspec.structs.replace(
            source.manifest,
            version=self.next_version(),
            parent=current.version,
            created_ns=round(at_s * 1e9),
            restores=version,
        )
        if version == 0:
            manifest = msgspec.structs.replace(
                manifest, rul_model="", contributors=(), metrics={}, epochs={}, lives={}
            )
        release = Release(manifest, source.arrays if version else {})
        self.register(release)
        who = {"by": by} if by else {}
        self.note("restored", at_s, version=release.version, restores=version, **who)
        return release

    # -- the line ---------------------------------------------------------------------------

    def line(self) -> Line | None:
        """Return what is pinned, or None before the first training."""
        path = self.folder / "line.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Line)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise ContractError(f"{path}: cannot be read ({error})") from error

    def pin(self, line: Line, basis: Basis | None = None) -> Line:
        """Pin a spec, and with a ``basis`` the next standardisation under it."""
        if basis is not None:
            arrays = basis.arrays()
            digest = npz.digest_of(b"", arrays)[:16]
            version = line.basis_version + 1
            npz.write(self._basis_path(version), npz.to_bytes(digest.encode(), arrays))
            line = msgspec.structs.replace(line, basis_version=version, basis_digest=digest)
        npz.write(self.folder / "line.json", msgspec.json.encode(line))
        return line

    def basis(self, line: Line) -> Basis | None:
        """Return the pinned standardisation; None if there is none, or it is damaged."""
        if not line.basis_version:
            return None
        try:
            head, arrays = npz.read(self._basis_path(line.basis_version))
        except ContractError:
            return None  # the next statistics pin another
        whole = head.decode() == line.basis_digest == npz.digest_of(b"", arrays)[:16]
        return Basis.from_arrays(arrays) if whole else None

    def from_parent(self) -> dict[str, int]:
        """Return the versions that came from a parent server: its digest to the number here."""
        try:
            content = (self.folder / "parent.json").read_bytes()
            return msgspec.json.decode(content, type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}

    def keep_from_parent(self, versions: dict[str, int]) -> None:
        """Replace what ``from_parent`` returns."""
        npz.write(self.folder / "parent.json", msgspec.json.encode(versions))

    def unpin(self) -> bool:
        """Set the line aside, so that the next training pins what most nodes run then."""
        path = self.folder / "line.json"
        if not path.exists():
            return False
        path.replace(self.folder / "line.before.json")
        return True

    def _basis_path(self, version: int) -> Path:
        return self.folder / f"basis-{version:04d}.npz"

    # -- the journal ------------------------------------------------------------------------

    def note(self, event: str, at_s: float, **facts: object) -> None:
        """Append to the journal."""
        path = self.folder / "rounds.jsonl"
        if path.exists() and path.stat().st_size > JOURNAL_BYTES:
            path.replace(self.folder / "rounds.1.jsonl")
        torn = False
        if path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, 2)
                torn = file.read(1) != b"\n"  # killed in the middle of a line
        line = json.dumps({"event": event, "t": round(at_s, 3), **facts})
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + line + "\n")

    def journal(self) -> list[dict[str, object]]:
        """Return what happened, oldest first; a torn line is left out."""
        path = self.folder / "rounds.jsonl"
        if not path.exists():
            return []
        events = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events


def cohorts(state: Path) -> list[str]:
    """Return the asset classes that have a registry."""
    folder = state / "registry"
    return sorted(unquote(path.name) for path in folder.iterdir()) if folder.is_dir() else []

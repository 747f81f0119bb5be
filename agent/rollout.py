"""Releases on the device: laid into an inbox by the node, and what they must be to be tried.

``models/inbox`` new releases · ``models/shadow`` those on trial · ``models/releases`` those that
judge or have judged · ``models/rejected`` those that were refused.
"""

import contextlib
import logging
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.batch import Swap
from agent.config import AgentConfig
from agent.labels import Life
from agent.prognosis import error_h
from agent.store import open_readonly
from contract import load_model
from contract.errors import ContractError
from contract.release import Predictor, Release

if TYPE_CHECKING:
    from agent.signature import Trusted

log = logging.getLogger("runout.rollout")


class Verdict(NamedTuple):
    """What became of a release.

    Attributes:
        asset_class: it is for; empty if it could not even be read.
        version: of it.
        digest: of it.
        promoted: whether it judges now.
        reason: in words.
        release: that was read, while it is tried.
    """

    asset_class: str
    version: int
    digest: str
    promoted: bool
    reason: str
    release: Release | None = None


Errors = tuple[float, float | None]
"""Of remaining life on held-out lives, in hours: of a release, and of what judges or judged."""


def folders(state: Path) -> tuple[Path, Path, Path]:
    """Return inbox, releases and rejected, made if need be."""
    made = tuple(state / "models" / name for name in ("inbox", "releases", "rejected"))
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
    return made  # type: ignore[return-value]  # three


def shadow_path(state: Path, asset_class: str) -> Path:
    """Return where the release of a class lies that is on trial."""
    folder = state / "models" / "shadow"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{asset_class}.npz"


def deliver(state: Path, release: Release) -> str:
    """Lay a release into the inbox of the agent with this state folder.

    Returns:
        ``delivered``, ``already live`` if it judges there already, ``on trial``, or why it was
        refused there before.

    Raises:
        ContractError: there is no agent here, or no room.
    """
    name = release.manifest.asset_class.name
    db = open_readonly(state)
    try:
        refused = refused_before(db, release.digest)
        on_trial = db.execute("SELECT value FROM meta WHERE key = ?", (f"trial/{name}",)).fetchone()
        live = db.execute("SELECT value FROM meta WHERE key = ?", (f"live/{name}",)).fetchone()
    finally:
        db.close()
    if live is not None and live[0].partition(" ")[2] == release.digest:
        return "already live"
    if refused and release.manifest.restores is None:
        return refused
    if on_trial is not None and f'"{release.digest}"' in on_trial[0]:
        return "on trial"
    inbox, _, _ = folders(state)
    path = inbox / file_name(name, release.version)
    try:
        release.save(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".part").unlink(missing_ok=True)
        raise ContractError(f"{path}: cannot be laid down ({error.strerror})") from error
    return "delivered"


def refused_before(db: sqlite3.Connection, digest: str) -> str:
    """Return why a release is not tried once more on a device; empty: it may be."""
    rows = db.execute(
        "SELECT verdict, reason FROM rollout WHERE digest = ? ORDER BY id DESC LIMIT 2", (digest,)
    ).fetchall()
    words = [word for word, _ in rows]
    if words[:1] == ["rolled back"] or words == ["rejected", "shadow"]:
        return f"refused here before: {rows[0][1]}"
    return ""


def file_name(asset_class: str, version: int) -> str:
    """Return the name of a release's file."""
    return f"{asset_class}-v{version:04d}.npz"


class Rollout:
    """The agent's side: what is in the inbox, and whether it shall judge."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._inbox, self._releases, self._rejected = folders(config.state)
        self._kept: dict[str, Release] = {}
        self._trusted: Trusted | None = None
        if config.federation.release_key:
            # Here, not above: it costs 5 MB that a device by itself does without.
            from agent import signature  # noqa: PLC0415

            self._trusted = signature.Trusted(config.federation.release_key)

    def find(self, swap: Swap) -> Release:
        """Return a promoted release; raises ``ContractError`` if it is lost or altered."""
        if swap.digest in self._kept:
            return self._kept[swap.digest]
        release = load_model(self._releases / file_name(swap.asset_class, swap.version))
        if release.digest != swap.digest:
            raise ContractError(
                f"release {swap.version} of {swap.asset_class} is not the one that was promoted"
            )
        return release

    def waiting(self) -> list[Path]:
        """Return the releases in the inbox."""
        return sorted(self._inbox.glob("*.npz"))

    def examine(self, path: Path) -> Verdict:
        """Read a release of the inbox: is it whole, signed, and for this device?

        Returns:
            with the release in it, or why it must not even be tried.
        """
        try:
            release = load_model(path)
        except ContractError as error:
            return Verdict("", 0, "", promoted=False, reason=str(error))
        # By what it says it is, not by the name of its file.
        spec = release.manifest.asset_class
        found = Verdict(spec.name, release.version, release.digest, promoted=False, reason="")
        problem = "" if self._trusted is None else self._trusted.problem(release)
        own = next((one for one in self._config.asset_class if one.name == spec.name), None)
        if problem:
            return found._replace(reason=problem)
        if own is None:
            return found._replace(reason=f"this device has no asset class {spec.name!r}")
        if spec.digest() != own.digest():
            return found._replace(
                reason="trained for other channels, features or models than this device is "
                "configured for"
            )
        return found._replace(release=release)

    def too_wrong(self, errors: Errors | None) -> str:
        """Return why a release errs too much to judge; empty: it does not, as far as is known."""
        if errors is None:
            return ""
        candidate, live = errors
        # No number is greater than another: what is none must not pass.
        bound = None if live is None else live * (1 + self._config.learning.tolerance)
        if bound is not None and not candidate <= bound:
            return f"error on held-out lives {candidate:.1f} h, what judges now {live:.1f} h"
        if not np.isfinite(candidate):
            return "it makes no number of held-out lives"
        return ""

    def evidence(self, errors: Errors | None, heldout: list[Life]) -> str:
        """Return what held-out lives say, in words."""
        if errors is None:
            return "no held-out lives on this device yet: taken on the fleet's evidence"
        candidate, live = errors
        before = "nothing before" if live is None else f"{live:.1f} h before"
        return f"error on {len(heldout)} held-out lives {candidate:.1f} h, {before}"

    def lay(self, release: Release) -> None:
        """Keep a release where those lie that judge; raises ``OSError`` if there is no room."""
        name = file_name(release.manifest.asset_class.name, release.version)
        release.save(self._releases / name)
        self._kept = {release.digest: release}

    def set_aside(self, path: Path, version: int | None = None) -> None:
        """Keep a copy of what was refused, if there is room; ``version`` in its name, if told."""
        name = path.name if version is None else file_name(path.stem, version)
        try:
            shutil.copyfile(path, self._rejected / name)
        except OSError as error:
            log.warning("no copy of a refused release", extra={"error": str(error)})
            with contextlib.suppress(OSError):
                (self._rejected / name).unlink(missing_ok=True)


def errors_of(
    candidate: Predictor | None, before: Predictor | None, heldout: list[Life]
) -> Errors | None:
    """Return the errors of a release and of what judges or judged, where both can be known."""
    new = None if candidate is None else error_h(candidate, heldout)
    if new is None:
        return None
    return new, None if before is None else error_h(before, heldout)


def live_version(db: sqlite3.Connection, asset_class: str) -> int:
    """Return the version that judges on a device; 0: its own models."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"live/{asset_class}",)).fetchone()
    return 0 if row is None else int(row[0].partition(" ")[0])

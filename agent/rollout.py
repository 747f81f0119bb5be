"""Releases on the device: laid into an inbox by the node, tested and promoted by the agent.

``models/inbox`` new releases · ``models/releases`` those that judge or have judged ·
``models/rejected`` those that were refused.
"""

import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.batch import Swap
from agent.config import AgentConfig
from agent.group import Group
from agent.labels import Life
from agent.personal import Personal, personal
from agent.prognosis import error_h
from agent.store import open_readonly
from contract import load_model
from contract.errors import ContractError
from contract.release import Release
from contract.spec import AssetClass

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
    """

    asset_class: str
    version: int
    digest: str
    promoted: bool
    reason: str


def folders(state: Path) -> tuple[Path, Path, Path]:
    """Return inbox, releases and rejected, made if need be."""
    made = tuple(state / "models" / name for name in ("inbox", "releases", "rejected"))
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
    return made  # type: ignore[return-value]  # three


def deliver(state: Path, release: Release) -> str:
    """Lay a release into the inbox of the agent with this state folder.

    Returns:
        ``delivered``, or ``already live`` if it judges there already.
    """
    db = open_readonly(state)
    try:
        live = db.execute(
            "SELECT value FROM meta WHERE key = ?", (f"live/{release.manifest.asset_class.name}",)
        ).fetchone()
    finally:
        db.close()
    if live is not None and live[0].partition(" ")[2] == release.digest:
        return "already live"
    inbox, _, _ = folders(state)
    release.save(inbox / file_name(release.manifest.asset_class.name, release.version))
    return "delivered"


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

    def consider(
        self,
        path: Path,
        groups: dict[str, Group],
        heldout_of: Callable[[AssetClass], list[Life]],
        training_of: Callable[[AssetClass], list[Life]],
    ) -> Verdict:
        """Read and judge one release; a copy is kept where it belongs."""
        try:
            release = load_model(path)
        except ContractError as error:
            self._reject(path)
            return Verdict("", 0, "", promoted=False, reason=str(error))
        name, version = release.manifest.asset_class.name, release.version
        unsigned = "" if self._trusted is None else self._trusted.problem(release)
        if unsigned:
            self._reject(path)
            return Verdict(name, version, release.digest, promoted=False, reason=unsigned)
        # By what it says it is, not by the name of its file.
        heldout: list[Life] = []
        errors: tuple[float, float | None] | None = None
        group = groups.get(name)
        if group is not None and release.manifest.asset_class.digest() == group.spec.digest():
            heldout = heldout_of(group.spec)
            own = personal(release, self._config.name, training_of(group.spec))
            errors = self._errors(release, own, group, heldout)
        problem = self._problem(release, groups.get(name), errors)
        if problem:
            self._reject(path)
            return Verdict(name, version, release.digest, promoted=False, reason=problem)
        release.save(self._releases / file_name(name, version))
        self._kept = {release.digest: release}
        reason = self._evidence(errors, heldout)
        if release.manifest.restores is not None:
            again = release.manifest.restores or "none: this device's own models judge"
            reason = f"restores version {again}; {reason}"
        return Verdict(name, version, release.digest, promoted=True, reason=reason)

    def _problem(
        self, release: Release, group: Group | None, errors: tuple[float, float | None] | None
    ) -> str:
        manifest = release.manifest
        if group is None:
            return f"this device has no asset class {manifest.asset_class.name!r}"
        if manifest.asset_class.digest() != group.spec.digest():
            return (
                "trained for other channels, features or models than this device is configured for"
            )
        if errors is None or manifest.restores is not None:
            return ""
        candidate, live = errors
        if live is not None and candidate > live * (1 + self._config.learning.tolerance):
            return f"error on held-out lives {candidate:.1f} h, what judges now {live:.1f} h"
        return ""

    def _errors(
        self, release: Release, own: Personal | None, group: Group, heldout: list[Life]
    ) -> tuple[float, float | None] | None:
        """Return the errors of candidate and of what judges now, where both can be known."""
        candidate = release.rul.get(release.manifest.rul_model)
        if own is not None:
            candidate = own.model  # as it will judge here
        judging = group.predictor()
        new = None if candidate is None else error_h(candidate, heldout)
        if new is None:
            return None
        return new, None if judging is None else error_h(judging[1], heldout)

    def _evidence(self, errors: tuple[float, float | None] | None, heldout: list[Life]) -> str:
        if errors is None:
            return "no held-out lives on this device yet: taken on the fleet's evidence"
        candidate, live = errors
        before = "nothing before" if live is None else f"{live:.1f} h before"
        return f"error on {len(heldout)} held-out lives {candidate:.1f} h, {before}"

    def _reject(self, path: Path) -> None:
        shutil.copyfile(path, self._rejected / path.name)


def live_version(db: sqlite3.Connection, asset_class: str) -> int:
    """Return the version that judges on a device; 0: its own models."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"live/{asset_class}",)).fetchone()
    return 0 if row is None else int(row[0].partition(" ")[0])

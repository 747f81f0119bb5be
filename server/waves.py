"""Brings a release to the fleet in waves, watches it there, and takes it back where it does harm.

What was decided is in the registry's folder before anybody is handed anything, so that a server
that was killed goes on where it was. See ``server.wave`` for what is decided.
"""

import logging

import msgspec

from contract.errors import ContractError
from contract.release import Release
from contract.update import Offered, Readiness
from server import readiness, wave
from server.registry import Registry
from server.training import Training
from server.wave import Policy, Wave

log = logging.getLogger("runout.server")

ANSWER_S = 30.0
MOST_ASKED = 200
"""Devices that are asked at a time for their name: a fleet is got to know bit by bit."""


class Waves:
    """The way of one class's newest release.

    Args:
        training: with the fleet, the registry and, in its settings, the policy.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._policy: Policy = training.settings.waves
        self._look_s = 0.0
        self._sites: dict[str, str] = {}
        """Of devices that could take a release of the class, by name."""
        self._unfit: set[str] = set()
        """Those that could not, as far as they were asked since the newest release."""
        self._here: dict[str, str] = {}
        """Of ``_sites`` those that are online."""
        if self._policy.canary and self._registry is not None:
            release = self._registry.current()
            if release is not None and wave.read(self._registry.folder) is None:
                # It was handed to everybody before there were waves.
                Wave(release.version, release.digest, 0, state="done").save(self._registry.folder)

    @property
    def _registry(self) -> Registry | None:
        cohort = self._training.cohort
        return None if cohort is None else cohort.registry

    def under_way(self) -> bool:
        """Return whether a release has come to some devices and not to all yet."""
        if not self._policy.canary or self._registry is None:
            return False
        found = wave.read(self._registry.folder)
        return found is not None and found.under_way and self._newest(found)

    def _newest(self, found: Wave) -> bool:
        assert self._registry is not None  # noqa: S101  # for the type checker; callers looked
        return found.version >= max(self._registry.versions(), default=0)

    def admitted(self, release: Release, online: list[int]) -> list[int]:
        """Return the nodes that may be handed a release now."""
        registry, names = self._registry, self._training.fleet.names
        if not self._policy.canary or registry is None or release.manifest.restores is not None:
            return online
        found = wave.read(registry.folder)
        if found is None or found.version != release.version:
            return []
        if wave.everybody(found, self._policy):
            return online
        return [node_id for node_id in online if names.get(node_id) in found.members]

    def due(self, release: Release) -> bool:
        """Return whether ``tend`` has something to do."""
        registry = self._registry
        if not self._policy.canary or registry is None:
            return False
        found = wave.read(registry.folder)
        if found is None or found.version < release.version or found.asked:
            return found is not None or release.manifest.restores is None
        if found.version == release.version and found.state == "stopped":
            return True  # it was stopped, and the server killed before anything else was handed out
        looks = found.under_way and self._training.fleet.clock() >= self._look_s
        return looks and found.version == release.version

    def tend(self, release: Release, online: list[int]) -> None:
        """Begin, look, and go on, wait or stop; whoever else writes to the registry must wait."""
        registry = self._registry
        if registry is None:
            return
        self._look_s = self._training.fleet.clock() + self._policy.look_s
        found = wave.read(registry.folder)
        if found is None or found.version < release.version:
            found = self._begin(found, release, registry)
        if found.version == release.version and found.state == "stopped":
            self._take_back(found, registry)
        if found.version != release.version or not found.under_way:
            return
        self._ask(found, online)
        names = {self._training.fleet.names.get(node_id) for node_id in online}
        self._here = {name: site for name, site in self._sites.items() if name in names}
        self._decide(found, registry)

    def _begin(self, before: Wave | None, release: Release, registry: Registry) -> Wave:
        if release.manifest.restores is not None:
            # A person has decided: it is for everybody, and ends what was on its way.
            if before is not None and before.under_way:
                before.state, before.why = "stopped", f"version {release.version} was handed out"
                self._note(before, registry)
            found = Wave(release.version, release.digest, 0, state="done")
            found.save(registry.folder)
            return found
        self._unfit.clear()
        back = _before(registry, release)
        if before is not None and before.under_way:
            back = before.before  # what was on its way is nothing to go back to
        found = Wave(release.version, release.digest, back, opened_s=self._training.now())
        found.save(registry.folder)
        return found

    # -- what devices say -----------------------------------------------------------------------

    def _ask(self, found: Wave, online: list[int]) -> None:
        """Hear of the release from those that have it, and get to know those that do not."""
        fleet, settings = self._training.fleet, self._training.settings
        unsettled, strangers = [], []
        for node_id in online:
            name = fleet.names.get(node_id)
            if name is not None and name in found.members:
                if not self._final(found, name):
                    unsettled.append(node_id)
            elif name is None or (name not in self._sites and name not in self._unfit):
                strangers.append(node_id)
        asked = unsettled + strangers[:MOST_ASKED]
        if not asked:
            return
        deadline_s = min(ANSWER_S, settings.deadline_s)
        for told in readiness.ask(fleet, asked, deadline_s, settings.quorum).told.values():
            self._hear(found, told)

    def _final(self, found: Wave, name: str) -> bool:
        told = found.told.get(name)
        return told is not None and told.settled

    def _hear(self, found: Wave, told: Readiness) -> None:
        assert self._registry is not None  # noqa: S101  # for the type checker; tend looked
        line = self._registry.line()
        known = told.classes.get(self._registry.asset_class)
        if known is None or line is None or known.digest != line.digest:
            self._sites.pop(told.node, None)
            self._unfit.add(told.node)
            return
        self._sites[told.node] = told.site
        if told.node not in found.members:
            return
        offered = known.offered
        if offered is not None and offered.digest == found.digest:
            found.told[told.node] = offered
        elif offered is None and known.live_version == found.version:
            # A device of before, which says nothing more of it.
            plain = Offered(found.version, found.digest, "promoted", settled=True, reason="")
            found.told[told.node] = plain

    # -- what follows ---------------------------------------------------------------------------

    def _decide(self, found: Wave, registry: Registry) -> None:
        at_s = self._training.now()
        asked, found.asked = found.asked, ""
        why = "a person stopped it" if asked == "stop" else wave.regression(found, self._policy)
        if why:
            self._stop(found, registry, why)
            return
        if asked == "hold":
            found.state, found.why = "held", "by a person"
            self._note(found, registry)
            return
        if asked == "go":
            found.state, found.why = "watched", ""
        elif found.state == "held":
            found.save(registry.folder)
            return
        if not found.members:
            self._open(found, registry, 0)
        elif asked == "go" or not wave.waited_for(found, self._policy, at_s):
            self._open(found, registry, found.number + 1)
        else:
            self._take_joiners(found)
            found.save(registry.folder)

    def _open(self, found: Wave, registry: Registry, number: int) -> None:
        """Open a wave, or the first behind it that brings the release to anybody."""
        for at in range(number, len(self._policy.shares) + 1):
            names = wave.to_come(found, self._policy, self._here, at)
            if names:
                found.members |= dict.fromkeys(names, at)
                found.number, found.opened_s = at, self._training.now()
                self._note(found, registry, devices=names)
                return
        if not found.members:
            found.save(registry.folder)  # nobody is there yet
            return
        found.state, found.number = "done", len(self._policy.shares)
        self._note(found, registry)

    def _take_joiners(self, found: Wave) -> None:
        """Count those that have come since the last wave was opened to its members."""
        if wave.everybody(found, self._policy):
            found.members |= {n: found.number for n in self._here if n not in found.members}

    def _stop(self, found: Wave, registry: Registry, why: str) -> None:
        found.state, found.why = "stopped", why
        self._note(found, registry)
        log.warning("version %d is stopped: %s", found.version, why)
        self._take_back(found, registry)

    def _take_back(self, found: Wave, registry: Registry) -> None:
        """Hand out again what was before a release that is stopped."""
        version = found.before
        if version:
            try:
                registry.get(version)
            except ContractError as error:
                log.error("version %d cannot be handed out again: %s", version, error)  # noqa: TRY400
                version = 0
        restored = registry.restore(version, self._training.now())
        again = f"version {version}" if version else "each device's own models"
        log.warning("%s again, as version %d", again, restored.version)

    def _note(self, found: Wave, registry: Registry, **facts: object) -> None:
        """Keep how far it has come, and put it into the journal."""
        found.save(registry.folder)
        registry.note(
            "wave",
            self._training.now(),
            version=found.version,
            wave=found.number,
            state=found.state,
            why=found.why,
            **facts,
            told=_summary(found),
        )
        log.info(
            "version %d: wave %d, %s, on %d devices",
            *(found.version, found.number, found.state, len(found.members)),
        )


def _summary(found: Wave) -> dict[str, int]:
    """Return how many devices said what."""
    counts: dict[str, int] = {}
    for told in found.told.values():
        word = "kept" if wave.well_through(told) else told.verdict
        counts[word] = counts.get(word, 0) + 1
    return counts


def _before(registry: Registry, release: Release) -> int:
    """Return the version that stands before a release; 0: the devices' own models."""
    parent = release.manifest.parent
    if not parent:
        return 0
    try:
        again = registry.get(parent).manifest.restores
    except ContractError:
        return 0
    return parent if again is None else again


def ask(registry: Registry, what: wave.Asked) -> Wave:
    """Ask the running server to go on with, hold or stop what is on its way.

    Raises:
        ContractError: nothing is.
    """
    found = wave.read(registry.folder)
    if found is None or not found.under_way:
        raise ContractError(f"{registry.asset_class}: no release is on its way")
    found = msgspec.structs.replace(found, asked=what)
    found.save(registry.folder)
    return found

"""How a release comes to judge, and how what judged before it comes back.

Gate (signature, fit, the newest vectors, held-out lives) → shadow beside what judges → promoted, at
a known place in the journal → watched, with what judged before beside it → kept, or rolled back.
Each step is in the store, with its reason, before the file that it began with is taken away: after
a kill at any instant the step is finished or begun anew, and meanwhile the last good model judges.
"""

import logging
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.asset import Asset
from agent.batch import Swap
from agent.config import AgentConfig
from agent.gate import Gate
from agent.group import Group
from agent.health import Judged
from agent.personal import personal
from agent.pipeline import Pipeline
from agent.rollout import Errors, Rollout, Verdict, refused_before, shadow_path
from agent.standing import Standing, Word, offered, standing_of
from agent.store import Store
from agent.trial import Seen, Trial, bench_of
from contract.arrays import Floats
from contract.errors import ContractError
from contract.release import Release, load_model

log = logging.getLogger("runout.rollout")

MOST_STARTS = 5
"""Starts in a row that end before a checkpoint, while a release is watched: it is taken for why."""
RECENT = 128
"""Vectors of a class that are remembered for a release to be tried on before anything else."""


class Deployment:
    """Takes releases from the inbox to judging, and back where they do harm.

    Args:
        config: of the agent.
        store: its memory.
        pipeline: what judges.
        rollout: where releases lie, and what they must be.
        swap: lets a release judge from a known place in the journal on.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: Store,
        pipeline: Pipeline,
        rollout: Rollout,
        swap: Callable[[Swap], object],
    ) -> None:
        self._config = config
        self._trial_config = config.learning.trial
        self._store = store
        self._pipeline = pipeline
        self._rollout = rollout
        self._gate = Gate(config, store, rollout)
        self._swap = swap
        self._recent: dict[str, deque[Seen]] = {
            name: deque(maxlen=RECENT) for name in pipeline.groups
        }
        self._standing: dict[str, Standing] = {}
        self._trials: dict[str, Trial] = {}
        self._counted: dict[str, int] = {}
        self._waiting: dict[str, str] = {}
        """Files that wait until a watch has ended: of which class each is."""
        self._no_room: set[str] = set()
        """Files that the disk had no room for, and it was said."""
        for name, group in pipeline.groups.items():
            self._resume(name, group)
            standing = self._standing.get(name)
            if standing is None or standing.phase != "shadow":
                shadow_path(config.state, name).unlink(missing_ok=True)  # a kill left it
        pipeline.beside = self.see

    # -- what comes by ------------------------------------------------------------------------

    def see(self, asset: Asset, judged: Judged, t_ns: int, x: Floats, rul_h: float | None) -> None:
        """Take note of a vector that was judged; it is looked at in the next pause."""
        if judged.z is None or judged.score is None:
            return
        alarm = judged.score >= 1.0 or asset.alert.active
        # Copies: a row would keep all the rows that came with it in memory.
        z, x = judged.z.copy(), x.copy()
        seen = Seen(asset.name, asset.life, t_ns, z, x, judged.score, rul_h, alarm)
        name = asset.group.spec.name
        self._recent[name].append(seen)
        trial = self._trials.get(name)
        if trial is not None:
            trial.put(seen)

    def consider(self, at_ns: int) -> list[Verdict]:
        """Go on with trials, and look at what lies in the inbox; return what became of releases."""
        verdicts = [self._tend(name, at_ns) for name in list(self._trials)]
        verdicts += [self._consider(path, at_ns) for path in self._rollout.waiting()]
        return [verdict for verdict in verdicts if verdict is not None]

    # -- the gate -----------------------------------------------------------------------------

    def _consider(self, path: Path, at_ns: int) -> Verdict | None:
        standing = self._standing.get(self._waiting.get(path.name, ""))
        if standing is not None and standing.phase == "watch":
            return None  # as when it was first looked at
        if path.name in self._no_room and not _room_for(path):
            return None
        self._waiting.pop(path.name, None)
        try:
            verdict = self._judge(path, at_ns)
            if verdict is None:
                return None
            # Only now: a kill before this finds the release in the inbox once more.
            path.unlink()
        except OSError as error:
            # What judges goes on; the release waits where it is.
            if path.name not in self._no_room:
                self._no_room.add(path.name)
                log.error(  # noqa: TRY400  # the disk's fault: no traceback
                    "a release waits: it cannot be laid down",
                    extra={"file": path.name, "error": str(error)},
                )
            return None
        self._no_room.discard(path.name)
        return verdict

    def _judge(self, path: Path, at_ns: int) -> Verdict | None:
        found = self._rollout.examine(path)
        release = found.release
        group = None if release is None else self._pipeline.groups.get(found.asset_class)
        if release is None or group is None:
            return self._reject(path, found, at_ns)
        live = group.release
        if live is not None and live.digest == release.digest:
            return found._replace(promoted=True, reason="it judges already")
        standing = self._standing.get(found.asset_class)
        if standing is not None and standing.digest == release.digest:
            return found._replace(reason="it is on trial already")
        refused = refused_before(self._store.database.db, release.digest)
        if refused and release.manifest.restores is None:
            return self._reject(path, found._replace(reason=refused), at_ns)
        again = release.manifest.restores is not None
        beside = self._trial_config.shadow > 0 and not again and group.judge() is not None
        if beside and standing is not None and standing.phase == "watch":
            # One after the other: a shadow beside what is watched would leave nobody to watch.
            self._waiting[path.name] = found.asset_class
            return None
        reason, errors, problem = self._gate.check(release, group, self._recent[found.asset_class])
        if problem:
            return self._reject(path, found._replace(reason=problem), at_ns, errors)
        if beside:
            return self._begin_shadow(release, group, errors, reason, at_ns)
        return self._promote(release, group, errors, reason, at_ns)

    def _reject(
        self, path: Path, found: Verdict, at_ns: int, errors: Errors | None = None
    ) -> Verdict:
        self._rollout.set_aside(path)
        metas = {}
        if found.asset_class in self._pipeline.groups:
            metas = offered(found, "rejected", settled=True, errors=errors)
        self._record(at_ns, found, "rejected", metas)
        return found

    # -- the shadow, and the watch --------------------------------------------------------------

    def _begin_shadow(
        self, release: Release, group: Group, errors: Errors | None, reason: str, at_ns: int
    ) -> Verdict:
        name, live = group.spec.name, group.release
        release.save(shadow_path(self._config.state, name))
        self._supersede(group, release, at_ns)
        before = Swap(name, group.version, live.digest if live else "")
        standing = standing_of("shadow", release, before, errors, reason)
        verdict = Verdict(name, release.version, release.digest, promoted=False, reason=reason)
        told = offered(verdict, "shadow", settled=False, errors=errors)
        self._record(at_ns, verdict, "shadow", {**dict([standing.meta]), **told})
        self._try(name, group, standing, release)
        return verdict

    def _try(self, name: str, group: Group, standing: Standing, other: Release | None) -> None:
        """Begin, or go on, with what does not judge on the bench."""
        own = None
        if other is not None:
            own = personal(other, self._config.name, self._store.training(group.spec))
        watch = standing.phase == "watch"
        self._standing[name] = standing
        bench = bench_of(group, other, own)
        self._trials[name] = Trial(bench, standing.count, judges=watch)
        self._counted[name] = standing.count.vectors

    def _tend(self, name: str, at_ns: int) -> Verdict | None:
        trial, standing = self._trials[name], self._standing[name]
        group, config = self._pipeline.groups[name], self._trial_config
        trial.work()
        count = standing.count
        problem = count.problem(config)
        shadow = standing.phase == "shadow"
        verdict = Verdict(name, standing.version, standing.digest, promoted=False, reason=problem)
        vectors, hours = (
            (config.shadow, config.shadow_h) if shadow else (config.watch, config.watch_h)
        )
        if problem:
            return self._refuse(group, verdict, at_ns) if shadow else self._back(verdict, at_ns)
        if count.vectors < vectors or count.hours < hours:
            if count.vectors != self._counted[name]:
                self._counted[name] = count.vectors
                word: Word = "shadow" if shadow else "promoted"
                now = verdict._replace(reason=standing.reason)
                for key, value in {
                    **dict([standing.meta]),
                    **offered(now, word, settled=False, standing=standing),
                }.items():
                    self._store.note(key, value)
            return None
        problem = self._gate.by_lives(group, trial.bench, standing)
        if problem:
            verdict = verdict._replace(reason=problem)
            return self._refuse(group, verdict, at_ns) if shadow else self._back(verdict, at_ns)
        reason = f"{standing.reason}; beside it: {count.in_words()}"
        if not shadow:
            kept = verdict._replace(promoted=True, reason=count.in_words())
            told = offered(kept, "promoted", settled=True, standing=standing)
            self._drop(name)
            self._record(at_ns, kept, "kept", {f"trial/{name}": "", **told})
            return None
        try:
            release = load_model(shadow_path(self._config.state, name))
        except ContractError as error:
            return self._refuse(group, verdict._replace(reason=str(error)), at_ns)
        if release.digest != standing.digest:
            lost = verdict._replace(reason="another release lies where it lay")
            return self._refuse(group, lost, at_ns)
        try:
            return self._promote(release, group, standing.errors, reason, at_ns)
        except OSError as error:
            log.error("a release waits: it cannot be laid down", extra={"error": str(error)})  # noqa: TRY400
            return None

    def _refuse(self, group: Group, verdict: Verdict, at_ns: int) -> Verdict:
        """End a shadow with a release that must not judge."""
        name = group.spec.name
        standing = self._standing[name]
        self._drop(name)
        path = shadow_path(self._config.state, name)
        if path.exists():
            self._rollout.set_aside(path, verdict.version)
        told = offered(verdict, "rejected", settled=True, standing=standing)
        self._record(at_ns, verdict, "rejected", {f"trial/{name}": "", **told})
        path.unlink(missing_ok=True)
        return verdict

    def _promote(
        self, release: Release, group: Group, errors: Errors | None, reason: str, at_ns: int
    ) -> Verdict:
        name, live = group.spec.name, group.release
        before = Swap(name, group.version, live.digest if live else "")
        standing = self._standing.get(name)
        if standing is not None and standing.phase == "watch":
            # What judges has not come through its watch: back to what had.
            before = Swap(name, standing.before_version, standing.before_digest)
        self._rollout.lay(release)
        self._supersede(group, release, at_ns)
        # What judged before, while that is known: after a kill it can come back all the same.
        standing = standing_of("swap", release, before, errors, reason)
        self._store.set_meta(*standing.meta)
        self._swap(Swap(name, release.version, release.digest))
        return self._promoted(release, before, errors, reason, at_ns)

    def _promoted(
        self, release: Release, before: Swap, errors: Errors | None, reason: str, at_ns: int
    ) -> Verdict:
        """Put into the store that a release judges now, and begin to watch it."""
        name = before.asset_class
        verdict = Verdict(name, release.version, release.digest, promoted=True, reason=reason)
        self._drop(name)
        watched = self._trial_config.watch > 0 and release.manifest.restores is None
        standing = standing_of("watch", release, before, errors, reason)
        metas = dict([standing.meta]) if watched else {f"trial/{name}": ""}
        told = offered(verdict, "promoted", settled=not watched, errors=errors)
        self._record(at_ns, verdict, "promoted", {**metas, **told})
        shadow_path(self._config.state, name).unlink(missing_ok=True)
        if watched:
            group = self._pipeline.groups[name]
            self._try(name, group, standing, self._before(standing, name))
        return verdict

    def _before(self, standing: Standing, name: str) -> Release | None:
        """Return what judged before; None: the device's own models, or its file is lost."""
        if not standing.before_version:
            return None
        swap = Swap(name, standing.before_version, standing.before_digest)
        try:
            return self._rollout.find(swap)
        except ContractError as error:
            log.warning("what judged before is lost", extra={"error": str(error)})
            standing.before_version, standing.before_digest = 0, ""
            return None

    def _back(self, verdict: Verdict, at_ns: int) -> Verdict:
        """Let what judged before judge again."""
        name = verdict.asset_class
        standing = self._standing[name]
        self._before(standing, name)
        # Why, before it happens: after a kill between the two it is known.
        standing.problem = verdict.reason
        self._store.set_meta(*standing.meta)
        self._swap(Swap(name, standing.before_version, standing.before_digest))
        self._rolled_back(verdict, standing, at_ns)
        return verdict

    def _rolled_back(self, verdict: Verdict, standing: Standing, at_ns: int) -> None:
        name = verdict.asset_class
        again = standing.before_version
        judges = f"version {again} judges again" if again else "this device's own models judge"
        self._drop(name)
        said = verdict._replace(reason=f"{verdict.reason}; {judges}")
        told = offered(said, "rolled back", settled=True, standing=standing)
        self._record(at_ns, said, "rolled back", {f"trial/{name}": "", **told})

    def _supersede(self, group: Group, release: Release, at_ns: int) -> None:
        """End what is under way with another release than this."""
        name = group.spec.name
        standing = self._standing.get(name)
        self._drop(name)
        if standing is None or standing.digest == release.digest or standing.phase != "shadow":
            return
        why = f"version {release.version} came"
        verdict = Verdict(name, standing.version, standing.digest, promoted=False, reason=why)
        self._record(at_ns, verdict, "superseded", {f"trial/{name}": ""})

    def _drop(self, name: str) -> None:
        self._trials.pop(name, None)
        self._standing.pop(name, None)

    # -- the store ----------------------------------------------------------------------------

    def _resume(self, name: str, group: Group) -> None:
        """Go on with a trial after a restart, from what the journal says judges now."""
        words = self._store.meta(f"trial/{name}", "")
        if not words:
            return
        try:
            standing = msgspec.json.decode(words, type=Standing)
        except msgspec.MsgspecError:
            return  # of an earlier version of this program
        live = group.release.digest if group.release else ""
        at_ns = self._store.clock()
        if standing.phase == "watch":
            if live == standing.digest:
                self._watch_on(name, group, standing, at_ns)
                return
            problem = standing.problem
            found = Verdict(name, standing.version, standing.digest, promoted=False, reason=problem)
            if problem and live == standing.before_digest:
                # Rolled back, and killed before that was in the store.
                self._rolled_back(found, standing, at_ns)
            elif not live:
                found = found._replace(reason="its file is lost: this device's own models judge")
                self._record(at_ns, found, "lost", {f"trial/{name}": ""})
            else:
                self._store.set_meta(f"trial/{name}", "")
            return
        if standing.phase == "swap" and group.release is not None and live == standing.digest:
            # Promoted, and killed before that was in the store.
            before = Swap(name, standing.before_version, standing.before_digest)
            self._promoted(group.release, before, standing.errors, standing.reason, at_ns)
            return
        try:
            release = load_model(shadow_path(self._config.state, name))
        except ContractError:
            release = None  # it is in the inbox still, or lost
        if release is None or release.digest != standing.digest:
            self._store.set_meta(f"trial/{name}", "")
            return
        standing.phase = "shadow"
        self._try(name, group, standing, release)

    def _watch_on(self, name: str, group: Group, standing: Standing, at_ns: int) -> None:
        """Go on watching; an agent that ends again and again may end of what judges."""
        standing.starts += 1
        self._store.set_meta(*standing.meta)
        self._try(name, group, standing, self._before(standing, name))
        if standing.starts > MOST_STARTS:
            problem = (
                f"the agent has ended {MOST_STARTS} times since, each time before a checkpoint"
            )
            found = Verdict(name, standing.version, standing.digest, promoted=False, reason=problem)
            self._back(found, at_ns)

    def checkpointed(self) -> None:
        """Take note that the agent has come as far as a checkpoint."""
        for standing in self._standing.values():
            if standing.starts:
                standing.starts = 0
                self._store.note(*standing.meta)

    def _record(self, at_ns: int, verdict: Verdict, word: Word, metas: dict[str, str]) -> None:
        self._store.note_rollout(
            at_ns,
            verdict.asset_class,
            verdict.version,
            verdict.digest,
            word,
            verdict.reason,
            metas=metas,
        )
        log.info("release %s", word, extra={"version": verdict.version, "reason": verdict.reason})


def _room_for(path: Path) -> bool:
    """Return whether there is room for a copy of a file beside it."""
    try:
        return shutil.disk_usage(path.parent).free > path.stat().st_size
    except OSError:
        return False

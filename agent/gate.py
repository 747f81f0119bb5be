"""Whether a release may judge on this device, by what the device has seen itself."""

from collections.abc import Iterable
from typing import NamedTuple

from agent.config import AgentConfig
from agent.group import Group
from agent.personal import personal
from agent.rollout import Errors, Rollout, errors_of
from agent.standing import Standing
from agent.store import Store
from agent.trial import Bench, Seen, bench_of, tried_on
from contract.release import Predictor, Release


class Checked(NamedTuple):
    """What was found of a release.

    Attributes:
        reason: for it, in words.
        errors: on held-out lives, as far as they are known.
        problem: why it must not judge; empty: nothing speaks against it.
    """

    reason: str
    errors: Errors | None
    problem: str


class Gate:
    """Holds a release against the device's newest vectors and its held-out lives.

    Args:
        config: of the agent.
        store: with the lives.
        rollout: knows how much worse is too much.
    """

    def __init__(self, config: AgentConfig, store: Store, rollout: Rollout) -> None:
        self._config = config
        self._store = store
        self._rollout = rollout

    def check(self, release: Release, group: Group, recent: Iterable[Seen]) -> Checked:
        """Judge a release; what a person restores need only make numbers.

        Args:
            release: that fits the class.
            group: which judges now.
            recent: the newest vectors of the class.
        """
        again = release.manifest.restores
        own = personal(release, self._config.name, self._store.training(group.spec))
        bench = bench_of(group, release, own)
        trial = self._config.learning.trial
        count = tried_on(bench, recent, trial)
        problem = count.problem(trial)
        if problem and (count.broken or again is None):
            return Checked("", None, problem)
        heldout = self._store.heldout(group.spec)
        candidate = bench.predictor() if release.rul else None
        errors = errors_of(candidate, _predictor(group), heldout)
        if again is None and (problem := self._rollout.too_wrong(errors)):
            return Checked("", errors, problem)
        reason = self._rollout.evidence(errors, heldout)
        if count.vectors:
            reason += f"; {count.in_words()}"
        if again is not None:
            restored = again or "none: this device's own models judge"
            reason = f"restores version {restored}; {reason}"
        return Checked(reason, errors, "")

    def by_lives(self, group: Group, bench: Bench, standing: Standing) -> str:
        """Return why a trial ends badly by the lives held out by now; empty: it does not.

        Some may have ended while it went on: the errors of the standing are renewed.
        """
        heldout = self._store.heldout(group.spec)
        own, other = _predictor(group), bench.predictor()
        release, before = (other, own) if standing.phase == "shadow" else (own, other)
        standing.errors = errors_of(release, before, heldout) or standing.errors
        return self._rollout.too_wrong(standing.errors)


def _predictor(group: Group) -> Predictor | None:
    """Return the remaining-life model that judges."""
    judging = group.predictor()
    return None if judging is None else judging[1]

"""Recompute an alert: the real pipeline, from the state before it, over the batches since."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from agent import health
from agent.asset import Run
from agent.batch import Batch, Swap
from agent.clean import Reason
from agent.evidence.lives import KnownLives
from agent.evidence.record import Before, Evidence
from agent.pipeline import Outcome, Pipeline
from agent.wording import in_words
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.release import Release
from contract.report import Alert, Health
from contract.spec import AssetClass

TRAIL = 64
"""Scores, and reports with marks, kept from before the alert."""


class Known(NamedTuple):
    """What an asset's class knew of healthy at one place.

    Attributes:
        judge: model and limit that judge, or None.
        healthy: healthy scores that the device counted.
        vectors: healthy vectors that it learnt.
        solved: how many of them are in its model.
    """

    judge: health.Judge | None
    healthy: int
    vectors: int
    solved: int


class Sight(NamedTuple):
    """What was there when the alert was raised.

    Attributes:
        t_ns: of the vector.
        x: the watched features ``(F,)``.
        z: the same in the asset's own deviations ``(F,)``.
        mean: of the asset's own beginning ``(F,)``.
        sd: of it ``(F,)``; infinite: the feature did not vary.
        shares: in the score ``(F,)``.
        score: smoothed, over the limit.
        raw: score of this vector alone, on the model's own scale.
        known: what judged.
        regime: operating regime, and how many there are.
        release: that judged, or None.
        rul_model: name of the model of remaining life; empty: none.
        rul_lives: finished lives in the device's own model.
        rul_h: hours left, unrounded.
    """

    t_ns: int
    x: Floats
    z: Floats
    mean: Floats
    sd: Floats
    shares: Floats
    score: float
    raw: float
    known: Known
    regime: tuple[int, int]
    release: Release | None
    rul_model: str
    rul_lives: int
    rul_h: float | None

    def arrays(self) -> Arrays:
        """Return every number that the alert follows from, unrounded."""
        limit = np.nan if self.known.judge is None else self.known.judge.limit
        left = np.nan if self.rul_h is None else self.rul_h
        return {
            "vector": self.x,
            "sigmas": self.z,
            "shares": self.shares,
            "score": np.array([self.score, self.raw, limit, left]),
        }


class Recomputed(NamedTuple):
    """What the pipeline said this time.

    Attributes:
        alert: it raised, or None.
        sight: what was there then.
        trail: time and score of the vectors before, oldest first, the alert's own last.
        health: reports before, oldest first.
        readings: of the asset up to the alert's vector.
        skipped: batches that the pipeline could not take, as after a change of configuration.
    """

    alert: Alert | None
    sight: Sight | None
    trail: list[tuple[int, float]]
    health: list[Health]
    readings: Before
    skipped: int


class _Witness(Pipeline):
    """The pipeline itself; it remembers what it saw of one asset."""

    def __init__(
        self,
        evidence: Evidence,
        functions: str,
        lives: KnownLives,
        find_release: Callable[[Swap], Release],
    ) -> None:
        setting = evidence.head.setting
        super().__init__(setting.config(functions), lives, find_release)
        self.first_life = setting.first_life
        self._alert = evidence.head.alert
        self._class = setting.asset_class.name
        self._known = Known(None, 0, 0, 0)
        self._life = -1
        self.found: Alert | None = None
        self.sight: Sight | None = None
        self.trail: deque[tuple[int, float]] = deque(maxlen=TRAIL)
        self.reports: deque[Health] = deque(maxlen=TRAIL)

    def process(self, batch: Batch) -> list[Outcome]:
        if batch.swap is not None:
            super().process(Batch([], [], swap=batch.swap))
            batch = batch._replace(swap=None)  # it judges from the first of these rows on
        self._note_known()
        return super().process(batch)

    def _vector(self, run: Run, k: int, judged: health.Judged) -> list[Outcome]:
        outcomes = super()._vector(run, k, judged)
        if run.asset.name == self._alert.asset and self.found is None:
            if run.asset.life != self._life:
                self._life = run.asset.life
                self.trail.clear()
                self.reports.clear()
            if judged.score is not None:
                self.trail.append((run.t_ns[k], judged.score))
            for outcome in outcomes:
                if isinstance(outcome, Health):
                    self.reports.append(outcome)
                elif outcome.id == self._alert.id and outcome.state == "raised":
                    self.found = _with_interval(outcome, self._alert, run.asset.group.spec)
                    self.sight = self._look(run, k, judged, outcome)
        # What judges the next vector: this one may have taught it.
        self._note_known()
        return outcomes

    def _note_known(self) -> None:
        if self.found is not None:
            return
        group = self.groups[self._class]
        cohort = group.cohort
        known = int(cohort.scores.sum()), round(cohort.healthy.n), cohort.solved_at
        self._known = Known(group.judge(), *known)

    def _look(self, run: Run, k: int, judged: health.Judged, alert: Alert) -> Sight:
        group, judge = run.asset.group, self._known.judge
        x = group.watched_of(run.X[k : k + 1])[0]
        nothing = np.full(len(x), np.nan)
        z = nothing if judged.z is None else judged.z
        means, sds = run.asset.health.arrays()["health/own"]
        if judged.own is None:
            regime = _regime(x, z, means, sds)
            mean, sd = means[regime], sds[regime]
        else:
            regime, (mean, sd) = judged.regime, judged.own
        seen = z if judged.seen is None else judged.seen
        raw = np.nan if judge is None else float(judge.model.score_rows(seen[None, :])[0])
        predictor = group.predictor()
        return Sight(
            run.t_ns[k],
            x,
            z,
            mean,
            sd,
            nothing if judged.shares is None else judged.shares,
            np.nan if judged.score is None else judged.score,
            raw,
            self._known,
            (regime, len(means)),
            group.release,
            "" if predictor is None else predictor[0],
            int(group.rul.arrays()["known"][0]),
            alert.rul_h,
        )


def recompute(
    evidence: Evidence,
    functions: str,
    lives: KnownLives,
    find_release: Callable[[Swap], Release],
) -> Recomputed:
    """Run the batches through the pipeline, from the state before the alert.

    Args:
        evidence: of the alert.
        functions: folder of the user's functions, where the class has some.
        lives: that were known then, where they are needed.
        find_release: returns the release of a digest.

    Raises:
        ContractError: the evidence is of another version, or a release is lost.
    """
    head = evidence.head
    witness = _Witness(evidence, functions, lives, find_release)
    if head.state is not None:
        witness.restore(head.state, evidence.state)
    readings = _Readings(evidence)
    skipped = 0
    batches = [Batch.decode(body) for _, body in evidence.batches]
    for batch in batches:
        if batch.swap is not None and batch.swap.version:
            find_release(batch.swap)  # one that is lost is no batch to be passed over
    for batch in batches:
        try:
            witness.process(batch)
        except ContractError:
            # As the agent does when it restores its state under another configuration.
            skipped += 1
            continue
        readings.add(batch)
        if witness.found is not None:
            break
    upto = None if witness.sight is None else witness.sight.t_ns
    return Recomputed(
        witness.found,
        witness.sight,
        list(witness.trail),
        list(witness.reports),
        readings.upto(upto),
        skipped,
    )


class _Readings:
    """The asset's own readings, as they came."""

    def __init__(self, evidence: Evidence) -> None:
        self._asset = evidence.head.alert.asset
        self._t_ns = [evidence.before.t_ns]
        self._values = [evidence.before.values]

    def add(self, batch: Batch) -> None:
        for part in batch.rows:
            if part.asset == self._asset:
                self._t_ns.append(part.t_ns)
                self._values.append(part.values)

    def upto(self, t_ns: int | None) -> Before:
        times, values = np.concatenate(self._t_ns), np.concatenate(self._values)
        if t_ns is None:
            return Before(times, values)
        return Before(times[times <= t_ns], values[times <= t_ns])


def _with_interval(now: Alert, then: Alert, spec: AssetClass) -> Alert:
    """Return an alert with the interval that was told: the lives it rests on are not evidence.

    How good a model of remaining life is changes no alert.
    """
    told = msgspec.structs.replace(now, rul_low_h=then.rul_low_h, rul_high_h=then.rul_high_h)
    return in_words(told, spec)


def _regime(x: Floats, z: Floats, means: Floats, sds: Floats) -> int:
    """Return in which regime's deviations a vector was judged."""
    with np.errstate(invalid="ignore"):
        again = np.clip((x - means) / sds, -1e3, 1e3)
    return int(np.argmax((again == z).sum(axis=1)))


def differences(then: Alert, now: Alert | None) -> list[str]:
    """Return what differs between two alerts, in words; none: they are the same to the last bit."""
    if now is None:
        return ["the recomputation raises no such alert"]
    was, is_now = msgspec.to_builtins(then), msgspec.to_builtins(now)
    return [
        f"{key}: said {was.get(key)!r}, recomputed {is_now.get(key)!r}"
        for key in {**was, **is_now}
        if was.get(key) != is_now.get(key)
    ]


def reason_word(number: int) -> str:
    """Return the word for why a burst is bad; empty: it is not.

    >>> reason_word(7)
    'clipped'
    """
    return Reason(number).name.lower() if number else ""

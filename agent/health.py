"""How far an asset is from its own beginning, judged by moments; what it may learn as healthy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.models import histogram
from contract.models.moments import HealthModel, Moments, spread
from contract.report import Why
from contract.spec import AssetClass

HALF = 3.0
"""The smoothed score at which the health index is one half."""


class Cohort:
    """What all assets of one class on this device learn together about healthy behaviour.

    Attributes:
        moments: of standardised healthy vectors.
        scores: histogram of healthy scores, see ``contract.models.histogram``.
        model: solved from the moments when they have grown by a quarter.
    """

    def __init__(self, spec: AssetClass) -> None:
        self._spec = spec.health
        size = len(spec.channels) * len(spec.health_stats)
        self.moments = Moments.empty(size)
        self.scores: NDArray[np.int64] = np.zeros(histogram.BINS, dtype=np.int64)
        self.model: HealthModel | None = None
        self._solved_at = 0.0

    def learn(self, Z: Floats) -> None:
        """Learn standardised rows ``(n, F)`` as healthy."""
        self.moments = self.moments.merge(Moments.of(Z))
        if self.moments.n >= max(1.25 * self._solved_at, self._solved_at + 16):
            self._solve()

    def _solve(self) -> None:
        spec = self._spec
        self.model = HealthModel.solve(
            self.moments, variance=spec.variance, alarm_rate=spec.alarm_rate
        )
        self._solved_at = self.moments.n

    def limit(self) -> float:
        """Return the score that healthy vectors exceed at the allowed rate; at least 1."""
        return limit_of(self.scores, self._spec.alarm_rate)

    def arrays(self) -> Arrays:
        """Return the state."""
        solved = {} if self.model is None else self.model.arrays("model/")
        return {
            **self.moments.arrays("moments/"),
            **solved,
            "scores": self.scores.copy(),
            "solved_at": np.array(self._solved_at),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self.moments = Moments.from_arrays(arrays, "moments/")
        self.scores = np.array(arrays["scores"], dtype=np.int64)
        self._solved_at = float(arrays["solved_at"])
        self.model = HealthModel.from_arrays(arrays, "model/") if "model/axes" in arrays else None


def limit_of(scores: NDArray[np.int64], alarm_rate: float) -> float:
    """Return the limit by a histogram of healthy scores, once there are enough of them."""
    if scores.sum() < 0.2 / alarm_rate:
        return 1.0
    return max(1.0, histogram.quantile(scores, 1.0 - alarm_rate))


@dataclass(frozen=True, slots=True)
class Judge:
    """The model that judges, and the score that is its limit."""

    model: HealthModel
    limit: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What one feature vector says of an asset's health.

    Attributes:
        score: smoothed, over the limit; None while the asset's beginning is not known.
        shares: of each watched column in the newest score ``(F,)``.
        z: the standardised vector ``(F,)``.
    """

    score: float | None
    shares: Floats | None = None
    z: Floats | None = None


class AssetHealth:
    """One asset's own standardisation and smoothed score, over one life."""

    def __init__(self, spec: AssetClass) -> None:
        self._spec = spec.health
        self._size = len(spec.channels) * len(spec.health_stats)
        self.reset()

    def reset(self) -> None:
        """Begin a new life."""
        self._beginning = np.zeros((self._spec.baseline, self._size))
        self._seen = 0
        self._mean = np.zeros(self._size)
        self._scale = np.ones(self._size)
        self._smooth = np.nan

    @property
    def known(self) -> bool:
        """Return whether the asset's own beginning is known."""
        return self._seen >= self._spec.baseline

    def push(self, x: Floats, cohort: Cohort, judge: Judge | None) -> Judged:
        """Judge one vector of watched features ``(F,)``, and learn from it if it is healthy."""
        whole = bool(np.isfinite(x).all())
        if not self.known:
            if whole:
                self._beginning[self._seen] = x
                self._seen += 1
                if self._seen == self._spec.baseline:
                    self._begin(cohort)
            return Judged(None)
        z = np.clip((x - self._mean) / self._scale, -1e3, 1e3)
        if not whole:
            if np.isfinite(z).sum() * 2 < self._size:
                return Judged(None if np.isnan(self._smooth) else float(self._smooth))
            z = np.nan_to_num(z, nan=0.0)  # says nothing of what was not measured
        if judge is None:
            return Judged(None)
        raw, shares = judge.model.score(z)
        score = raw / judge.limit
        a = self._spec.smoothing
        self._smooth = (
            score if np.isnan(self._smooth) else self._smooth + a * (score - self._smooth)
        )
        if whole and self._seen < self._spec.learn:
            self._seen += 1
            # The scores of all vectors but the clearly sick make the limit; what scores as
            # abnormal is not learnt as healthy.
            if self._smooth < HALF:
                cohort.scores[histogram.bin_of(raw)] += 1
            if score < 1.0:
                cohort.learn(z[None, :])
        return Judged(float(self._smooth), shares, z)

    def _begin(self, cohort: Cohort) -> None:
        own = Moments.of(self._beginning, diagonal=True)
        self._mean = own.mean
        self._scale = spread(own.variance(), own.mean)
        cohort.learn((self._beginning - self._mean) / self._scale)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        return {
            "health/beginning": self._beginning.copy(),
            "health/own": np.stack([self._mean, self._scale]),
            "health/seen": np.array([self._seen, self._smooth]),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        self._beginning = np.array(arrays["health/beginning"])
        self._mean, self._scale = (np.array(row) for row in arrays["health/own"])
        self._seen, self._smooth = int(arrays["health/seen"][0]), float(arrays["health/seen"][1])


def index(score: float, rul_h: float | None, cap_h: float) -> float:
    """Return the health index: 1 healthy, 0 failed; the worse of condition and remaining life.

    >>> index(0.0, None, 125.0), index(3.0, None, 125.0), index(0.0, 12.5, 125.0)
    (1.0, 0.5, 0.1)
    """
    condition = 1.0 / (1.0 + (score / HALF) ** 2)
    return condition if rul_h is None else min(condition, rul_h / cap_h)


def why(judged: Judged, spec: AssetClass, most: int = 3) -> tuple[Why, ...]:
    """Return the channels behind a score, the largest share first."""
    if judged.shares is None or judged.z is None:
        return ()
    shares = judged.shares.reshape(len(spec.health_stats), -1)
    z = judged.z.reshape(shares.shape)
    by_channel = shares.sum(axis=0)
    found = []
    for c in np.argsort(-by_channel, kind="stable")[:most]:
        if by_channel[c] < 0.05:
            break
        s = int(shares[:, c].argmax())
        found.append(
            Why(
                channel=spec.channels[c].name,
                share=round(float(by_channel[c]), 3),
                feature=spec.health_stats[s],
                sigmas=round(float(z[s, c]), 2),
            )
        )
    return tuple(found)

"""An asset class on this device: what its assets share."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent import health
from agent.features.burst import BurstFeatures
from agent.features.functions import load
from agent.features.levels import Levels
from agent.models.kinds import KindsLearner
from agent.personal import Personal
from agent.prognosis import Interval, LocalRul
from agent.record import Tally
from contract.arrays import Arrays, Floats
from contract.features import FeatureSpec
from contract.model_spec import Lagged
from contract.models.histogram import BINS, bin_of
from contract.release import Predictor, Release
from contract.spec import AssetClass


class Group:
    """An asset class on this device: its models, learnt here or released to it.

    Args:
        spec: of the class.
        functions: folder of the user's functions.
        sklearn: whether scikit-learn's models are learnt on the device, too.

    Attributes:
        spec: of the class.
        parts: channel and statistic of each column that health watches.
        measured: channel or function of each column of a feature vector.
        sensors: that each column of a row comes from.
        functions: the user's, ready to be called.
        bursts: features of each waveform.
        levels: what channels are in each operating regime, where the class asks for it.
        cohort: healthy behaviour, as learnt here.
        rul: remaining life, as learnt here.
        release: what judges in their place, or None.
        kinds: tells kinds of faults, or None.
        personal: the release's remaining-life model made this device's own, or None.
        error_h: of remaining life on held-out lives; None: not known.
        interval: of the model that judges remaining life; None: not known.

    Raises:
        ConfigError: a function or a waveform's feature that cannot be.
    """

    def __init__(self, spec: AssetClass, functions: Path, *, sklearn: bool) -> None:
        self.spec = spec
        features = FeatureSpec.of(spec)
        watched = features.columns(spec.health_stats)
        self._watched = None if watched == list(range(len(features))) else np.array(watched)
        self.parts = tuple(features.parts[i] for i in watched)
        self.measured = tuple(channel for channel, _ in features.parts)
        self.sensors = {channel.name: channel.name for channel in spec.channels} | {
            f"{wave.name}.{feature}": wave.name
            for wave in spec.waveforms
            for feature in wave.features
        }
        self.functions = load(spec.functions, functions, spec.channel_names)
        self.bursts = [BurstFeatures(wave) for wave in spec.waveforms]
        self.levels = Levels(spec)
        self.cohort = health.Cohort(spec)
        self.rul = LocalRul(spec, sklearn=sklearn)
        self.kinds = None if spec.faults is None else KindsLearner(spec.faults, len(watched))
        self.release: Release | None = None
        self.personal: Personal | None = None
        self.error_h: float | None = None
        self.interval: Interval | None = None
        self._released_judge: health.Judge | None = None
        self.tally = Tally()
        self.acquitted: NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)
        """Scores by the release that people found healthy: they are in its limit from then on."""

    @property
    def version(self) -> int:
        """Return the release that judges; 0: the device's own models."""
        return self.release.version if self.release else 0

    def swap(self, release: Release | None) -> None:
        """Let a release judge from here on; None: the device's own models."""
        self.release = release
        self.personal = None
        self.tally.reset()
        self.acquitted = np.zeros(BINS, dtype=np.int64)
        if self.kinds is not None:
            self.kinds.adopt(None if release is None else release.kinds)
        self._judge_by_release()

    def _judge_by_release(self) -> None:
        release = self.release
        self._released_judge = None
        if release is not None and release.health is not None:
            scores = release.arrays.get("health/histogram", np.zeros(BINS, dtype=np.int64))
            own = scores.astype(np.int64) + self.acquitted
            limit = health.limit_of(own, self.spec.health.alarm_rate)
            self._released_judge = health.Judge(release.health, limit)

    def acquit(self, Z: Floats, raws: Floats, each: int) -> None:
        """Count the vectors ``(n, F)`` of a false alarm as healthy, and their scores.

        ``each``: how many vectors each of them stands for.
        """
        if not len(Z):
            return
        if self._released_judge is None:
            for raw in raws.tolist():
                self.cohort.count(raw, each)
        else:
            for raw in raws.tolist():
                self.acquitted[bin_of(raw)] += each
            self._judge_by_release()
        # What follows from its past is learnt with that, which is not kept of an alert.
        if not isinstance(self.spec.health, Lagged):
            self.cohort.acquit(Z)

    def restore_record(self, arrays: Arrays) -> None:
        """Take back what ``record`` returned."""
        self.tally.restore(arrays["tally"])
        self.acquitted = np.array(arrays["acquitted"], dtype=np.int64)
        self._judge_by_release()

    def record(self) -> Arrays:
        """Return what the present judge has to answer for."""
        return {"tally": self.tally.array(), "acquitted": self.acquitted.copy()}

    def watched_of(self, X: Floats) -> Floats:
        """Return the columns ``(n, F)`` of vectors that the health model watches."""
        return X if self._watched is None else X[:, self._watched]

    def lacking(self, x: Floats, absent: NDArray[np.bool_] | None) -> tuple[str, ...]:
        """Return the channels and functions that say nothing in a vector ``(F,)``.

        ``absent``: which watched columns health does without, or None.
        """
        found = ~np.isfinite(x)
        if absent is not None:
            found[slice(None) if self._watched is None else self._watched] |= absent
        if not found.any():
            return ()
        return tuple(dict.fromkeys(self.measured[i] for i in np.flatnonzero(found).tolist()))

    def judge(self) -> health.Judge | None:
        """Return what judges health."""
        if self._released_judge is not None:
            return self._released_judge
        return self.cohort.judge()

    def local_predictor(self) -> tuple[str, Predictor] | None:
        """Return the first remaining-life model learnt here."""
        return next(iter(self.rul.models.items()), None)

    def predictor(self) -> tuple[str, Predictor, float | None] | None:
        """Return the remaining-life model that judges: name, model, error on held-out lives."""
        if self.release is not None and self.release.rul:
            name = self.release.manifest.rul_model
            if self.personal is not None:
                return name, self.personal.model, self.error_h
            if self.spec.privacy is not None:
                # The fleet's own standardisation says nothing: until a life has ended here, none.
                return None
            if name in self.release.rul:
                error = self.release.manifest.metrics.get(f"rmse/{name}")
                return name, self.release.rul[name], error
        local = self.local_predictor()
        return None if local is None else (*local, self.error_h)

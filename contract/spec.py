"""What the devices of a cohort must agree on before their models can be merged.

An asset class (pump, fan, turbofan) is the cohort that shares a model. Its spec stands in each
agent's configuration; the digest of it travels with every update and release.
"""

import hashlib
import re
from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One measured quantity of an asset; outside ``low`` .. ``high`` a reading is bad."""

    name: str
    unit: str
    low: float | None = None
    high: float | None = None


class Moments(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="moments"
):
    """Health by moments: Hotelling's T² and SPE of features in the asset's own standardisation.

    Attributes:
        stats: which of the class's statistics are watched; empty: all.
        baseline: feature vectors at the start of a life that are taken as healthy.
        learn: feature vectors of a life, baseline included, that may be learnt as healthy.
        variance: share of the variance that the principal subspace explains.
        smoothing: EWMA weight of the newest score, 0 to 1.
        on_delay: feature vectors in a row above the limit that raise an alert.
        off_delay: feature vectors in a row below 0.8 of the limit that end it.
        alarm_rate: share of healthy feature vectors that may lie above the limit.
    """

    stats: tuple[str, ...] = ()
    baseline: Annotated[int, msgspec.Meta(ge=4)] = 30
    learn: Positive = 60
    variance: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    smoothing: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    on_delay: Positive = 5
    off_delay: Positive = 5
    alarm_rate: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.001


class Ridge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="ridge"):
    """RUL by ridge regression over features and seeded random features (sums family).

    Attributes:
        random: how many random features stand beside the linear ones.
        activation: ``fourier`` (Rahimi and Recht 2007) or ``relu``.
        width: standard deviation of a random projection of a standardised vector.
        penalty: ridge penalty per observation, of a fleet's sums.
        penalty_alone: the same of one device's own: few lives want a stiffer model.
        seed: of the random projection; part of the contract, so that nothing of it is sent.
    """

    random: Annotated[int, msgspec.Meta(ge=0)] = 600
    activation: Literal["fourier", "relu"] = "relu"
    width: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    penalty: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    penalty_alone: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    seed: int = 1


class Sklearn(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sklearn"
):
    """RUL by a scikit-learn ``partial_fit`` estimator that is a set of arrays (means family).

    Attributes:
        estimator: which one.
        hidden: sizes of hidden layers (MLPRegressor only).
        rate: initial learning rate.
        alpha: L2 penalty.
        epochs: passes over the stored lives in one local round.
        batch: rows of one ``partial_fit`` call.
        seed: of the first weights and of the order of rows.
    """

    estimator: Literal["MLPRegressor", "SGDRegressor"] = "MLPRegressor"
    hidden: tuple[Positive, ...] = (64, 32)
    rate: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    alpha: Annotated[float, msgspec.Meta(ge=0)] = 1e-4
    epochs: Positive = 5
    batch: Positive = 64
    seed: int = 1


RulModel = Ridge | Sklearn

STAT = re.compile(r"(mean|std|min|max|slope|ewma|dev)_([1-9][0-9]{0,4})|last|mean_all")


class AssetClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cohort: the channels of its assets, their features and their models.

    Attributes:
        name: of the cohort.
        channels: what is measured, in column order.
        stats: statistics per channel: ``last``, ``mean_N`` ``std_N`` ``min_N`` ``max_N``
            ``slope_N`` over the last N rows, ``ewma_N`` with a span of N rows, ``mean_all`` since
            the life began, ``dev_N``: the shortest mean less the mean of the life's first N rows.
        hop: rows from one feature vector to the next.
        warmup: rows before the first feature vector of a life.
        cap_h: remaining life is learnt and told up to here, in hours.
        health: the model that says how far an asset is from healthy.
        rul: the models that say how long is left; the first judges until a release says otherwise.
        alert_rul_h: an alert is also raised when less than this is left, in hours; 0: never.
        holdout: every n-th finished life is kept from training and used to judge; 0: none.
        max_life_rows: feature vectors kept of one life; a longer life keeps its last ones.
    """

    name: str
    channels: tuple[Channel, ...]
    stats: tuple[str, ...] = ("mean_16", "std_16", "min_16", "max_16", "slope_16", "ewma_16")
    hop: Positive = 1
    warmup: Positive = 1
    cap_h: Annotated[float, msgspec.Meta(gt=0)] = 125.0
    health: Moments = Moments()
    rul: tuple[RulModel, ...] = ()
    alert_rul_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    holdout: Annotated[int, msgspec.Meta(ge=0)] = 5
    max_life_rows: Positive = 20_000

    def __post_init__(self) -> None:
        """Refuse what no pipeline could run; msgspec turns this into an error with the path."""
        names = [channel.name for channel in self.channels]
        if not names:
            raise ValueError("an asset class needs at least one channel")
        if len(set(names)) != len(names):
            raise ValueError(f"channel names repeat in asset class {self.name!r}")
        for stat in self.stats:
            if not STAT.fullmatch(stat):
                raise ValueError(
                    f"statistic {stat!r} is none of last, mean_all, mean_N, std_N, min_N, max_N, "
                    "slope_N, ewma_N, dev_N (N rows)"
                )
        if not self.stats or len(set(self.stats)) != len(self.stats):
            raise ValueError("stats must be named once each, and at least one")
        for stat in self.health.stats:
            if stat not in self.stats:
                raise ValueError(f"health watches {stat!r}, which is not among the class's stats")
        kinds = [type(model) for model in self.rul]
        if len(set(kinds)) != len(kinds):
            raise ValueError("at most one RUL model of each kind")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Return the channels' names in column order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def health_stats(self) -> tuple[str, ...]:
        """Return the statistics that the health model watches."""
        return self.health.stats or self.stats

    def features_digest(self) -> str:
        """Return the digest of what the columns of a feature vector mean."""
        return _digest([[(c.name, c.unit) for c in self.channels], self.stats, self.hop])

    def digest(self) -> str:
        """Return the digest of all that must agree for two devices' models to be merged.

        How soon a device warns, and what it keeps to judge by, is its own affair.
        """
        health = [self.health_stats, self.health.baseline, self.health.variance]
        return _digest([self.name, self.features_digest(), self.cap_h, health, self.rul])


def _digest(what: list[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:16]


def rul_name(model: RulModel) -> str:
    """Return the name of a RUL model in updates and releases.

    >>> rul_name(Ridge())
    'ridge'
    """
    return str(model.__struct_config__.tag)

"""What a class's models are: settings that stand in its spec, and travel with what is learnt.

Each is a part of a tagged union; ``contract.models`` has what belongs to it.
"""

from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """How health is judged, whatever the model.

    Attributes:
        stats: which of the class's statistics are watched; empty: all.
        baseline: feature vectors at the start of a life that are taken as healthy.
        learn: feature vectors of a life, baseline included, that may be learnt as healthy.
        smoothing: EWMA weight of the newest score, 0 to 1.
        on_delay: feature vectors in a row above the limit that raise an alert.
        off_delay: feature vectors in a row below 0.8 of the limit that end it.
        alarm_rate: share of healthy feature vectors that may lie above the limit.
        memory: healthy feature vectors after which what was learnt counts half; 0: nothing is
            forgotten.
        recent: the own mean is that of so many of the baseline's last vectors: of a machine that
            drifts where it was last, and not where it was on the whole; 0: of all.
        floor: how many times the variance that the mean of N independent readings would have is
            added to that of an own ``mean_N`` or ``ewma_N``: few windows that overlap, and
            readings in steps, look steadier than they are.
        follow: the own mean follows the machine, over so many vectors; 0: it stays. What wears
            more slowly than that is then never seen: for quantities that wander in health.
        follow_within: only columns that are nearer than so many deviations are followed.
        guarded: what scores as abnormal is not learnt as healthy. False is for a model of what is
            rare, which must know all that comes: any other would learn the fault.
    """

    stats: tuple[str, ...] = ()
    baseline: Annotated[int, msgspec.Meta(ge=4)] = 30
    learn: Positive = 60
    smoothing: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    on_delay: Positive = 5
    off_delay: Positive = 5
    alarm_rate: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.001
    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    recent: Annotated[int, msgspec.Meta(ge=0)] = 0
    floor: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    follow: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    follow_within: Rate = 2.5
    guarded: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be; msgspec turns this into an error with the path."""
        if self.recent > self.baseline:
            raise ValueError(f"recent: of {self.baseline} baseline vectors, not {self.recent}")
        if 0 < self.follow < 1:
            raise ValueError("follow: 0, or one vector at least")

    def shared(self) -> list[object]:
        """Return what devices must agree on for what they learnt to be merged.

        A setting that came later is told only where it is not at its default, so that what was
        learnt before can still be merged.
        """
        mine = msgspec.to_builtins(self)
        usual = {field.name: field.default for field in msgspec.structs.fields(self)}
        told = {
            k: v
            for k, v in mine.items()
            if k not in _OWN and not (k in _LATER and v == usual.get(k))
        }
        return [told.pop("kind"), told]


_MEANING = {"baseline", "recent", "floor", "follow", "follow_within"}
_OWN = {field for field in Watch.__struct_fields__ if field not in _MEANING}
"""How soon a device warns is its own affair; what is watched is told beside."""
_LATER = {"recent", "floor", "follow", "follow_within", "power", "limit"}


class Moments(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="moments"):
    """Health by moments: Hotelling's T² and SPE of features in the asset's own standardisation.

    Attributes:
        variance: share of the variance that the principal subspace explains.
    """

    variance: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9


class Chart(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="chart"):
    """Health by a control chart for each feature; on ``ewma_N`` the EWMA chart.

    Attributes:
        power: how deviations of several columns come together: 0: the largest alone counts; 2: as
            the root of their squares' sum, the Euclidean distance; 4: between both.
        limit: the limit, in deviations of the asset's own beginning, which is then judged by as
            it is; 0: it follows from what the cohort has learnt and from ``alarm_rate``.
    """

    power: Literal[0, 2, 4] = 0
    limit: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class HalfSpace(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="half_space"):
    """Health by half-space trees, whose boxes follow from the seed (sums family).

    Attributes:
        trees: how many.
        depth: levels of cuts in each.
        seed: of the cuts; part of the contract, so that nothing of them is sent.
    """

    trees: Annotated[int, msgspec.Meta(ge=1, le=200)] = 25
    depth: Annotated[int, msgspec.Meta(ge=1, le=12)] = 8
    seed: int = 1


class Clusters(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="clusters"):
    """Health by the distance to the nearest of some centres (mini-batch k-means).

    Attributes:
        clusters: centres, at most.
        seed: of where they start.
    """

    clusters: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    seed: int = 1


class Network(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="network"):
    """Health by what scikit-learn's ``partial_fit`` learns to expect (means family).

    Attributes:
        estimator: ``MLPRegressor``: an autoencoder; ``SGDOneClassSVM``: a border around what is
            healthy, over random Fourier features.
        hidden: sizes of hidden layers (MLPRegressor only).
        random: random features (SGDOneClassSVM only).
        rate: learning rate.
        alpha: L2 penalty (MLPRegressor); the share of healthy rows outside (SGDOneClassSVM).
        block: rows that are gathered for one ``partial_fit``: one by one is 50 times dearer.
        epochs: passes over each block.
        seed: of the first weights.
    """

    estimator: Literal["MLPRegressor", "SGDOneClassSVM"] = "MLPRegressor"
    hidden: tuple[Positive, ...] = (8,)
    random: Positive = 64
    rate: Rate = 1e-2
    alpha: Rate = 1e-2
    block: Annotated[int, msgspec.Meta(ge=4, le=4096)] = 16
    epochs: Positive = 20
    seed: int = 1


class Lagged(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lagged"):
    """Health by what comes unannounced: residuals of a vector autoregression (sums family).

    Attributes:
        lags: vectors before the newest from which it is told.
        weights: of the EWMAs of the residual and of its size, beside the residual itself.
        penalty: ridge penalty per observation.
        shrink: share of the residual's covariance that is taken from its diagonal alone.
    """

    lags: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
    weights: tuple[Annotated[float, msgspec.Meta(gt=0, lt=1)], ...] = (0.2, 0.1)
    penalty: Rate = 0.1
    shrink: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.005

    def __post_init__(self) -> None:
        """Refuse what cannot be; msgspec turns this into an error with the path."""
        super().__post_init__()
        if self.baseline < 2 * (self.lags + 1):
            raise ValueError(
                f"baseline: at least {2 * (self.lags + 1)} vectors for {self.lags} lags"
            )


class Extremes(Watch, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="extremes"):
    """Health by the rarest that there was of each feature by itself (sums family).

    Attributes:
        tail: share of the vectors so far that lay farther out than the scale of a column.
        margin: how many times farther than that is the limit.
    """

    tail: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.001
    margin: Rate = 1.0


Health = Moments | Chart | HalfSpace | Clusters | Network | Lagged | Extremes


class Ridge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="ridge"):
    """RUL by ridge regression over features and seeded random features (sums family).

    Attributes:
        random: how many random features stand beside the linear ones.
        activation: ``fourier`` (Rahimi and Recht 2007) or ``relu``.
        width: standard deviation of a random projection of a standardised vector.
        shaping: random features of a first, smaller model; along the directions in which its
            predictions change the final ones are drawn. 0: alike in all directions.
        penalty: ridge penalty per observation, of a fleet's sums.
        penalty_alone: the same of one device's own: few lives want a stiffer model.
        personal: releases bear the fleet's sums, so that a device can weigh its own lives against
            those of others; as large as an update.
        basis: whose standardisation: the ``fleet``'s, or each device's ``own``, where devices
            differ in gain, unit of wear or way of running; known from its first finished life on.
        seed: of the random projection; part of the contract, so that nothing of it is sent.
    """

    random: Annotated[int, msgspec.Meta(ge=0)] = 600
    activation: Literal["fourier", "relu"] = "relu"
    width: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    shaping: Annotated[int, msgspec.Meta(ge=0)] = 0
    penalty: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    penalty_alone: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    personal: bool = False
    basis: Literal["fleet", "own"] = "fleet"
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
        proximal: how strongly a round's weights are held to those it starts from (FedProx), for
            devices that are unlike each other; 0: not at all.
        basis: whose standardisation, as of ``Ridge``.
        seed: of the first weights and of the order of rows.
    """

    estimator: Literal["MLPRegressor", "SGDRegressor"] = "MLPRegressor"
    hidden: tuple[Positive, ...] = (64, 32)
    rate: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    alpha: Annotated[float, msgspec.Meta(ge=0)] = 1e-4
    epochs: Positive = 5
    batch: Positive = 64
    proximal: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    basis: Literal["fleet", "own"] = "fleet"
    seed: int = 1


RulModel = Ridge | Sklearn


class Kinds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all families of models have that tell kinds of faults apart.

    Attributes:
        kinds: the words that people say in verdicts, in an order that all devices share.
    """

    kinds: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be; msgspec turns this into an error with the path."""
        if len(set(self.kinds)) != len(self.kinds) or len(self.kinds) < 2:
            raise ValueError("kinds: two at least, each once")


class NaiveBayes(Kinds, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bayes"):
    """Kinds of faults by the moments of each one's vectors (sums family)."""


class Linear(Kinds, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="linear"):
    """Kinds of faults by ridge regression on one of K, over random Fourier features (sums family).

    Attributes:
        random: features beside the linear ones; 0: a linear classifier.
        width: standard deviation of a random projection.
        penalty: ridge penalty per observation.
        seed: of the random projection.
    """

    random: Annotated[int, msgspec.Meta(ge=0, le=5000)] = 0
    width: Rate = 0.3
    penalty: Rate = 1e-2
    seed: int = 1


class Classifier(
    Kinds, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="classifier"
):
    """Kinds of faults by scikit-learn's ``partial_fit`` (means family).

    Attributes:
        estimator: which one.
        hidden: sizes of hidden layers (MLPClassifier only).
        rate: learning rate.
        alpha: L2 penalty.
        epochs: passes over the vectors of an alert when its verdict comes.
        seed: of the first weights.
    """

    estimator: Literal["SGDClassifier", "MLPClassifier"] = "SGDClassifier"
    hidden: tuple[Positive, ...] = (16,)
    rate: Rate = 1e-2
    alpha: Rate = 1e-4
    epochs: Positive = 20
    seed: int = 1


Faults = NaiveBayes | Linear | Classifier


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether channels and scores drift from each asset's own beginning: see ``agent.drift``.

    A signal is a channel's newest value at each feature vector, or the score. Nothing is merged:
    how soon a device says so is its own affair.

    Attributes:
        warm: feature vectors that make a signal's reference.
        order: of the autoregressive model that whitens it.
        level: log-likelihood at which a level has drifted; higher: later, and fewer false alarms.
        variance: the same of its variance.
        memory: feature vectors that the reference's level goes back.
    """

    warm: Annotated[int, msgspec.Meta(ge=300, le=10_000)] = 1000
    order: Annotated[int, msgspec.Meta(ge=1, le=16)] = 5
    level: Rate = 10.5
    variance: Rate = 9.2
    memory: Positive = 5000


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Differential privacy of what a device tells: whatever it knows, it tells nearly the same.

    Each device clips its contribution and adds Gaussian noise to it before it leaves. Neighbours
    are two fleets that differ in all that one device ever measured. See ``contract.privacy``.

    Attributes:
        noise: standard deviation of the noise in a sum, over the most that one device can change
            it by (the noise multiplier of the Gaussian mechanism).
        among: devices whose noise adds up in a sum before anybody but the server sees it, and
            without as many of which the server makes no release; 1: each adds all of it, and the
            server learns no more than anybody else.
        clip: largest norm of a device's mean outer product of rows and targets (ridge), in the
            units of ``contract.privacy``; about 2 is usual.
        norm: the same of healthy vectors (moments).
        step: largest length of a step of weights (means family).
        epsilon: what all that a device ever tells may add up to; it then tells nothing any more.
        delta: the probability with which that may fail.
    """

    noise: Rate = 1.0
    among: Positive = 1
    clip: Rate = 2.0
    norm: Rate = 2.0
    step: Rate = 1.0
    epsilon: Rate = 8.0
    delta: Annotated[float, msgspec.Meta(gt=0, lt=0.1)] = 1e-5

    def shared(self) -> list[object]:
        """Return what devices must agree on; the budget is each one's own affair."""
        return [self.noise, self.among, self.clip, self.norm, self.step]

"""What the devices of a cohort must agree on before their models can be merged.

An asset class (pump, fan, turbofan) is the cohort that shares a model. Its spec stands in each
agent's configuration; the digest of it travels with every update and release.
"""

import functools
import hashlib
import re
from typing import Annotated, Literal

import msgspec

from contract.model_spec import Drift, Faults, Health, Moments, Privacy, Ridge, RulModel

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One measured quantity of an asset, and what a plausible reading of it is.

    Attributes:
        name: one topic level.
        unit: see ``contract.units``; what comes in another unit of the same quantity is converted.
        low: below it a reading is bad.
        high: above it a reading is bad.
        step_per_s: a change that is faster, per second, is bad.
        flat_s: a value that has not changed at all for longer is uncertain.
        clip_low: the sensor's lower end of scale; a reading at it or below is uncertain.
        clip_high: the sensor's upper end of scale; a reading at it or above is uncertain.
        every_s: expected spacing; a reading after a gap, or off its beat, is uncertain.
        resample: how the readings of one row's time become its value (``AssetClass.every_s``).
        hold_s: how long a value stands where none comes; absent: 3 rows.
        wander: how many times further than its own beginning shows the channel may wander by
            itself in health: temperatures follow the room, loads the season.
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    step_per_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    flat_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    clip_low: float | None = None
    clip_high: float | None = None
    every_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    resample: Literal["last", "mean", "min", "max", "rms", "linear"] = "last"
    hold_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    wander: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Bearing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rolling-element bearing's geometry: what its defect frequencies follow from.

    Attributes:
        balls: rolling elements.
        ball_mm: diameter of one.
        pitch_mm: diameter of the circle through their centres.
        contact_deg: contact angle.
    """

    balls: Annotated[int, msgspec.Meta(ge=2)]
    ball_mm: Annotated[float, msgspec.Meta(gt=0)]
    pitch_mm: Annotated[float, msgspec.Meta(gt=0)]
    contact_deg: Annotated[float, msgspec.Meta(ge=0, lt=90)] = 0.0


class Severity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which table of vibration severity a machine belongs to.

    Attributes:
        edition: of the standard, as in ``agent.features.iso20816``.
        group: of machines.
        support: of the machine.
    """

    edition: str = "ISO 20816-3:2022"
    group: Annotated[int, msgspec.Meta(ge=1)] = 1
    support: Literal["rigid", "flexible"] = "rigid"


class Waveform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A channel sampled in bursts, as vibration is; each burst becomes one row of features.

    Attributes:
        name: one topic level.
        unit: of the samples: an acceleration, a velocity or anything else.
        rate_hz: samples a second; a burst of another rate is refused.
        samples: in a burst; a burst of another length is refused.
        features: ``mean std rms min max peak crest skewness kurtosis``, ``centroid``,
            ``velocity_rms`` (10 to 1000 Hz, mm/s), ``zone`` (1 to 4: A to D of ``severity``),
            ``band_LO_HI`` (rms between two frequencies in Hz), ``envelope_rms``, and
            ``bpfo bpfi bsf ftf`` (lines of the envelope spectrum over its median).
        low: a burst with a sample below is bad.
        high: a burst with a sample above is bad.
        clip: end of the sensor's scale, both ways; a burst with several samples at it is bad.
        envelope_hz: band that is demodulated; absent: the upper half below 0.9 of Nyquist.
        bearing: for the bearing lines.
        speed: channel of the asset that bears its speed in rpm.
        speed_rpm: in place of a channel: the speed is constant.
        severity: for ``zone``.
        teeth: of the gear on the shaft of that speed: its mesh is marked in pictures of spectra.
    """

    name: str
    unit: str
    rate_hz: Annotated[float, msgspec.Meta(gt=0)]
    samples: Annotated[int, msgspec.Meta(ge=64, le=1_048_576)] = 4096
    features: tuple[str, ...] = ("rms", "peak", "crest", "kurtosis")
    low: float | None = None
    high: float | None = None
    clip: Annotated[float, msgspec.Meta(gt=0)] | None = None
    envelope_hz: tuple[float, float] | None = None
    bearing: Bearing | None = None
    speed: str = ""
    speed_rpm: Annotated[float, msgspec.Meta(gt=0)] | None = None
    severity: Severity | None = None
    teeth: Annotated[int, msgspec.Meta(ge=2)] | None = None


class Declared(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="declared"
):
    """Operating regimes by limits that a person set.

    Attributes:
        limits: per channel, the values at which one regime ends and the next begins, ascending.
        levels: see ``Clustered``.
    """

    limits: dict[str, tuple[float, ...]]
    levels: bool = False


class Clustered(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="clustered"
):
    """Operating regimes found in the beginning of each life.

    Attributes:
        channels: that tell regimes apart: speed, load, a setting.
        regimes: at most so many.
        seed: of the search.
        levels: values are standardised within their regime before any statistic, by the lives of
            the class on this device that have ended; nothing is judged before the first has.
    """

    channels: tuple[str, ...]
    regimes: Annotated[int, msgspec.Meta(ge=2, le=16)] = 3
    seed: int = 1
    levels: bool = False


Regimes = Declared | Clustered


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A feature of one's own: a Python function of the last rows.

    Attributes:
        name: of the feature.
        call: ``module:function``; the module lies in the folder that the agent's config allows.
            It is called with an array ``(rows, C)`` of the channels, oldest row first, NaN where a
            value is bad, and returns one number.
        channels: C names, in the order of the columns; empty: all of the class.
        rows: it is given so many; before there are, the feature is missing.
        least: it is called from so many rows on, with as many as there are; 0: from ``rows`` on.
    """

    name: str
    call: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]
    channels: tuple[str, ...] = ()
    rows: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 64
    least: Annotated[int, msgspec.Meta(ge=0)] = 0


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A slow fact that is a word, and how it becomes numbers.

    Attributes:
        name: of the column in the device's table.
        one_of: the words there are: a feature each, ``name=word``, 1 where it is the asset's.
        order: or the words from the least to the most: one feature, 0 for the first.
    """

    name: str
    one_of: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what says nothing; msgspec turns this into an error with the path."""
        words = self.one_of or self.order
        if bool(self.one_of) == bool(self.order) or len(set(words)) < len(words):
            raise ValueError(
                f"fact {self.name!r}: give its words, each once, as one_of or as order"
            )

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the features it becomes."""
        return tuple(f"{self.name}={word}" for word in self.one_of) or (self.name,)


STAT = re.compile(
    r"(mean|std|rms|min|max|peak|crest|skew|kurt|slope|ewma|dev)_([1-9][0-9]{0,4})|last|mean_all"
)
WAVE_FEATURE = re.compile(
    r"mean|std|rms|min|max|peak|crest|skewness|kurtosis|centroid|velocity_rms|zone|envelope_rms"
    r"|bpfo|bpfi|bsf|ftf|band_([0-9]+(?:\.[0-9]+)?)_([0-9]+(?:\.[0-9]+)?)"
)
AGES = ("age", "log_age")
_WAVE_UNITS = {"crest": "1", "skewness": "1", "kurtosis": "1", "centroid": "Hz"}
_WAVE_UNITS |= {
    "velocity_rms": "mm/s",
    "zone": "1",
    "bpfo": "1",
    "bpfi": "1",
    "bsf": "1",
    "ftf": "1",
}


class AssetClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cohort: the channels of its assets, their features and their models.

    Attributes:
        name: of the cohort.
        channels: what is measured, in column order.
        waveforms: channels that come in bursts; the features of a burst are columns behind those
            of ``channels``, named ``waveform.feature``.
        functions: features of one's own.
        facts: columns of the device's table of slow facts that feature vectors bear, for remaining
            life to be learnt with; missing where the table says nothing of an asset. A name stands
            for a column of numbers.
        age: vectors bear the hours since the life began and their logarithm, for remaining life
            to be learnt with.
        regimes: operating regimes, within which health is judged; none: there is one.
        every_s: rows stand on a grid of time of this step, each channel resampled as it declares;
            0: readings that bear the same time are a row.
        wait_s: on a grid, a row waits so long, in the data's time, for channels that come later.
        stats: statistics per column: ``last``, ``mean_N`` ``std_N`` ``rms_N`` ``min_N`` ``max_N``
            ``peak_N`` (largest absolute value) ``crest_N`` (peak over rms) ``skew_N`` ``kurt_N``
            ``slope_N`` over the last N rows, ``ewma_N`` with a span of N rows, ``mean_all`` since
            the life began, ``dev_N``: the shortest mean less the mean of the life's first N rows.
        hop: rows from one feature vector to the next.
        warmup: rows before the first feature vector of a life.
        cap_h: remaining life is learnt and told up to here, in hours.
        health: the model that says how far an asset is from healthy.
        rul: the models that say how long is left; the first judges until a release says otherwise.
        faults: the model that says which kind of fault it is, learnt from verdicts; none: nothing
            is said.
        alert_rul_h: an alert is also raised when less than this is left, in hours; 0: never.
        latch: an alert that is over is held until it is acknowledged.
        holdout: every n-th finished life is kept from training and used to judge; 0: none.
        max_life_rows: feature vectors kept of one life; a longer life keeps its last ones.
        drift: say when channels or the score drift; none: do not look.
        privacy: what leaves the device is clipped and noisy; none: it is exact.
    """

    name: str
    channels: tuple[Channel, ...] = ()
    waveforms: tuple[Waveform, ...] = ()
    functions: tuple[Function, ...] = ()
    facts: tuple[str | Fact, ...] = ()
    age: bool = False
    regimes: Regimes | None = None
    every_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    wait_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    stats: tuple[str, ...] = ("mean_16", "std_16", "min_16", "max_16", "slope_16", "ewma_16")
    hop: Positive = 1
    warmup: Positive = 1
    cap_h: Annotated[float, msgspec.Meta(gt=0)] = 125.0
    health: Health = Moments()
    rul: tuple[RulModel, ...] = ()
    faults: Faults | None = None
    alert_rul_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    latch: bool = False
    holdout: Annotated[int, msgspec.Meta(ge=0)] = 5
    max_life_rows: Positive = 20_000
    drift: Drift | None = None
    privacy: Privacy | None = None

    def __post_init__(self) -> None:
        """Refuse what no pipeline could run; msgspec turns this into an error with the path."""
        names = [c.name for c in self.channels]
        names += [wave.name for wave in self.waveforms]
        if not names:
            raise ValueError("an asset class needs at least one channel")
        if len(set(names)) != len(names):
            raise ValueError(f"channel names repeat in asset class {self.name!r}")
        self._check_waveforms()
        for stat in self.stats:
            if not STAT.fullmatch(stat):
                raise ValueError(
                    f"statistic {stat!r} is none of last, mean_all, mean_N, std_N, rms_N, min_N, "
                    "max_N, peak_N, crest_N, skew_N, kurt_N, slope_N, ewma_N, dev_N (N rows)"
                )
        if not self.stats or len(set(self.stats)) != len(self.stats):
            raise ValueError("stats must be named once each, and at least one")
        functions = [function.name for function in self.functions]
        names = [*functions, *self.fact_names, *(AGES if self.age else ()), *self.stats]
        if len(set(names)) != len(names):
            raise ValueError("functions and facts must be named once each, and as no statistic is")
        for function in self.functions:
            for name in function.channels:
                if name not in self.channel_names:
                    raise ValueError(f"function {function.name!r}: no channel {name!r}")
        for stat in self.health.stats:
            if stat not in names:
                raise ValueError(f"health watches {stat!r}, which is not among the class's stats")
        self._check_regimes()
        kinds = [type(model) for model in self.rul]
        if len(set(kinds)) != len(kinds):
            raise ValueError("at most one RUL model of each kind")
        self._check_privacy()

    def _check_privacy(self) -> None:
        """Refuse what would tell more than privacy allows, or could not be told with noise."""
        if self.privacy is None:
            return
        if type(self.health) is not Moments:
            raise ValueError("privacy: of health models only 'moments' can be told with noise")
        if self.faults is not None:
            raise ValueError("privacy: faults: kinds of faults cannot be told with noise")
        for model in self.rul:
            if model.basis != "own":
                raise ValueError(
                    f'privacy: {rul_name(model)}: basis = "own": the fleet\'s standardisation is '
                    "made of what devices tell of their features, which has no bound"
                )
            if isinstance(model, Ridge) and (model.shaping or model.personal):
                raise ValueError(
                    "privacy: ridge: leave out shaping and personal, which need exact sums"
                )

    def _check_regimes(self) -> None:
        if self.regimes is None:
            return
        if self.regimes.levels and not self.rul:
            raise ValueError("regimes.levels: they are learnt from lives that end; there is no rul")
        limits = self.regimes.limits if isinstance(self.regimes, Declared) else {}
        channels = tuple(limits) or getattr(self.regimes, "channels", ())
        if not channels:
            raise ValueError("regimes: name the channels that tell them apart")
        for name in channels:
            if name not in self.channel_names:
                raise ValueError(f"regimes: no channel {name!r}")
        for name, values in limits.items():
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"regimes.limits.{name}: give limits in ascending order")

    def _check_waveforms(self) -> None:
        scalars = {channel.name for channel in self.channels}
        for wave in self.waveforms:
            for feature in wave.features:
                if not WAVE_FEATURE.fullmatch(feature):
                    raise ValueError(f"waveform {wave.name!r} has no feature {feature!r}")
            if not wave.features or len(set(wave.features)) != len(wave.features):
                raise ValueError(f"waveform {wave.name!r}: name each feature once, at least one")
            lines = {"bpfo", "bpfi", "bsf", "ftf"} & set(wave.features)
            if lines and wave.bearing is None:
                raise ValueError(f"waveform {wave.name!r}: {sorted(lines)} need [bearing]")
            if lines and not wave.speed and wave.speed_rpm is None:
                raise ValueError(f"waveform {wave.name!r}: {sorted(lines)} need speed or speed_rpm")
            if wave.speed and wave.speed not in scalars:
                raise ValueError(f"waveform {wave.name!r}: speed: no channel {wave.speed!r}")
            if "zone" in wave.features and wave.severity is None:
                raise ValueError(f"waveform {wave.name!r}: 'zone' needs [severity]")

    @property
    def columns(self) -> tuple[Channel, ...]:
        """Return what a row consists of: the channels, then the features of each waveform."""
        return _columns(self.channels, self.waveforms)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Return the names of a row's columns."""
        return tuple(column.name for column in self.columns)

    @property
    def fact_names(self) -> tuple[str, ...]:
        """Return the names of the features that slow facts become."""
        return tuple(
            name
            for fact in self.facts
            for name in ((fact,) if isinstance(fact, str) else fact.features)
        )

    @property
    def health_stats(self) -> tuple[str, ...]:
        """Return the statistics and functions that the health model watches."""
        return self.health.stats or (*self.stats, *(f.name for f in self.functions))

    def features_digest(self) -> str:
        """Return the digest of what the columns of a feature vector mean.

        Which readings are plausible is each device's own affair; how they become rows is not.
        """
        waveforms = [
            msgspec.structs.replace(wave, low=None, high=None, clip=None, teeth=None)
            for wave in self.waveforms
        ]
        more: list[object] = [self.functions, waveforms, self.every_s, self.facts]
        if self.age:
            more.append(AGES)
        if self.regimes is not None and self.regimes.levels:
            more.append(self.regimes)
        if self.every_s:
            more.append([(c.resample, c.hold_s) for c in self.channels])
        told = [[(c.name, c.unit) for c in self.channels], self.stats, self.hop]
        return _digest([*told, *([more] if any(more) else [])])

    def digest(self) -> str:
        """Return the digest of all that must agree for two devices' models to be merged.

        How soon a device warns, and what it keeps to judge by, is its own affair.
        """
        health: list[object] = [self.health_stats, *self.health.shared()]
        if self.regimes is not None:
            health.append(self.regimes)
        if any(channel.wander != 1.0 for channel in self.channels):
            health.append([channel.wander for channel in self.channels])
        if self.privacy is not None:
            health.append(self.privacy.shared())
        if self.faults is not None:
            health.append(self.faults)
        return _digest([self.name, self.features_digest(), self.cap_h, health, self.rul])


@functools.lru_cache(64)
def _columns(channels: tuple[Channel, ...], waveforms: tuple[Waveform, ...]) -> tuple[Channel, ...]:
    return channels + tuple(
        Channel(f"{wave.name}.{feature}", _WAVE_UNITS.get(feature, wave.unit))
        for wave in waveforms
        for feature in wave.features
    )


def _digest(what: list[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:16]


def rul_name(model: RulModel) -> str:
    """Return the name of a RUL model in updates and releases.

    >>> from contract.model_spec import Ridge
    >>> rul_name(Ridge())
    'ridge'
    """
    return str(model.__struct_config__.tag)

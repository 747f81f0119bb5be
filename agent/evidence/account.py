"""The account of an alert: what was measured, what was made of it, and by what it was judged."""

import msgspec
import numpy as np

from agent.evidence.find import Burst, Found
from agent.evidence.recompute import Recomputed, Sight, differences, reason_word
from agent.evidence.record import Software
from agent.features.spectrum import Spectrum
from contract.features import FeatureSpec
from contract.report import Alert
from contract.spec import AssetClass, Waveform

LINES = 5
"""Lines of a burst's spectrum that are named."""
READINGS = 512
"""Rows that are returned."""


class Feature(msgspec.Struct, frozen=True):
    """One watched feature of the vector that raised the alert.

    Attributes:
        channel: that it is of.
        stat: the statistic, or the user's function.
        unit: of the value; empty where it is none of the channel's.
        value: of it; None: not measured.
        mean: in the asset's own beginning.
        sd: of it there; None: it never varied, and says nothing.
        sigmas: how far the value is from the mean.
        share: of the score, 0 to 1.
    """

    channel: str
    stat: str
    unit: str
    value: float | None
    mean: float | None
    sd: float | None
    sigmas: float | None
    share: float


class Judgement(msgspec.Struct, frozen=True):
    """The score, its limit, and where that comes from.

    Attributes:
        score: smoothed, over the limit; 1 is the limit.
        raw: of this vector alone, on the model's own scale.
        limit: on that scale.
        alarm_rate: share of healthy vectors that may lie above the limit.
        healthy_scores: that were counted.
        needed: before that many, the limit is the model's own, 1.
        smoothing: weight of the newest score.
        on_delay: vectors in a row above the limit that raise an alert.
        off_delay: vectors in a row below 0.8 of it that end it.
        alert_rul_h: hours left below which an alert is raised, too; 0: never.
        vectors: healthy vectors learnt on the device.
        solved: how many of them are in the device's own model.
        regime: operating regime, from 0.
        regimes: how many there are.
    """

    score: float
    raw: float
    limit: float
    alarm_rate: float
    healthy_scores: int
    needed: float
    smoothing: float
    on_delay: int
    off_delay: int
    alert_rul_h: float
    vectors: int
    solved: int
    regime: int
    regimes: int


class Model(msgspec.Struct, frozen=True):
    """What judged.

    Attributes:
        version: of the release; 0: the device's own models.
        digest: of it; empty for the device's own.
        contributors: nodes whose data is in it.
        judges_health: whether it scored; else the device's own model did.
        rul: name of the model of remaining life; empty: there was none.
        rul_from_release: whether that was the release's.
        rul_lives: finished lives in the device's own.
        rul_h: hours left.
        rul_error_h: of it on held-out lives, as reported then.
        rul_low_h: hours between which the truth lies, as reported then ...
        rul_high_h: ... see ``contract.report.Health``.
    """

    version: int
    digest: str
    contributors: int
    judges_health: bool
    rul: str
    rul_from_release: bool
    rul_lives: int
    rul_h: float | None
    rul_error_h: float | None
    rul_low_h: float | None
    rul_high_h: float | None


class Line(msgspec.Struct, frozen=True):
    """A line of a spectrum: frequency in Hz, amplitude in the waveform's unit."""

    hz: float
    amplitude: float


class Shown(msgspec.Struct, frozen=True):
    """A burst of a waveform.

    Attributes:
        wave: its name.
        t: seconds since 1970 UTC of its first sample.
        unit: of its samples.
        rate_hz: of them.
        samples: how many.
        bad: why it is bad; empty: it is not.
        features: by name, as the pipeline computed them.
        lines: the largest of its spectrum.
    """

    wave: str
    t: float
    unit: str
    rate_hz: float
    samples: int
    bad: str
    features: dict[str, float | None]
    lines: list[Line]


class Readings(msgspec.Struct, frozen=True):
    """The last readings, as they came; None: nothing was said of that channel.

    Attributes:
        channels: in the order of the columns.
        units: of them.
        t: seconds since 1970 UTC.
        values: a row per time.
    """

    channels: list[str]
    units: list[str]
    t: list[float]
    values: list[list[float | None]]


class Account(msgspec.Struct, frozen=True):
    """Everything that is told of an alert.

    Attributes:
        alert: as it was said.
        returned: seconds since 1970 UTC when it ended, if that is known.
        same: whether the recomputed alert is the same to the last bit; None: there is none.
        differences: between the alert as said and as recomputed.
        lost: why it cannot be recomputed.
        asset_class: of the asset.
        class_digest: of what devices must agree on to merge.
        features_digest: of what the columns of a vector mean.
        judgement: None where it was not recomputed.
        model: None where it was not recomputed.
        features: the largest share first.
        trail: time and score of the vectors before, oldest first.
        marks: time and ``channel.reason`` of values that were bad or uncertain.
        lacks: channels that said nothing.
        readings: the last ones.
        bursts: round it.
        batches: that were replayed.
        base: number of the batch behind which they begin.
        kept: whether the evidence was kept when it was raised.
        then: what computed the alert.
        now: what recomputed it.
        drift: where another machine's numbers differ: the largest relative difference, by name.
    """

    alert: Alert
    returned: float | None
    same: bool | None
    differences: list[str]
    lost: str
    asset_class: str = ""
    class_digest: str = ""
    features_digest: str = ""
    judgement: Judgement | None = None
    model: Model | None = None
    features: list[Feature] = []
    trail: list[tuple[float, float]] = []
    marks: list[tuple[float, str]] = []
    lacks: list[str] = []
    readings: Readings | None = None
    bursts: list[Shown] = []
    batches: int = 0
    base: int = 0
    kept: bool = False
    then: Software | None = None
    now: Software | None = None
    drift: dict[str, float] = {}


def account(found: Found, again: Recomputed | None, lost: str) -> Account:
    """Return the account of an alert; ``again``: what the recomputation found, or None."""
    if found.evidence is None or again is None:
        return Account(found.alert, found.returned, None, [], lost or found.lost)
    head = found.evidence.head
    if not head.seq and again.alert is None:
        text = (
            f"the journal does not reach back to alert {found.alert.id}, and its evidence is gone"
        )
        return Account(found.alert, found.returned, None, [], f"{text} (keep.evidence_mb)")
    spec, sight = head.setting.asset_class, again.sight
    differ = differences(found.alert, again.alert)
    if found.copy is not None:
        differ += [f"in its copy, {text}" for text in differences(found.alert, found.copy)]
    if head.alert != found.copy:
        differ += [f"in its evidence, {text}" for text in differences(found.alert, head.alert)]
    if differ and not head.seq:
        differ.append("replayed under the present configuration: what was in force is not known")
    return Account(
        alert=found.alert,
        returned=found.returned,
        same=not differ,
        differences=differ,
        lost="",
        asset_class=spec.name,
        class_digest=spec.digest(),
        features_digest=spec.features_digest(),
        judgement=None if sight is None else _judgement(spec, sight),
        model=None if sight is None else _model(found, sight),
        features=[] if sight is None else _features(spec, sight),
        trail=[(t_ns / 1e9, score) for t_ns, score in again.trail],
        marks=[(report.t, mark) for report in again.health for mark in report.marks],
        lacks=list(again.health[-1].lacks) if again.health else [],
        readings=_readings(spec, again),
        bursts=[_shown(spec, burst) for burst in found.bursts],
        batches=len(found.evidence.batches),
        base=head.base,
        kept=found.kept,
        then=head.setting.software,
        now=Software.here(),
    )


def _judgement(spec: AssetClass, sight: Sight) -> Judgement:
    rules, known = spec.health, sight.known
    healthy = known.healthy
    if sight.release is not None and sight.release.health is not None:
        counts = sight.release.arrays.get("health/histogram")
        healthy = 0 if counts is None else int(np.asarray(counts, dtype=np.int64).sum())
    return Judgement(
        score=sight.score,
        raw=sight.raw,
        limit=np.nan if known.judge is None else known.judge.limit,
        alarm_rate=rules.alarm_rate,
        healthy_scores=healthy,
        needed=0.2 / rules.alarm_rate,
        smoothing=rules.smoothing,
        on_delay=rules.on_delay,
        off_delay=rules.off_delay,
        alert_rul_h=spec.alert_rul_h,
        vectors=known.vectors,
        solved=known.solved,
        regime=sight.regime[0],
        regimes=sight.regime[1],
    )


def _model(found: Found, sight: Sight) -> Model:
    release, said = sight.release, found.health
    return Model(
        version=0 if release is None else release.version,
        digest="" if release is None else release.digest,
        contributors=0 if release is None else len(release.manifest.contributors),
        judges_health=release is not None and release.health is not None,
        rul=sight.rul_model,
        rul_from_release=release is not None and sight.rul_model in release.rul,
        rul_lives=sight.rul_lives,
        rul_h=sight.rul_h,
        rul_error_h=None if said is None else said.rul_error_h,
        rul_low_h=None if said is None else said.rul_low_h,
        rul_high_h=None if said is None else said.rul_high_h,
    )


_OF_THE_CHANNEL = {"last", "mean", "std", "rms", "min", "max", "peak", "ewma", "dev"}


def _features(spec: AssetClass, sight: Sight) -> list[Feature]:
    features = FeatureSpec.of(spec)
    watched = [features.parts[i] for i in features.columns(spec.health_stats)]
    units = {column.name: column.unit for column in spec.columns}
    made = []
    for i, (channel, stat) in enumerate(watched):
        own = stat.partition("_")[0] in _OF_THE_CHANNEL
        made.append(
            Feature(
                channel,
                stat,
                units.get(channel, "") if own else "",
                _number(sight.x[i]),
                _number(sight.mean[i]),
                _number(sight.sd[i]),
                _number(sight.z[i]),
                _number(sight.shares[i]) or 0.0,
            )
        )
    return sorted(made, key=lambda feature: -feature.share)


def _readings(spec: AssetClass, again: Recomputed) -> Readings:
    t_ns, values = again.readings
    columns = spec.columns
    return Readings(
        [column.name for column in columns],
        [column.unit for column in columns],
        [t / 1e9 for t in t_ns[-READINGS:].tolist()],
        [[_number(v) for v in row] for row in values[-READINGS:]],
    )


def _shown(spec: AssetClass, burst: Burst) -> Shown:
    wave = next(wave for wave in spec.waveforms if wave.name == burst.wave)
    found = {
        name: _number(value) for name, value in zip(wave.features, burst.features, strict=False)
    }
    return Shown(
        burst.wave,
        burst.t_ns / 1e9,
        wave.unit,
        wave.rate_hz,
        len(burst.samples),
        reason_word(burst.reason),
        found,
        [] if burst.reason else lines(wave, burst),
    )


def lines(wave: Waveform, burst: Burst) -> list[Line]:
    """Return the largest peaks of a burst's amplitude spectrum, the largest first."""
    spectrum = Spectrum(wave.rate_hz, len(burst.samples), 1)
    centred = (burst.samples - burst.samples.mean())[None, :].astype(np.float32)
    _, power = spectrum.of(centred)
    # A tone's power lies in three bins of a Hann window; its amplitude is read off the middle one.
    amplitude = np.sqrt(power[0]) * 4.0 / len(burst.samples)
    inner = amplitude[1:-1]
    peaks = 1 + np.flatnonzero((inner > amplitude[:-2]) & (inner >= amplitude[2:]))
    largest = peaks[np.argsort(-amplitude[peaks], kind="stable")][:LINES]
    return [Line(float(spectrum.frequencies[i]), float(amplitude[i])) for i in largest]


def _number(value: np.generic | float) -> float | None:
    return float(value) if np.isfinite(value) else None

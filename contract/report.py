"""What a device says of its assets: health, alerts, events and its own status, as JSON."""

from typing import Literal

import msgspec


class Why(msgspec.Struct, frozen=True):
    """One channel's part in a score.

    Attributes:
        channel: its name.
        share: of the score, 0 to 1.
        feature: the statistic that contributes most.
        sigmas: how far that is from the asset's own beginning, in its standard deviations.
    """

    channel: str
    share: float
    feature: str
    sigmas: float


class Health(msgspec.Struct, frozen=True, tag_field="type", tag="health"):
    """How an asset is, at one feature vector.

    Attributes:
        asset: which.
        t: seconds since 1970 UTC, of the data.
        state: ``learning`` until its own beginning is known.
        health: 1 healthy, 0 failed; None while learning.
        score: smoothed; 1 is the limit of healthy, higher is worse.
        rul_h: hours left by the model that judges; None where there is none yet.
        rul_error_h: root mean square error of that model on held-out lives; None where unknown.
        rul_low_h: hours between which the truth lies, as calibrated on held-out lives ...
        rul_high_h: ... the cap stands for it and all above; None where there are too few lives.
        rul_coverage: share of the truths that are to lie there: 0.9, or what so few lives allow.
        rul_local_h: hours left by this device's own model, learnt alone.
        judged_by: release that judges; 0: the device's own models.
        rul_model: which of its models.
        life: which life of the asset, from 0.
        marks: ``channel.reason`` of values since the last report that are bad or uncertain.
        lacks: channels and functions that say nothing in this vector, or have not in the asset's
            beginning: health is learnt and judged without them, or waits for them if they are most.
        why: the channels that contribute most.
    """

    asset: str
    t: float
    state: Literal["learning", "healthy", "degraded", "failing"]
    health: float | None
    score: float | None
    rul_h: float | None
    rul_error_h: float | None
    rul_local_h: float | None
    judged_by: int
    rul_model: str
    life: int
    why: tuple[Why, ...]
    marks: tuple[str, ...] = ()
    rul_low_h: float | None = None
    rul_high_h: float | None = None
    rul_coverage: float | None = None
    lacks: tuple[str, ...] = ()


class Alert(msgspec.Struct, frozen=True, tag_field="type", tag="alert"):
    """A change of state of an alert (ISA-18.2: raised, returned).

    Attributes:
        id: ``asset/life/count``.
        asset: which.
        state: ``raised`` or ``returned``.
        t: seconds since 1970 UTC, of the data, when the state changed.
        since: when the score first went over the limit and stayed.
        score: at the change; 1 is the limit.
        rul_h: hours left, or None.
        judged_by: release that judged.
        why: the channels that contribute most.
        text: the same in words.
    """

    id: str
    asset: str
    state: Literal["raised", "returned"]
    t: float
    since: float
    score: float
    rul_h: float | None
    judged_by: int
    why: tuple[Why, ...]
    text: str


class LifeEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happened to an asset; sent to the agent on the ``event`` topic.

    Attributes:
        event: ``failed`` ends a life and labels it; the others begin a new one.
        t: seconds since 1970 UTC, or ISO 8601; absent: when it arrives.
    """

    event: Literal["started", "maintained", "failed", "replaced"]
    t: float | str | None = None


class NodeStatus(msgspec.Struct, frozen=True):
    """How a node is: retained on its status topic, and the last will when it is gone.

    Attributes:
        node: its name.
        online: False in the last will.
        readings: rows committed since the store was made, rejected ones included, repeated ones
            not: a sender that is told to wait for the agent counts on it.
        rejected: payloads that could not be used.
        repeated: rows that came again.
        late: rows older than what was there already.
        bad: values marked bad.
        marked: values by ``channel.reason``, bad and uncertain.
        assets: known.
        lives: finished lives known.
        live: release per asset class.
        events: life events committed.
    """

    node: str
    online: bool
    readings: int = 0
    rejected: int = 0
    repeated: int = 0
    late: int = 0
    bad: int = 0
    assets: int = 0
    lives: int = 0
    events: int = 0
    live: dict[str, int] = {}
    marked: dict[str, int] = {}


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """A channel or waveform, as a node expects it.

    Attributes:
        name: of the channel.
        unit: in which health speaks of it.
        low: below it a reading is bad.
        high: above it a reading is bad.
        every_s: expected spacing.
        rate_hz: of a waveform.
        samples: in a burst of a waveform.
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    every_s: float | None = None
    rate_hz: float | None = None
    samples: int | None = None


class ClassConfig(msgspec.Struct, frozen=True):
    """An asset class, as a node is configured for it.

    Attributes:
        name: of the class.
        digest: must agree for two devices' models to be merged.
        channels: that are read.
        waveforms: that are read.
        features: names of the columns of a feature vector.
    """

    name: str
    digest: str
    channels: tuple[Measured, ...]
    waveforms: tuple[Measured, ...]
    features: tuple[str, ...]


class NodeConfig(msgspec.Struct, frozen=True):
    """What a node measures: retained on its config topic, for dashboards and senders.

    Attributes:
        node: its name.
        contract: version of what crosses the wire.
        classes: asset classes.
        assets: asset name patterns to class names.
    """

    node: str
    contract: int
    classes: tuple[ClassConfig, ...]
    assets: dict[str, str]

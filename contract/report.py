"""What a device says of its assets, and what people say to it, as JSON.

Health, alerts and its own status; life events, commands and verdicts.
"""

from typing import Annotated, Literal

import msgspec

from contract.settings import Standing


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


DriftKind = Literal["up", "down", "wider", "narrower"]


class Drifted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A signal that has left its own ways, as far back as the last 512 feature vectors.

    Attributes:
        channel: its name; empty: the score, which is how health itself goes.
        change: of its level (``up``, ``down``), or of its variance.
        psi: population stability index against its beginning, over the newest whole window of as
            many vectors; no limit of it means anything where readings are alike for a while.
        ks: the same of the distance of Kolmogorov and Smirnov.
    """

    channel: str
    change: DriftKind
    psi: float | None = None
    ks: float | None = None


DriftWord = Literal["", "sensor", "machine", "score", "unknown"]


def drift_of(drifted: "tuple[Drifted, ...]", sensors: dict[str, str]) -> DriftWord:
    """Return what has drifted, as far as one machine can tell; empty: nothing.

    One sensor of several: it, or what it alone measures. Several: the machine, or what it works
    on. The score alone: health, by no channel's level or variance. The only sensor there is:
    ``unknown``, one or the other.

    Args:
        drifted: signals.
        sensors: of each channel; features of a waveform are one's.

    >>> drift_of((Drifted("flow", "up"),), {"flow": "flow", "case.rms": "case"})
    'sensor'
    """
    found = {sensors[one.channel] for one in drifted if one.channel}
    if len(found) > 1:
        return "machine"
    if found:
        return "sensor" if len(set(sensors.values())) > 1 else "unknown"
    return "score" if drifted else ""


def cohort_drift(reports: "list[Health]", machines: int | None = None) -> tuple[str, ...]:
    """Return the channels that drift on most machines of a class: the process, or the season.

    Args:
        reports: the newest of each of its machines, or of those that drift.
        machines: how many there are; of fewer than three nothing is said. None: as many as reports.
    """
    many = len(reports) if machines is None else machines
    counts: dict[str, int] = {}
    for report in reports:
        for name in {one.channel for one in report.drift} - {""}:
            counts[name] = counts.get(name, 0) + 1
    enough = max(2.0, many / 2)
    return tuple(sorted(name for name, n in counts.items() if many > 2 and n > enough - 1e-9))


class Likely(msgspec.Struct, frozen=True):
    """A kind of fault, and how likely it is among those that are known."""

    kind: str
    share: float


class Health(msgspec.Struct, frozen=True, tag_field="type", tag="health"):
    """How an asset is, at one feature vector.

    Attributes:
        asset: which.
        t: seconds since 1970 UTC, of the data.
        state: ``learning`` until its own beginning is known. ``stale``: who sent its readings says
            that none will come; nothing is known of it from ``t`` on until the next report.
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
        drift: channels that drift from the asset's beginning, where the class asks for it.
        drift_of: what that speaks for.
        faults: kinds of faults that it looks like, while an alert stands; as of an alert.
        replayed: True: written before the connection that brings it stood, and brought late or
            again; what is new does not wait for it.
    """

    asset: str
    t: float
    state: Literal["learning", "healthy", "degraded", "failing", "stale"]
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
    drift: tuple[Drifted, ...] = ()
    drift_of: DriftWord = ""
    faults: tuple[Likely, ...] = ()
    replayed: bool | msgspec.UnsetType = msgspec.UNSET


AlertWord = Literal[
    "raised",
    "escalated",
    "unacknowledged",
    "acknowledged",
    "returned",
    "latched",
    "shelved",
    "unshelved",
    "normal",
]
AlertState = Literal["normal", "unacknowledged", "acknowledged", "returned", "latched", "shelved"]
VerdictWord = Literal["confirmed", "false_alarm", "not_found"]
LifeWord = Literal["started", "maintained", "failed", "replaced"]
STANDING = frozenset({"raised", "escalated", "unacknowledged", "acknowledged", "unshelved"})


class Alert(msgspec.Struct, frozen=True, tag_field="type", tag="alert"):
    """A change of state of an alert, or the answer to a person (ISA-18.2, IEC 62682).

    Attributes:
        id: ``asset/life/count``; ``count`` 0: the asset never had one.
        asset: which.
        state: what changed. ``raised``: it is new. ``escalated``: from degraded to failing, and to
            be acknowledged again. ``acknowledged``: by a person, and it stands. ``returned``: what
            raised it is over. ``latched``: so it is, but it is held until it is acknowledged.
            ``shelved``, ``unshelved``: hidden for a while, and back because it stands.
            ``unacknowledged``, ``normal``: an answer that changed nothing, or ended what was owed;
            with ``event``: closed, whatever it was.
        t: seconds since 1970 UTC, of the data or of the command, when the state changed.
        since: when the score first went over the limit and stayed.
        score: at the change; 1 is the limit.
        rul_h: hours left, or None.
        judged_by: release that judged.
        why: the channels that contribute most.
        text: the same in words, its id at the end.
        replayed: as of health.
        now: the state that it is in, in the standard's words; ``returned``: unacknowledged, too.
        severity: the worst it has been.
        until: seconds since 1970 UTC, of the data, up to which it is shelved.
        verdict: what was found when it was looked into; empty: nobody has said.
        ref: of the command that this answers.
        rul_low_h: hours between which the truth lies ...
        rul_high_h: ... as of health.
        event: life event that closed it; empty: none did.
        faults: kinds of faults that it looks like, the likeliest first, as far as people have named
            others; empty: nothing is known of that.
    """

    id: str
    asset: str
    state: AlertWord
    t: float
    since: float
    score: float
    rul_h: float | None
    judged_by: int
    why: tuple[Why, ...]
    text: str
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    now: AlertState = "normal"
    severity: Literal["degraded", "failing"] = "degraded"
    until: float | None = None
    verdict: VerdictWord | Literal[""] = ""
    ref: str = ""
    rul_low_h: float | None = None
    rul_high_h: float | None = None
    event: LifeWord | Literal[""] = ""
    faults: tuple[Likely, ...] = ()

    @property
    def stands(self) -> bool:
        """Return whether what raised it goes on, and it is not shelved."""
        return self.state in STANDING


Moment = float | Annotated[str, msgspec.Meta(max_length=40)] | None
"""Seconds since 1970 UTC, or ISO 8601; None: when it arrives."""
Name = Annotated[str, msgspec.Meta(max_length=64)]
AlertId = Annotated[str, msgspec.Meta(max_length=400)]


class LifeEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that happened to an asset; sent to the agent on the ``event`` topic.

    Attributes:
        event: ``failed`` ends a life and labels it; the others begin a new one.
        t: when it happened.
        ref: the agent's answer bears it; one that came before is a repetition.
    """

    event: LifeWord
    t: Moment = None
    ref: Name = ""


class Acknowledge(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="command",
    tag="acknowledge",
):
    """Somebody has seen the alert.

    Attributes:
        alert: its id; empty: the newest. Of an older one nothing is left to acknowledge.
        t: when.
        by: who.
        ref: as of a life event.
    """

    alert: AlertId = ""
    t: Moment = None
    by: Name = ""
    ref: Name = ""


class Shelve(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="command",
    tag="shelve",
):
    """Hide the asset's alert for some hours, by the time of its data.

    Attributes:
        hours: from ``t`` on; up to a year.
        t: when.
        by: who.
        ref: as of a life event.
    """

    hours: Annotated[float, msgspec.Meta(gt=0, le=8784)]
    t: Moment = None
    by: Name = ""
    ref: Name = ""


class Unshelve(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="command",
    tag="unshelve",
):
    """Hide it no longer; the attributes are those of the others."""

    t: Moment = None
    by: Name = ""
    ref: Name = ""


Command = Acknowledge | Shelve | Unshelve
"""Sent to the agent on the ``command`` topic."""


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was found when an alert was looked into; sent to the agent on the ``verdict`` topic.

    Attributes:
        verdict: ``confirmed``: there was a fault; ``false_alarm``: the machine is healthy, and
            what raised the alert is no fault; ``not_found``: nothing was found, which proves
            nothing.
        alert: its id; empty: the newest.
        fault: in a word, e.g. ``bearing``.
        note: in more of them.
        t: when.
        by: who.
        ref: as of a life event.
    """

    verdict: VerdictWord
    alert: AlertId = ""
    fault: Name = ""
    note: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    t: Moment = None
    by: Name = ""
    ref: Name = ""


class Quality(msgspec.Struct, frozen=True, omit_defaults=True):
    """How good the alerts of an asset class are on a node, since what judges there began to.

    Cases are what is known: alerts that people judged or a failure proved right, failures and
    faults without one, lives that ended otherwise without one.

    Attributes:
        confirmed: alerts that were right.
        false_alarms: that were not.
        not_found: of which nothing was found, which proves nothing.
        missed: failures and faults without an alert.
        spared: lives that were maintained or replaced, and had no alert: taken as healthy.
        accuracy: right cases (``confirmed`` and ``spared``) over all; None: there are none.
        precision: ``confirmed`` over those and ``false_alarms``.
        recall: ``confirmed`` over those and ``missed``.
        f1: their harmonic mean.
        machine_months: watched, 730 hours each.
        raised: alerts.
        false_alarms_per_month: found to be such, per machine and month of 730 hours.
        estimate_alarms_per_month: the same without anybody's word: all alerts that nothing proved
            right; the false ones are at most so many.
        estimate_over_limit: share of judged vectors over the limit, which ``alarm_rate`` allows for
            healthy ones; no word of anybody's either.
        rul_error_h: mean absolute error of the predictions that were told before failures.
        rul_lives: of which that is.
        drifting: machines that drift.
        faults_told: kinds that were told, of alerts for which a kind was found.
        faults_right: of these, as it was found.
        retrain: bounds that are crossed, in words: retraining is asked for.
    """

    confirmed: int = 0
    false_alarms: int = 0
    not_found: int = 0
    missed: int = 0
    spared: int = 0
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    machine_months: float = 0.0
    raised: int = 0
    false_alarms_per_month: float | None = None
    estimate_alarms_per_month: float | None = None
    estimate_over_limit: float | None = None
    rul_error_h: float | None = None
    rul_lives: int = 0
    drifting: int = 0
    faults_told: int = 0
    faults_right: int = 0
    retrain: tuple[str, ...] = ()


class Resources(msgspec.Struct, frozen=True):
    """What a node has left, as of its last look; rounded, so that it seldom changes.

    Attributes:
        memory_mb: resident, of the agent's process; in steps of 5.
        disk_free_mb: where its state lies; in steps of 100.
        temperature_c: of the processor, in steps of 5; None: not told.
        load: of one processor over a minute, in steps of 0.5.
    """

    memory_mb: int
    disk_free_mb: int
    temperature_c: int | None
    load: float


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
        marked: values by ``channel.reason``: bad, uncertain, late, or said again (duplicate).
        marked_of: the same of each of the assets that have most.
        assets: known.
        lives: finished lives known.
        live: release per asset class.
        events: life events committed.
        quality: of the alerts, per asset class, as of the newest verdict, end of a life or
            checkpoint; says when retraining is asked for.
        problem: why nothing can be stored at present, or what is wrong with the node's clock;
            empty: nothing that is known.
        settings: what became of the fleet's settings, where the node takes them.
        resources: of the node's process and machine.
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
    quality: dict[str, Quality] = {}
    problem: str = ""
    marked_of: dict[str, dict[str, int]] = {}
    settings: Standing = Standing()
    resources: Resources | None = None


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
        area: of the site, where the node stands; empty: not said.
        line: of the area.
    """

    node: str
    contract: int
    classes: tuple[ClassConfig, ...]
    assets: dict[str, str]
    area: str = ""
    line: str = ""

"""Judges what agents said by what is true: lead, false alarms, remaining life, diagnosis."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from contract.errors import RunoutError
from contract.report import Alert, Health
from simulator.truth import LifeTruth, SensorTruth, Truth

HOUR_S = 3600.0
MONTH_H = 730.5
"""Of a mean month."""
_NEW = frozenset({"raised", "escalated"})
"""What tells a person something that was not told before."""


class Judged(NamedTuple):
    """How one life was told.

    Attributes:
        life: what is true of it.
        told_t: first alert after the fault began, seconds since 1970 UTC; None: none.
        false_alarms: alerts raised while nothing was wrong; None where nobody knows.
        healthy_h: hours played while nothing was wrong; None where nobody knows.
        named: whether a channel that the fault moves is among those the alert gives; None: no
            alert, or nobody knows.
        named_first: whether it is the first of them.
        rul_h: said and true hours left, of each report that said some.
        covered: reports whose interval held the truth, and those that had one.
        beside: of the false alarms, those from when a sensor of the machine went bad.
        bad_sensors: of the life, and of these, those whose channel an alert since gives first.
    """

    life: LifeTruth
    told_t: float | None
    false_alarms: int | None
    healthy_h: float | None
    named: bool | None
    named_first: bool | None
    rul_h: tuple[tuple[float, float], ...]
    covered: tuple[int, int]
    beside: int = 0
    bad_sensors: tuple[int, int] = (0, 0)

    @property
    def due(self) -> bool:
        """Return whether there was something to be told of: a fault that could be felt."""
        life = self.life
        if life.fault_began_t is None or life.felt_t is None:
            return life.failed
        return life.felt_t <= life.played_until_t

    @property
    def lead_h(self) -> float | None:
        """Return the hours from the first alert to failure."""
        return None if self.told_t is None else (self.life.failure_t - self.told_t) / HOUR_S

    @property
    def delay_h(self) -> float | None:
        """Return the hours from when the fault can be felt to the first alert; below 0: sooner."""
        if self.told_t is None or self.life.felt_t is None:
            return None
        return (self.told_t - self.life.felt_t) / HOUR_S


def read_said(paths: Iterable[Path]) -> list[Health | Alert]:
    """Read what agents said: JSON lines of ``health`` and ``alert`` messages, in any order.

    Args:
        paths: files of ``runout-simulator record``, or of ``runout-agent replay --out F.jsonl``.

    Raises:
        RunoutError: a file cannot be read, or a line is neither; names file and line.
    """
    decoder = msgspec.json.Decoder(Health | Alert)
    said: list[Health | Alert] = []
    for path in paths:
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise RunoutError(f"{path}: cannot be read ({error.strerror})") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                said.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RunoutError(
                    f"{path}, line {number}: neither health nor alert as an agent publishes it "
                    f"({error}); record them with runout-simulator record"
                ) from error
    return said


def judge(truth: Truth, said: Iterable[Health | Alert], *, cap_h: float = math.inf) -> list[Judged]:
    """Return how each life was told, in the order of the truth.

    What was said belongs to the life of its asset that was being played then. A message that came
    twice counts once.

    Args:
        truth: of all that was played.
        said: by the agents; of assets that the truth does not know, nothing counts.
        cap_h: hours up to which remaining life is told, and judged.
    """
    lives: dict[str, list[LifeTruth]] = {}
    for life in truth.lives:
        lives.setdefault(life.asset, []).append(life)
    for of_asset in lives.values():
        of_asset.sort(key=lambda life: life.started_t)
    starts = {asset: [life.started_t for life in found] for asset, found in lives.items()}
    alerts: dict[tuple[str, int], dict[tuple[str, str, float], Alert]] = {}
    reports: dict[tuple[str, int], dict[float, Health]] = {}
    for one in said:
        at = bisect_right(starts.get(one.asset, []), one.t) - 1
        if at < 0 or one.t > lives[one.asset][at].played_until_t + HOUR_S:
            continue
        key = (one.asset, lives[one.asset][at].life)
        if isinstance(one, Health):
            reports.setdefault(key, {})[one.t] = one
        elif one.state in _NEW and not one.event:
            alerts.setdefault(key, {})[one.id, one.state, one.t] = one
    return [
        _judge(
            life,
            sorted(alerts.get((life.asset, life.life), {}).values(), key=lambda alert: alert.t),
            reports.get((life.asset, life.life), {}).values(),
            cap_h,
            [
                sensor
                for sensor in truth.sensors
                if sensor.asset == life.asset
                and life.started_t <= sensor.from_t <= life.played_until_t
            ],
        )
        for life in truth.lives
    ]


def _judge(
    life: LifeTruth,
    alerts: list[Alert],
    reports: Iterable[Health],
    cap_h: float,
    sensors: list[SensorTruth],
) -> Judged:
    known = life.fault is not None and life.severity is not None
    began = life.fault_began_t if life.fault_began_t is not None else math.inf
    if known:
        true = [alert for alert in alerts if alert.t >= began]
        early = [alert.t for alert in alerts if alert.t < began and alert.state == "raised"]
        false = len(early)
        went_bad = min((sensor.from_t for sensor in sensors), default=math.inf)
        beside = sum(t >= went_bad for t in early)
        healthy_h = max(0.0, min(began, life.played_until_t) - life.started_t) / HOUR_S
    else:
        # Of a recording nobody knows when the fault began: every alert is of the end it came to.
        true, false, healthy_h, beside = alerts, None, None, 0
    told = sum(any(_gives(alert, sensor) for alert in alerts) for sensor in sensors)
    named = named_first = None
    if true and life.channels:
        given = [why.channel for why in true[0].why]
        named = any(_moved(channel, life) for channel in given)
        named_first = bool(given) and _moved(given[0], life)
    pairs, inside, intervals = [], 0, 0
    for report in reports:
        left = min((life.failure_t - report.t) / HOUR_S, cap_h)
        if report.rul_h is not None and left >= 0:
            pairs.append((report.rul_h, left))
        if report.rul_low_h is not None and left >= 0:
            high = math.inf if report.rul_high_h is None else report.rul_high_h
            inside += report.rul_low_h <= left <= high
            intervals += 1
    return Judged(
        life,
        true[0].t if true else None,
        false,
        healthy_h,
        named,
        named_first,
        tuple(pairs),
        (inside, intervals),
        beside,
        (len(sensors), told),
    )


def _gives(alert: Alert, sensor: SensorTruth) -> bool:
    """Return whether an alert that came with a bad sensor gives its channel first."""
    since = sensor.from_t <= alert.t <= sensor.to_t + HOUR_S
    return since and bool(alert.why) and alert.why[0].channel.partition(".")[0] in sensor.channel


def _moved(channel: str, life: LifeTruth) -> bool:
    """Return whether a fault moves a channel; a waveform's features are named ``wave.feature``."""
    return channel in life.channels or channel.partition(".")[0] in life.channels


def summary(judged: list[Judged]) -> dict[str, float | int | None]:
    """Return the figures over all lives; None where there is nothing to tell it by."""
    due = [one for one in judged if one.due]
    told = [one for one in due if one.told_t is not None]
    known = [one for one in judged if one.false_alarms is not None]
    months = sum(one.healthy_h or 0.0 for one in known) / MONTH_H
    false = sum(one.false_alarms or 0 for one in known)
    pairs = [pair for one in judged for pair in one.rul_h]
    named = [one for one in told if one.named is not None]
    inside, intervals = (sum(one.covered[i] for one in judged) for i in (0, 1))
    leads = [one.lead_h for one in told if one.lead_h is not None]
    delays = [one.delay_h for one in told if one.delay_h is not None]
    return {
        "lives": len(judged),
        "faults_felt": len(due),
        "faults_told": len(told),
        "recall": _ratio(len(told), len(due)),
        "lead_h": median(leads) if leads else None,
        "delay_h": median(delays) if delays else None,
        "machine_months": months if known else None,
        "false_alarms": false if known else None,
        "false_alarms_per_machine_month": _ratio(false, months) if known else None,
        "false_alarms_beside_bad_sensors": sum(one.beside for one in judged) if known else None,
        "sensors_bad": sum(one.bad_sensors[0] for one in judged),
        "sensors_told": sum(one.bad_sensors[1] for one in judged),
        "rul_rmse_h": math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))
        if pairs
        else None,
        "rul_reports": len(pairs),
        "rul_coverage": _ratio(inside, intervals),
        "diagnosis_named": _ratio(sum(bool(one.named) for one in named), len(named)),
        "diagnosis_first": _ratio(sum(bool(one.named_first) for one in named), len(named)),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def table(judged: list[Judged]) -> str:
    """Return a line a life that failed, is failing, or was alarmed of; for people."""
    head = ("asset", "life", "fault", "told", "lead h", "delay h", "false", "names it")
    rows = [head]
    for one in judged:
        if not one.due and one.told_t is None and not one.false_alarms:
            continue
        life = one.life
        told = "no" if one.told_t is None else "yes"
        rows.append(
            (
                life.asset,
                str(life.life),
                "not known" if life.fault is None else life.fault or "none",
                told if one.due else f"{told}, not to be felt yet",
                _hours(one.lead_h),
                _hours(one.delay_h),
                "" if one.false_alarms is None else str(one.false_alarms),
                {None: "", True: "yes", False: "no"}[one.named],
            )
        )
    if len(rows) == 1:
        return "no life had a fault that could be felt, and there was no alert"
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _hours(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"

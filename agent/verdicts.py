"""How good the alerts are, by what people found and what came; and when that asks for retraining.

What judges is held responsible for its own: a release that takes over begins with nothing.
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from agent.config import Bounds
from agent.record import Ended, Tally
from contract.report import Quality

MONTH_H = 730.0


def quality(
    verdicts: Iterable[tuple[str, str]],
    ended: Sequence[Ended],
    tally: Tally,
    bounds: Bounds,
    *,
    assets: int = 0,
    drifting: int = 0,
    faults: tuple[int, int] = (0, 0),
) -> Quality:
    """Return the figures of an asset class.

    An alert that stood when the machine failed was right, whether or not anybody said so; what
    was found last counts. ``not_found`` proves nothing, and is in none of the shares.

    Args:
        verdicts: id of an alert and what was found, in the order in which it was said.
        ended: lives.
        tally: of the class.
        bounds: on the figures.
        assets: known.
        drifting: of these, what drifts.
        faults: kinds of faults that were told, and of these, right.

    >>> said = [("a/0/1", "confirmed"), ("a/0/2", "false_alarm"), ("b/0/0", "confirmed")]
    >>> found = quality(said, [], Tally(), Bounds(precision=0.9, cases=1))
    >>> found.precision, found.recall, found.missed, found.retrain
    (0.5, 0.5, 1, ('precision 0.5 is below 0.9',))
    """
    newest = dict(verdicts)
    right = {alert for alert, said in newest.items() if said == "confirmed" and _was(alert)}
    wrong = {alert for alert, said in newest.items() if said == "false_alarm" and _was(alert)}
    # A fault that somebody found where there was no alert.
    missed = {_life(alert) for alert, said in newest.items() if said == "confirmed"} - {
        _life(alert) for alert in right
    }
    spared = 0
    for one in ended:
        if one.event == "failed":
            if one.stood and one.alert not in wrong:
                right.add(one.alert)
            elif one.alert not in right:
                missed.add(f"{one.asset}/{one.life}")
        elif not one.alert:
            spared += 1
    tp, fp, fn = len(right), len(wrong), len(missed)
    months = tally.watched_ns / 3.6e12 / MONTH_H
    errors = [one.error_h for one in ended if one.event == "failed" and one.error_h is not None]
    found = Quality(
        confirmed=tp,
        false_alarms=fp,
        not_found=sum(said == "not_found" for said in newest.values()),
        missed=fn,
        spared=spared,
        accuracy=_share(tp + spared, tp + fp + fn + spared),
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        f1=_share(2 * tp, 2 * tp + fp + fn),
        machine_months=round(months, 6),
        raised=tally.raised,
        false_alarms_per_month=_per(fp, months),
        estimate_alarms_per_month=_per(max(tally.raised - tp, 0), months),
        estimate_over_limit=_share(tally.over, tally.judged),
        rul_error_h=round(sum(errors) / len(errors), 4) if errors else None,
        rul_lives=len(errors),
        drifting=drifting,
        faults_told=faults[0],
        faults_right=faults[1],
    )
    return _with_reasons(found, bounds, assets)


def _with_reasons(found: Quality, bounds: Bounds, assets: int) -> Quality:
    cases = found.confirmed + found.false_alarms + found.missed + found.spared
    reasons = []
    if cases >= bounds.cases:
        for name in ("accuracy", "precision", "recall", "f1"):
            value, least = getattr(found, name), getattr(bounds, name)
            if value is not None and least is not None and value < least:
                reasons.append(f"{name} {value:.3g} is below {least:g}")
        rate, most = found.false_alarms_per_month, bounds.false_alarms_per_month
        if rate is not None and most is not None and rate > most:
            reasons.append(f"{rate:.3g} false alarms a machine and month are above {most:g}")
    error, most = found.rul_error_h, bounds.rul_error_h
    if error is not None and most is not None and found.rul_lives >= bounds.cases and error > most:
        reasons.append(f"error of remaining life {error:.3g} h is above {most:g} h")
    share = bounds.drifting
    if share is not None and assets and found.drifting / assets > share:
        reasons.append(f"{found.drifting} of {assets} machines drift, more than {share:.0%}")
    return replace(found, retrain=tuple(reasons))


def _was(alert: str) -> bool:
    """Return whether an id is of an alert that was raised."""
    return not alert.endswith("/0")


def _life(alert: str) -> str:
    return alert.rpartition("/")[0]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _per(count: int, months: float) -> float | None:
    return round(count / months, 4) if months > 0 else None

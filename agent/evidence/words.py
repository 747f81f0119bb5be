"""The account of an alert in words, for a person at the machine."""

from datetime import UTC, datetime

import msgspec

from agent.evidence.account import Account, Feature, Judgement, Model, Readings, Shown
from agent.evidence.record import Software

_KINDS = {
    "mean": "mean of the last {n} rows",
    "std": "standard deviation over the last {n} rows",
    "rms": "root mean square of the last {n} rows",
    "min": "lowest of the last {n} rows",
    "max": "highest of the last {n} rows",
    "peak": "largest absolute value of the last {n} rows",
    "crest": "crest factor of the last {n} rows",
    "skew": "skewness of the last {n} rows",
    "kurt": "kurtosis of the last {n} rows",
    "slope": "slope, per row, over the last {n} rows",
    "ewma": "smoothed value, span {n} rows",
    "dev": "deviation from the mean of the life's first {n} rows",
}
_SHOWN = 12
"""Features and readings that are shown; all are in the JSON."""


def in_words(account: Account) -> str:
    """Return the account as text."""
    alert = account.alert
    out = [f"alert {alert.id}: {alert.text}"]
    ended = "" if account.returned is None else f", returned {_when(account.returned)}"
    out += [f"  raised {_when(alert.t)}, over its limit since {_when(alert.since)}{ended}"]
    out += ["", *_sameness(account)]
    if account.features:
        out += ["", "why", *(f"  {_told(f)}" for f in account.features[:3] if f.share >= 0.05)]
    if account.judgement is not None:
        out += ["", "judged", *_judged(account.judgement)]
        out += [f"  scores before: {' '.join(f'{s:.2f}' for _, s in account.trail[-_SHOWN:])}"]
    if account.model is not None and account.judgement is not None:
        out += ["", "by", *_by(account.model, account.judgement)]
        digests = f"digest {account.class_digest}, features {account.features_digest}"
        out.append(f"  class {account.asset_class}, {digests}")
    if account.features:
        out += ["", *_table(account.features)]
    if account.judgement is not None:
        out += ["", "data quality before it", *_quality(account)]
    if account.readings is not None and account.readings.t:
        out += ["", *_rows(account)]
    for burst in account.bursts:
        out += ["", *_burst(burst, alert.t)]
    return "\n".join(out)


def _sameness(account: Account) -> list[str]:
    if account.same is None:
        return [f"it cannot be recomputed: {account.lost}"]
    how = "kept when it was raised" if account.kept else "read from checkpoint and journal"
    told = f"from batch {account.base} over {account.batches} batches ({how})"
    lines = [f"recomputed {told}: the same to the last bit"]
    if not account.same:
        lines = [f"recomputed {told}: NOT THE SAME", *(f"  {d}" for d in account.differences)]
    if account.drift:
        lines += ["numbers behind it that differ, at most by:"]
        lines += [f"  {name}: {by:.3g} of its value" for name, by in account.drift.items()]
    if account.then != account.now and account.then is not None and account.now is not None:
        lines += [f"  then: {_software(account.then)}", f"  now:  {_software(account.now)}"]
    return lines


def _software(of: Software) -> str:
    return ", ".join(f"{key} {value}" for key, value in msgspec.structs.asdict(of).items())


def _told(feature: Feature) -> str:
    """Say one feature as a technician would."""
    if feature.value is None or feature.mean is None or feature.sigmas is None:
        return f"{feature.channel}: {describe(feature.stat)} was not measured"
    unit = f" {feature.unit}" if feature.unit not in {"", "1"} else ""
    way = "above" if feature.sigmas > 0 else "below"
    spread = "" if feature.sd is None else f" ± {feature.sd:.4g}"
    return (
        f"{feature.channel}: {describe(feature.stat)} is {feature.value:.4g}{unit}, "
        f"{abs(feature.sigmas):.1f} standard deviations {way} this machine's own beginning "
        f"({feature.mean:.4g}{spread}{unit}); {feature.share:.0%} of the score"
    )


def describe(stat: str) -> str:
    """Return what a statistic is.

    >>> describe("mean_4"), describe("last"), describe("own_function")
    ('mean of the last 4 rows', 'newest value', "function 'own_function'")
    """
    kind, _, digits = stat.partition("_")
    if kind in _KINDS and digits.isdigit():
        return _KINDS[kind].format(n=digits)
    return {"last": "newest value", "mean_all": "mean of this life"}.get(stat, f"function {stat!r}")


def _judged(of: Judgement) -> list[str]:
    weight = f"smoothed, weight of the newest {of.smoothing:g}"
    after = f"after {of.on_delay} vectors in a row above it"
    alone = f"this vector alone {of.raw:.4g} on the model's scale"
    lines = [f"  score {of.score:.4g} times the limit ({weight}); {alone}"]
    lines.append(f"  limit {of.limit:.4g} on that scale: {_limit(of)}")
    lines.append(f"  raised {after}, returns after {of.off_delay} below 0.8 of it")
    if of.alert_rul_h:
        lines.append(f"  raised, too, with less than {of.alert_rul_h:g} h left")
    if of.regimes > 1:
        lines.append(f"  in operating regime {of.regime + 1} of {of.regimes}")
    return lines


def _limit(of: Judgement) -> str:
    rate = f"alarm_rate {of.alarm_rate:g}"
    if of.healthy_scores < of.needed:
        return (
            f"the model's own, for {rate}; {of.healthy_scores} healthy scores, it is corrected by "
            f"them from {of.needed:.0f} on"
        )
    if of.limit == 1.0:
        return f"the model's own: of {of.healthy_scores} healthy scores fewer than {rate} exceed it"
    return f"of {of.healthy_scores} healthy scores a share of {rate} exceeds it"


def _by(of: Model, judged: Judgement) -> list[str]:
    own = f"the device's own model, of {judged.solved} healthy vectors ({judged.vectors} learnt)"
    if of.version:
        what = f"release {of.version}, of {of.contributors} nodes, digest {of.digest}"
        lines = [f"  {what}" if of.judges_health else f"  {own}, beside {what}"]
    else:
        lines = [f"  {own}"]
    if not of.rul:
        return [*lines, "  remaining life: no model of it yet"]
    whose = f"release {of.version}" if of.rul_from_release else f"{of.rul_lives} lives seen here"
    left = "not known" if of.rul_h is None else f"{of.rul_h:.1f} h"
    if of.rul_low_h is not None and of.rul_high_h is not None:
        left += f" ({of.rul_low_h:.1f} to {of.rul_high_h:.1f} h)"
    error = "" if of.rul_error_h is None else f", error on held-out lives {of.rul_error_h:.1f} h"
    return [*lines, f"  remaining life: {left} by {of.rul} of {whose}{error}"]


def _table(features: list[Feature]) -> list[str]:
    names = [f"{f.channel}.{f.stat}" for f in features]
    width = max(len(name) for name in [*names[:_SHOWN], "feature"])
    lines = [f"{'feature':{width}}      value   beginning         sd   sigmas  share"]
    for name, f in list(zip(names, features, strict=True))[:_SHOWN]:
        numbers = f"{_cell(f.value)} {_cell(f.mean, 11)} {_cell(f.sd)} {_cell(f.sigmas, 8, 2)}"
        lines.append(f"{name:{width}} {numbers}  {f.share:4.0%}  {f.unit}".rstrip())
    if len(features) > _SHOWN:
        lines.append(f"and {len(features) - _SHOWN} more with less")
    return lines


def _cell(value: float | None, width: int = 10, digits: int = -1) -> str:
    if value is None:
        return " " * (width - 1) + "-"
    return f"{value:{width}.{digits}f}" if digits >= 0 else f"{value:{width}.5g}"


def _quality(account: Account) -> list[str]:
    found = [f"  {_when(t)}  {mark}" for t, mark in account.marks[-_SHOWN:]]
    if account.lacks:
        found.append(f"  judged without {', '.join(account.lacks)}: nothing came of them")
    return found or ["  nothing was marked"]


def _rows(account: Account) -> list[str]:
    readings: Readings | None = account.readings
    if readings is None:
        return []
    strongest = dict.fromkeys(f.channel for f in account.features if f.share > 0)
    shown = [name for name in strongest if name in readings.channels][:6]
    shown = shown or readings.channels[:6]
    at = [readings.channels.index(name) for name in shown]
    heads = [f"{n} {readings.units[i]}".strip() for n, i in zip(shown, at, strict=True)]
    lines = [f"{'readings before it':24} " + "  ".join(f"{h:>12}" for h in heads)]
    for t, row in list(zip(readings.t, readings.values, strict=True))[-_SHOWN:]:
        cells = [_cell(row[i], max(12, len(h))) for i, h in zip(at, heads, strict=True)]
        lines.append(f"{_when(t):24} " + "  ".join(cells))
    return lines


def _burst(of: Shown, t: float) -> list[str]:
    side = "before the alert" if of.t <= t else "after it"
    lines = [
        f"burst of {of.wave}, {_when(of.t)}, {side}: {of.samples} samples at {of.rate_hz:g} Hz"
    ]
    if of.bad:
        return [*lines, f"  bad: {of.bad}"]
    known = [f"{name} {value:.4g}" for name, value in of.features.items() if value is not None]
    if known:
        lines.append("  " + ", ".join(known))
    peaks = ", ".join(f"{line.amplitude:.3g} {of.unit} at {line.hz:.1f} Hz" for line in of.lines)
    return [*lines, f"  largest lines: {peaks}"] if peaks else lines


def _when(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

"""Alerts in words, as a technician would say them."""

from datetime import UTC, datetime

import msgspec

from contract.report import Alert, Health, Why
from contract.spec import AssetClass
from contract.wording import WAVES

_STATS = {
    "mean": "mean",
    "std": "standard deviation",
    "rms": "rms",
    "min": "minimum",
    "max": "maximum",
    "peak": "peak",
    "crest": "crest factor",
    "skew": "skewness",
    "kurt": "kurtosis",
    "slope": "slope",
    "ewma": "smoothed mean",
}


def in_words(alert: Alert, spec: AssetClass, remark: str = "") -> Alert:
    """Return the alert with its text: ``remark`` ends it, and the id that people are asked for.

    >>> from contract.spec import Channel
    >>> spec = AssetClass("pump", (Channel("vibration", "mm/s"),))
    >>> alert = Alert("pump-3/0/1", "pump-3", "raised", 1767225660, 1767225600, 2.04, 31.0, 0,
    ...               (Why("vibration", 0.8, "mean_16", 6.3),), "")
    >>> in_words(alert, spec).text[:68]
    'pump-3: 2.0 times the limit since 2026-01-01 00:00 UTC: vibration hi'
    >>> in_words(alert, spec).text[56:]
    'vibration high (mean over 16 rows, 6.3 times its usual spread); about 31 h left [pump-3/0/1]'
    """
    text = f"{alert.asset}: {_text(alert, spec)}"
    if remark:
        text += f" ({remark})"
    if (alert.state != "normal" or alert.event) and not alert.id.endswith("/0"):
        text += f" [{alert.id}]"
    return msgspec.structs.replace(alert, text=text)


def _text(alert: Alert, spec: AssetClass) -> str:
    if alert.event:
        return f"{alert.event}: alert closed"
    match alert.state:
        case "returned":
            # A person's answer ends what was latched; else the machine came back by itself.
            owed = "" if alert.now != "returned" else "; not acknowledged yet"
            return f"back within its limit{owed}"
        case "latched":
            return "back within its limit; held until it is acknowledged"
        case "shelved":
            hidden = f"; {_standing(alert, spec)}" if _over(alert, spec) else ""
            return f"shelved until {_when(alert.until or 0.0)}{hidden}"
        case "normal":
            return "no alert"
    return f"{_LEADS.get(alert.state, '')}{_standing(alert, spec)}"


_LEADS = {
    "escalated": "worse: ",
    "acknowledged": "acknowledged: ",
    "unshelved": "shelved no longer: ",
}


def _over(alert: Alert, spec: AssetClass) -> bool:
    return alert.score >= 1.0 or (alert.rul_h is not None and alert.rul_h < spec.alert_rul_h)


def _standing(alert: Alert, spec: AssetClass) -> str:
    failing = "failing, " if alert.severity == "failing" else ""
    since = _when(alert.since)
    if alert.score >= 1.0:
        what = f"{alert.score:.1f} times the limit since {since}"
    elif _over(alert, spec):
        what = f"near the end of its life since {since}"
    else:
        what = f"over its limit since {since}, {alert.score:.1f} times the limit now"
    parts = ", ".join(reason(why, spec) for why in alert.why)
    left = "" if alert.rul_h is None else f"; about {alert.rul_h:.0f} h left{within(alert, spec)}"
    like = ""
    if alert.faults:
        like = f"; looks like {alert.faults[0].kind} ({alert.faults[0].share:.0%})"
    return f"{failing}{what}{f': {parts}' if parts else ''}{like}{left}"


def within(told: Alert | Health, spec: AssetClass) -> str:
    """Say between which hours the truth lies, behind the hours left; empty: it is not known.

    >>> from contract.spec import Channel
    >>> spec = AssetClass("pump", (Channel("vibration", "mm/s"),), cap_h=125.0)
    >>> alert = Alert("p/0/1", "p", "raised", 0, 0, 2.0, 31.0, 0, (), "", rul_low_h=20.4,
    ...               rul_high_h=45.0)
    >>> within(alert, spec)
    ' (20 to 45)'
    >>> within(msgspec.structs.replace(alert, rul_high_h=125.0), spec)
    ' (at least 20)'
    """
    if told.rul_low_h is None or told.rul_high_h is None:
        return ""
    if told.rul_high_h >= spec.cap_h:  # the cap stands for it and all above
        return f" (at least {told.rul_low_h:.0f})"
    return f" ({told.rul_low_h:.0f} to {told.rul_high_h:.0f})"


def reason(why: Why, spec: AssetClass) -> str:
    """Say one channel's part in a score.

    >>> from contract.spec import Channel
    >>> spec = AssetClass("pump", (Channel("flow", "m3/h"),))
    >>> reason(Why("flow", 0.5, "slope_8", -4.0), spec)
    'flow falling (slope over 8 rows, 4.0 times its usual spread)'
    >>> reason(Why("efficiency", 0.5, "efficiency", -4.0), spec)
    'efficiency low (4.0 times its usual spread)'
    """
    stat = "" if why.feature == why.channel else f"{_stat(why.feature)}, "
    usual = "its usual spread in this regime" if spec.regimes else "its usual spread"
    times = f"{stat}{abs(why.sigmas):.1f} times {usual}"
    return f"{_channel(why.channel, spec)} {_direction(why)} ({times})"


def _channel(name: str, spec: AssetClass) -> str:
    for wave in spec.waveforms:
        feature = name.removeprefix(f"{wave.name}.")
        if feature != name and feature in wave.features:
            if feature.startswith("band_"):
                _, low, high = feature.split("_")
                return f"band from {low} to {high} Hz of {wave.name}"
            return f"{WAVES.get(feature, feature)} of {wave.name}"
    return name


def _stat(feature: str) -> str:
    kind, _, rows = feature.partition("_")
    if feature == "last":
        return "newest value"
    if feature == "mean_all":
        return "mean over its life"
    if kind == "dev":
        return f"against its first {rows} rows"
    return f"{_STATS[kind]} over {rows} rows" if kind in _STATS else feature


def _direction(why: Why) -> str:
    kind = why.feature.partition("_")[0] if why.feature != why.channel else ""
    up = why.sigmas > 0
    if kind == "std":
        return "unsteady" if up else "unusually steady"
    if kind in {"slope", "dev"}:
        return "rising" if up else "falling"
    return "high" if up else "low"


def _when(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M UTC")

"""What the page says, in the words of a technician."""

from datetime import UTC, datetime

from contract.report import Drifted, Health, NodeConfig, Why
from contract.spec import WAVE_FEATURE
from contract.wording import WAVES

DAY_S = 86_400.0

STATES = {
    "failing": "failing",
    "degraded": "degraded",
    "healthy": "healthy",
    "learning": "learning",
    "stale": "no data",
    "": "no report yet",
}
ALERTS = {
    "normal": "no alert",
    "unacknowledged": "new alert",
    "acknowledged": "acknowledged",
    "returned": "over, not acknowledged",
    "latched": "over, held",
    "shelved": "shelved",
}
CHANGES = {
    "raised": "raised",
    "escalated": "got worse",
    "unacknowledged": "not acknowledged",
    "acknowledged": "acknowledged",
    "returned": "over by itself",
    "latched": "over, held until acknowledged",
    "shelved": "shelved",
    "unshelved": "shelved no longer",
    "normal": "closed",
}
VERDICTS = {
    "confirmed": "there was a fault",
    "false_alarm": "a false alarm",
    "not_found": "nothing was found",
}
_STATS = {
    "mean": "mean",
    "std": "spread",
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
_UP = {"std": "more unsteady", "slope": "rising", "dev": "rising"}
_DOWN = {"std": "steadier", "slope": "falling", "dev": "falling"}
_CHANGES = {"up": "higher", "down": "lower", "wider": "less steady", "narrower": "steadier"}
_DRIFTS = {
    "sensor": "one sensor alone drifts: look at the sensor before the machine",
    "machine": "several sensors drift: the machine, or what it works on",
    "score": "its score drifts, by no single channel",
    "unknown": "its only sensor drifts: the sensor or the machine",
    "": "",
}


def count(number: float, word: str) -> str:
    """Return how many.

    >>> count(1, "machine"), count(12345, "machine")
    ('1 machine', '12,345 machines')
    """
    return f"{number:,.0f} {word}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """Return a duration.

    >>> [span(s) for s in (3, 89, 600, 7200, 300000)]
    ['3 s', '89 s', '10 min', '2 h', '3 days']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * DAY_S:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / DAY_S:.0f} days"


def ago(seconds: float) -> str:
    """Return how long ago.

    >>> ago(1.0), ago(700)
    ('just now', '12 min ago')
    """
    return "just now" if seconds < 10 else f"{span(seconds)} ago"


def moment(t: float) -> str:
    """Return a time.

    >>> moment(1767225600)
    '1 Jan 2026, 00:00 UTC'
    """
    when = datetime.fromtimestamp(t, UTC)
    return f"{when.day} {when:%b %Y, %H:%M} UTC"


def hours(number: float) -> str:
    """Return hours, exact where it matters.

    >>> hours(3.24), hours(41.8)
    ('3.2', '42')
    """
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def left(rul_h: float | None, low_h: float | None, high_h: float | None) -> tuple[str, str]:
    """Return the hours left, and between what they lie; empty: not known.

    >>> left(40.0, 31.5, 52.0)
    ('40 h', '32 to 52 h')
    """
    if rul_h is None:
        return "", ""
    between = "" if low_h is None or high_h is None else f"{hours(low_h)} to {hours(high_h)} h"
    return f"{hours(rul_h)} h", between


def reason(why: Why, config: NodeConfig | None) -> tuple[str, str]:
    """Return what speaks against a machine, and what that rests on.

    >>> reason(Why("vibration", 0.8, "mean_16", 6.3), None)[0]
    'vibration is higher than usual'
    >>> reason(Why("vibration", 0.8, "mean_16", 6.3), None)[1]
    'its mean over 16 readings is 6.3 times its usual spread above where it began'
    >>> reason(Why("flow", 0.5, "std_8", -2.0), None)[0]
    'flow is steadier than usual'
    """
    kind = why.feature.partition("_")[0]
    up = why.sigmas > 0
    how = (_UP if up else _DOWN).get(kind, "higher" if up else "lower")
    unit = unit_of(why.channel, config)
    name = f"{channel(why.channel)}{f' ({unit})' if unit else ''}"
    usual = "" if how in {"rising", "falling"} else " than usual"
    side = "above" if up else "below"
    detail = f"its {statistic(why.channel, why.feature)} is {abs(why.sigmas):.1f} times its usual"
    return f"{name} is {how}{usual}", f"{detail} spread {side} where it began"


def channel(name: str) -> str:
    """Return the name of a channel; one made of bursts is called by what it is.

    >>> channel("flow"), channel("accel.bpfo"), channel("accel.rms"), channel("line.3")
    ('flow', 'outer-race bearing line of accel', 'rms of accel', 'line.3')
    """
    wave, _, what = name.rpartition(".")
    if not wave or not WAVE_FEATURE.fullmatch(what):
        return name
    return f"{WAVES.get(what, what)} of {wave}"


def statistic(channel: str, feature: str) -> str:
    """Return what is made of a channel's readings.

    >>> statistic("flow", "std_8"), statistic("flow", "last"), statistic("flow", "dev_16")
    ('spread over 8 readings', 'newest value', 'difference from its first 16 readings')
    """
    kind, _, rows = feature.partition("_")
    if feature in {channel, "last"}:
        return "newest value"
    if kind == "dev":
        return f"difference from its first {rows} readings"
    stat = _STATS.get(kind, feature.replace("_", " "))
    return f"{stat} over {rows} readings" if kind in _STATS and rows.isdecimal() else stat


def feature(name: str, config: NodeConfig | None) -> tuple[str, str]:
    """Return the name of a feature, and the unit of its values; empty: none is known.

    >>> feature("vibration mean_6", None)
    ('vibration, mean over 6 readings', '')
    """
    of, _, what = name.partition(" ")
    unit = unit_of(of, config)
    has_unit = unit and what.partition("_")[0] not in {"skew", "kurt", "crest", "slope"}
    return f"{channel(of)}, {statistic(of, what)}", unit if has_unit else ""


def unit_of(channel: str, config: NodeConfig | None) -> str:
    """Return the unit of a channel, as its device says it; empty: it does not."""
    if config is None:
        return ""
    named = (one for spec in config.classes for one in spec.channels if one.name == channel)
    return next((one.unit for one in named), "")


def drift(report: Health) -> list[str]:
    """Return what drifts, in sentences; empty: nothing."""
    if not report.drift:
        return []

    def said(one: Drifted) -> str:
        return f"{one.channel or 'the score'} {_CHANGES[one.change]}"

    return [
        f"against its own beginning: {', '.join(map(said, report.drift))}",
        *filter(None, [_DRIFTS[report.drift_of]]),
    ]

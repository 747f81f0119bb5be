"""The alert of an asset: raised when its score stays over its limit, and what people do about it.

States after ISA-18.2 (IEC 62682): normal, unacknowledged, acknowledged, returned (to normal and
unacknowledged), latched, shelved. Time comes from the data and from the commands alone.
Out of scope: suppression by design and out of service, which need to know of the plant what this
device does not; stop the asset's readings in their place.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np

from agent.health import index
from agent.prognosis import Interval
from agent.wording import in_words
from contract.report import (
    Alert,
    AlertState,
    AlertWord,
    LifeWord,
    Likely,
    VerdictWord,
    Why,
)
from contract.spec import AssetClass

RETURN_AT = 0.8
"""Share of the limit below which an alert ends: hysteresis."""
FAILING = 0.25
"""Health below which a degraded machine is failing."""
PAST = 16
"""Alerts remembered, for verdicts that come late."""

_VERDICTS: tuple[VerdictWord | Literal[""], ...] = ("", *get_args(VerdictWord))


class Span(NamedTuple):
    """From when to when an alert stood.

    Attributes:
        number: of the alert, in the order in which the asset's were raised.
        life: in which it was raised.
        since_ns: the score went over the limit, and stayed.
        until_ns: it was over; of one that stands the newest vector.
    """

    number: int
    life: int
    since_ns: int
    until_ns: int


class AssetAlert:
    """The alert of one asset: a condition that comes and goes, and what is owed to it.

    Attributes:
        active: whether the condition stands: over the limit, with delays and hysteresis.
    """

    def __init__(self, spec: AssetClass) -> None:
        self._spec = spec
        self._count = 0
        self._life = 0
        self._newest_ns = 0
        self._past = np.zeros((PAST, 4), dtype=np.int64)
        """Count, life, begin and end of each alert, at its count modulo their number."""
        self._since_ns = 0
        self._failing = False
        self._verdict = 0
        self._reset()

    def _reset(self) -> None:
        self.active = False
        self._run = 0
        self._began_ns = 0
        """When the score went over the limit, whether or not that became an alert."""
        self._owed = False
        """An acknowledgement is owed."""
        self._told = False
        """It was told that the alert is there; what comes while it is shelved is not."""
        self._until_ns = 0
        """Shelved up to here; 0: it is not."""
        self._score, self._rul_h = 0.0, np.nan

    @property
    def number(self) -> int:
        """Return the number of the newest alert; 0: there never was one."""
        return self._count

    @property
    def suspects(self) -> bool:
        """Return whether what comes may be of a fault, and must not be learnt as healthy.

        While the alert stands; where learning never ends, until somebody has answered it: a fault
        comes and goes before it stays, and would be learnt bit by bit.
        """
        return self.active or (self._owed and self._spec.health.memory > 0)

    @property
    def state(self) -> AlertState:
        """Return the state in the standard's words."""
        if self._until_ns:
            return "shelved"
        if self.active:
            return "unacknowledged" if self._owed else "acknowledged"
        if not self._owed:
            return "normal"
        return "latched" if self._spec.latch else "returned"

    # -- by the data ------------------------------------------------------------------------------

    def push(
        self, t_ns: int, score: float, rul_h: float | None, life: int = 0
    ) -> AlertWord | Literal[""]:
        """Take one score and what is left; return the change of state it makes."""
        self._newest_ns, self._life = t_ns, life
        self._score, self._rul_h = score, np.nan if rul_h is None else rul_h
        over = score >= 1.0 or (rul_h is not None and rul_h < self._spec.alert_rul_h)
        change = self._stand(rul_h, over=over) if self.active else self._rise(rul_h, over=over)
        if not self._until_ns:
            return change
        return self.expire(t_ns)  # what changed while it was shelved is not told

    def _rise(self, rul_h: float | None, *, over: bool) -> AlertWord | Literal[""]:
        if not over:
            self._run = 0
            return ""
        if self._run == 0:
            self._began_ns = self._newest_ns
        self._run += 1
        if self._run < self._spec.health.on_delay:
            return ""
        self.active, self._run = True, 0
        self._count += 1
        self._since_ns, self._owed, self._verdict = self._began_ns, True, 0
        self._failing = self._is_failing(rul_h)
        self._past[self._count % PAST] = self._count, self._life, self._since_ns, 0
        self._told = not self._until_ns
        return "raised"

    def _stand(self, rul_h: float | None, *, over: bool) -> AlertWord | Literal[""]:
        ended = self._score < RETURN_AT and not over
        self._run = self._run + 1 if ended else 0
        if self._run >= self._spec.health.off_delay:
            self._end(self._newest_ns)
            return "latched" if self.state == "latched" else "returned"
        if over and not self._failing and self._is_failing(rul_h):
            self._failing = self._owed = True  # what is worse than acknowledged is not acknowledged
            return "escalated"
        return ""

    def _is_failing(self, rul_h: float | None) -> bool:
        return index(self._score, rul_h, self._spec.cap_h) < FAILING

    def _end(self, t_ns: int) -> None:
        self.active, self._run = False, 0
        self._past[self._count % PAST, 3] = t_ns

    def expire(self, t_ns: int) -> AlertWord | Literal[""]:
        """Let time pass; return the change of state where that ends a shelving."""
        if not self._until_ns or t_ns < self._until_ns:
            return ""
        return self._unshelve()

    def begin_anew(self, t_ns: int) -> None:
        """Let time go on from here, where it was set back to; what is shelved stays as long."""
        back_ns = self._newest_ns - t_ns
        if back_ns <= 0:
            return
        if self._until_ns:
            self._until_ns -= back_ns
        self._newest_ns = t_ns
        self._began_ns = min(self._began_ns, t_ns)
        if self.active:
            self._since_ns = min(self._since_ns, t_ns)
            self._past[self._count % PAST, 2] = self._since_ns

    def _unshelve(self) -> AlertWord:
        self._until_ns = 0
        if self.active:
            # Whatever was known before: who shelved it did so to hear of it again.
            self._owed = True
            told, self._told = self._told, True
            return "unshelved" if told else "raised"
        if self.state == "latched":
            self._told = True
            return "latched"
        self._owed = False
        return "normal"

    # -- by people --------------------------------------------------------------------------------

    def acknowledge(self) -> AlertWord:
        """Take note that somebody knows; of an alert that is shelved it changes nothing."""
        was = self.state
        if was == "shelved":
            return was
        self._owed = False
        if was == "latched":
            return "returned"
        return self.state

    def shelve(self, until_ns: int) -> AlertWord:
        """Hide it up to a time of the data."""
        self._until_ns = until_ns
        return self.expire(self._newest_ns) or "shelved"

    def unshelve(self) -> AlertWord:
        """Hide it no longer."""
        return self._unshelve() if self._until_ns else self.state

    def judge(self, verdict: VerdictWord) -> AlertWord:
        """Take what was found of the newest alert: who looked into it knows of it."""
        if self._count:
            self._verdict = _VERDICTS.index(verdict)
        return self.acknowledge()

    def end(self, t_ns: int) -> bool:
        """End the alert with the life; return whether there was something to close.

        Who tells of it has seen to the machine: nothing is owed or hidden any more.
        """
        was = self.state
        if self.active:
            self._end(t_ns)
        self._reset()
        return was != "normal"

    def span(self, number: int = 0) -> Span | None:
        """Return when an alert stood; 0: the newest. None: it is not remembered."""
        number = number or self._count
        own, life, since, until = (int(v) for v in self._past[number % PAST])
        return Span(own, life, since, until or self._newest_ns) if own == number > 0 else None

    # -- what is told -----------------------------------------------------------------------------

    @property
    def newest(self) -> tuple[float, float | None]:
        """Return the newest score of this life, and the hours left then."""
        return self._score, None if np.isnan(self._rul_h) else float(self._rul_h)

    def id_of(self, asset: str, span: Span | None = None) -> str:
        """Return the id of an alert, or of the newest; ``count`` 0: there never was one."""
        span = span or self.span()
        return f"{asset}/{self._life}/0" if span is None else f"{asset}/{span.life}/{span.number}"

    def find(self, asset: str, alert: str) -> Span | None:
        """Return when an alert stood, by its id; empty: the newest. None: it is not known."""
        if not alert:
            return self.span()
        digits = alert.rpartition("/")[2]
        # At most the digits of a 64-bit number: who asks may ask for anything.
        span = self.span(int(digits)) if digits.isdecimal() and len(digits) < 19 else None
        return span if span and self.id_of(asset, span) == alert else None

    def report(
        self,
        asset: str,
        state: AlertWord,
        t_ns: int,
        *,
        judged_by: int,
        newest: tuple[float, float | None] | None = None,
        interval: Interval | None = None,
        reasons: tuple[Why, ...] = (),
        event: LifeWord | Literal[""] = "",
        remark: str = "",
        ref: str = "",
        faults: tuple[Likely, ...] = (),
    ) -> Alert:
        """Return the alert as it is told.

        Args:
            asset: that it is of.
            state: what changed.
            t_ns: when.
            judged_by: release that judged.
            newest: score and hours left, where they are not the newest of this life.
            interval: round the hours left, where there is one.
            reasons: the channels behind it.
            event: that closed it.
            remark: at the end of the text.
            ref: of what it answers.
            faults: that it looks like.
        """
        score, rul_h = newest or self.newest
        low_h = high_h = None
        if rul_h is not None and interval is not None:
            low_h, high_h = interval.around(rul_h)
        alert = Alert(
            id=self.id_of(asset),
            asset=asset,
            state=state,
            t=t_ns / 1e9,
            since=self._since_ns / 1e9,
            score=round(score, 4),
            rul_h=_rounded(rul_h),
            judged_by=judged_by,
            why=reasons,
            text="",
            now=self.state,
            severity="failing" if self._failing else "degraded",
            until=self._until_ns / 1e9 if self._until_ns else None,
            verdict=_VERDICTS[self._verdict],
            ref=ref,
            rul_low_h=_rounded(low_h),
            rul_high_h=_rounded(high_h),
            event=event,
            faults=faults,
        )
        return in_words(alert, self._spec, remark)

    # -- state ------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        own = [self._count, self._life, self.active, self._run, self._began_ns, self._since_ns]
        own += [self._newest_ns, self._owed, self._told, self._until_ns, self._failing]
        return {
            "alert": np.array([*own, self._verdict], dtype=np.int64),
            "alert/newest": np.array([self._score, self._rul_h]),
            "alert/past": self._past.copy(),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        own = [int(v) for v in arrays["alert"]]
        self._count, self._life, active, self._run, self._began_ns, self._since_ns = own[:6]
        self._newest_ns, owed, told, self._until_ns, failing, self._verdict = own[6:]
        self.active, self._owed, self._told = bool(active), bool(owed), bool(told)
        self._failing = bool(failing)
        self._score, self._rul_h = (float(v) for v in arrays["alert/newest"])
        self._past = np.array(arrays["alert/past"])


def _rounded(hours: float | None) -> float | None:
    return None if hours is None else round(hours, 4)

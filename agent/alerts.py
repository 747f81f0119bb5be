"""Alerts with delays and hysteresis: raised when a score stays over its limit, then returned.

States after ISA-18.2 (IEC 62682): raised, returned.
"""

from datetime import UTC, datetime
from typing import Literal

import numpy as np

from contract.report import Alert, Why
from contract.spec import AssetClass

RETURN_AT = 0.8
"""Share of the limit below which an alert ends: hysteresis."""


class AssetAlert:
    """The alert of one asset, over one life."""

    def __init__(self, spec: AssetClass) -> None:
        self._spec = spec
        self._count = 0
        self.reset()

    def reset(self) -> None:
        """Begin a new life; the next alert gets the next number all the same."""
        self.active = False
        self._run = 0
        self._since_ns = 0

    def push(
        self, t_ns: int, score: float, rul_h: float | None
    ) -> Literal["raised", "returned", ""]:
        """Take one score and what is left; return the change of state it makes."""
        health = self._spec.health
        over = score >= 1.0 or (rul_h is not None and rul_h < self._spec.alert_rul_h)
        if not self.active:
            if not over:
                self._run = 0
                return ""
            if self._run == 0:
                self._since_ns = t_ns
            self._run += 1
            if self._run < health.on_delay:
                return ""
            self.active, self._run = True, 0
            self._count += 1
            return "raised"
        ended = score < RETURN_AT and not over
        self._run = self._run + 1 if ended else 0
        if self._run < health.off_delay:
            return ""
        self.active, self._run = False, 0
        return "returned"

    def end(self) -> bool:
        """End the alert with the life; returns whether there was one."""
        was = self.active
        self.reset()
        return was

    def report(
        self,
        asset: str,
        life: int,
        state: Literal["raised", "returned"],
        t_ns: int,
        *,
        score: float,
        rul_h: float | None,
        judged_by: int,
        reasons: tuple[Why, ...],
    ) -> Alert:
        """Return the alert as it is told."""
        since = self._since_ns / 1e9
        return Alert(
            id=f"{asset}/{life}/{self._count}",
            asset=asset,
            state=state,
            t=t_ns / 1e9,
            since=since,
            score=round(score, 4),
            rul_h=rul_h,
            judged_by=judged_by,
            why=reasons,
            text=in_words(asset, state, since, score, rul_h, reasons),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, in arrays of fixed shape."""
        return {"alert": np.array([self._count, self.active, self._run, self._since_ns])}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what ``arrays`` returned."""
        count, active, run, since = (int(v) for v in arrays["alert"])
        self._count, self.active, self._run, self._since_ns = count, bool(active), run, since


def in_words(
    asset: str, state: str, since: float, score: float, rul_h: float | None, why: tuple[Why, ...]
) -> str:
    """Say an alert as a technician would.

    >>> in_words("pump-3", "raised", 1767225600, 2.04, 31.0,
    ...          (Why("vibration", 0.8, "mean_16", 6.3),))
    'pump-3: 2.0 times the limit since 2026-01-01 00:00 UTC: vibration high; about 31 h left'
    """
    if state == "returned":
        return f"{asset}: back within its limit"
    when = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = ", ".join(f"{w.channel} {_direction(w)}" for w in why)
    left = "" if rul_h is None else f"; about {rul_h:.0f} h left"
    reasons = f": {parts}" if parts else ""
    return f"{asset}: {score:.1f} times the limit since {when}{reasons}{left}"


def _direction(why: Why) -> str:
    kind = why.feature.partition("_")[0]
    up = why.sigmas > 0
    if kind == "std":
        return "unsteady" if up else "unusually steady"
    if kind in {"slope", "dev"}:
        return "rising" if up else "falling"
    return "high" if up else "low"

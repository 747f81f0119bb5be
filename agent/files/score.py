"""What alerts and remaining lives are worth, where a recording says what was true: back-testing."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.report import Alert, Health

Integers = NDArray[np.int64]

CAP = 125.0
"""Cycles up to which remaining lives are told apart, by convention (Heimes 2008)."""
MONTH_S = 30 * 86_400
DELAYS = 10_000
"""Delays kept, for their median."""
_NEVER = -(2**63)


@dataclass(slots=True)
class Tally:
    """Counts of one asset, or of all.

    A row is judged once the asset's beginning is known, and positive while an alert is active. A
    fault is a run of faulty rows, found if an alert is active in one of them; an alert is true if
    it is active in a faulty row.
    """

    rows: int = 0
    """Judged."""
    learning: int = 0
    """Rows before the asset could be judged."""
    both: int = 0
    """Faulty and in alert: true positives."""
    faulty: int = 0
    alarmed: int = 0
    faults: int = 0
    found: int = 0
    alerts: int = 0
    true_alerts: int = 0
    healthy_s: float = 0.0
    """Time of the judged rows that are not faulty."""
    delays_s: deque[float] = field(default_factory=lambda: deque(maxlen=DELAYS))
    """From a fault's first row to the alert."""

    def add(self, other: "Tally") -> None:
        """Add the counts of another asset."""
        for name in (
            "rows", "learning", "both", "faulty", "alarmed", "faults", "found", "alerts",
            "true_alerts",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.healthy_s += other.healthy_s
        self.delays_s.extend(other.delays_s)

    def in_words(self) -> list[str]:
        """Return lines for people."""
        false = self.alerts - self.true_alerts
        delay = (
            f", {np.median(self.delays_s):.0f} s after they began (median)" if self.found else ""
        )
        precision, recall = _share(self.both, self.alarmed), _share(self.both, self.faulty)
        f1 = _share(2 * self.both, self.alarmed + self.faulty)
        wrong = _share(self.alarmed - self.both, self.rows - self.faulty)
        if self.healthy_s:
            month = f"{false / self.healthy_s * MONTH_S:.1f} a machine-month"
        else:
            month = "no healthy time"
        true = _share(self.true_alerts, self.alerts)
        return [
            f"faults: {self.found} of {self.faults} found{delay}",
            f"alerts: {self.alerts}, precision {true}; false alarms: {false} ({month})",
            f"rows: precision {precision}, recall {recall}, F1 {f1}, false alarms {wrong}",
            f"  ({self.rows} rows judged; {self.learning} before their asset could be)",
        ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


class Judge:
    """Holds one asset's alerts against its labels.

    Args:
        lag_ns: an alert may be told so long, in the data's time, behind its own time.
    """

    def __init__(self, lag_ns: int) -> None:
        self.tally = Tally()
        self._lag_ns = lag_ns
        self._waiting: list[tuple[Integers, NDArray[np.bool_]]] = []
        self._changes: list[tuple[int, bool]] = []
        """Times from which an alert is active, or is not; not yet all behind the waiting rows."""
        self._judged_ns: int | None = None
        self._active = self._alarmed = self._labelled = False
        self._found = self._true = False
        self._since_ns = 0
        self._last_ns = _NEVER

    def hear(self, outcome: Health | Alert) -> None:
        """Take what was said of the asset."""
        t_ns = round(outcome.t * 1e9)
        if isinstance(outcome, Alert):
            self._changes.append((t_ns, outcome.stands))
        elif self._judged_ns is None and outcome.score is not None:
            self._judged_ns = t_ns

    def push(self, t_ns: Integers, label: NDArray[np.bool_]) -> None:
        """Take rows, after what was said at them; those that nothing more can be said of count."""
        self._waiting.append((t_ns, label))
        newest = max(int(t_ns.max()), self._last_ns)
        self._count(newest - self._lag_ns)

    def finish(self) -> Tally:
        """Count what waits, and return all."""
        self._count(None)
        return self.tally

    def _count(self, until_ns: int | None) -> None:
        if not self._waiting:
            return
        t_ns = np.concatenate([part[0] for part in self._waiting])
        label = np.concatenate([part[1] for part in self._waiting])
        ready = np.ones(len(t_ns), dtype=np.bool_) if until_ns is None else t_ns <= until_ns
        self._waiting = [] if ready.all() else [(t_ns[~ready], label[~ready])]
        self._rows(t_ns[ready], label[ready])

    def _rows(self, t_ns: Integers, label: NDArray[np.bool_]) -> None:
        # Reports bear seconds as floats: half a microsecond either way is the same row.
        judged = t_ns >= (2**63 - 1 if self._judged_ns is None else self._judged_ns - 500)
        self.tally.learning += int((~judged).sum())
        t_ns, label = t_ns[judged], label[judged]
        if not len(t_ns):
            return
        moments = np.array([at - 500 for at, _ in self._changes], dtype=np.int64)
        states = np.array([self._active, *(state for _, state in self._changes)])
        active = states[np.searchsorted(moments, t_ns, side="right")]
        done = int(np.searchsorted(moments, t_ns.max(), side="right"))
        if done:
            self._active = self._changes[done - 1][1]
            del self._changes[:done]
        self._add(t_ns, label, active)

    def _add(self, t_ns: Integers, label: NDArray[np.bool_], active: NDArray[np.bool_]) -> None:
        tally = self.tally
        tally.rows += len(t_ns)
        tally.both += int((label & active).sum())
        tally.faulty += int(label.sum())
        tally.alarmed += int(active.sum())
        before = t_ns[:1] if self._last_ns == _NEVER else np.array([self._last_ns])
        steps = np.maximum(np.diff(t_ns, prepend=before), 0)
        tally.healthy_s += float(steps[~label].sum()) / 1e9
        self._last_ns = int(t_ns[-1])
        both = label * 2 + active
        starts = [0, *(np.flatnonzero(np.diff(both)) + 1).tolist()]
        for i in starts:
            self._turn(int(t_ns[i]), bool(label[i]), alarmed=bool(active[i]))

    def _turn(self, t_ns: int, faulty: bool, *, alarmed: bool) -> None:
        tally = self.tally
        if faulty and not self._labelled:
            tally.faults += 1
            self._since_ns, self._found = t_ns, False
        if alarmed and not self._alarmed:
            tally.alerts += 1
            self._true = False
        if faulty and alarmed:
            if not self._found:
                tally.found += 1
                tally.delays_s.append((t_ns - self._since_ns) / 1e9)
            if not self._true:
                tally.true_alerts += 1
            self._found = self._true = True
        self._labelled, self._alarmed = faulty, alarmed


@dataclass(frozen=True, slots=True)
class RulScore:
    """Errors of the remaining lives told at the end of recordings that were cut off.

    Attributes:
        told: assets of which one was told.
        asked: assets.
        rmse: with labels and predictions capped at 125 cycles.
        rmse_raw: with neither capped.
        phm08: the score of the PHM 2008 challenge (Saxena et al. 2008), capped as ``rmse``.
        phm08_raw: the same, with neither capped.
    """

    told: int
    asked: int
    rmse: float
    rmse_raw: float
    phm08: float
    phm08_raw: float

    def in_words(self) -> list[str]:
        """Return lines for people."""
        if not self.told:
            return ["remaining life: no model told one (no [[asset_class.rul]], or no life ended)"]
        line = (
            f"remaining life of {self.told} of {self.asked} assets, in rows: "
            f"RMSE {self.rmse:.2f} capped at {CAP:g}, {self.rmse_raw:.2f} raw; "
            f"PHM08 {self.phm08:.0f} capped, {self.phm08_raw:.0f} raw"
        )
        return [line]


def rul_score(told: Sequence[float | None], true: Sequence[float]) -> RulScore:
    """Compare remaining lives in cycles; None: none was told.

    >>> rul_score([20.0, None, 140.0], [10.0, 5.0, 130.0]).rmse.__round__(3)
    7.071
    """
    known = [(p, t) for p, t in zip(told, true, strict=True) if p is not None]
    if not known:
        return RulScore(0, len(told), math.nan, math.nan, math.nan, math.nan)
    predicted, actual = (np.array(part) for part in zip(*known, strict=True))
    capped = np.minimum(predicted, CAP), np.minimum(actual, CAP)
    return RulScore(
        len(known), len(told), _rmse(*capped), _rmse(predicted, actual),
        phm08(*capped), phm08(predicted, actual),
    )  # fmt: skip


def _rmse(predicted: Floats, true: Floats) -> float:
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def phm08(predicted: Floats, true: Floats) -> float:
    """Return the score of the PHM 2008 challenge (Saxena et al. 2008): late is worse than early.

    >>> round(phm08(np.array([0.0, 20.0]), np.array([13.0, 10.0])), 3)
    3.437
    """
    d = predicted - true
    return float(np.where(d < 0, np.exp(-d / 13.0) - 1.0, np.exp(d / 10.0) - 1.0).sum())

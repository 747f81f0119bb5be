"""When a training is due before its time: nodes ask for one, or there is much that is new.

A node asks when what people found, or what came, has crossed a bound of its configuration
(``learning.bounds``): precision, recall, false alarms, error of remaining life, drift. The same
wish is heard once: it is asked again when its words change.
"""

import logging

from contract.update import Readiness
from server import readiness
from server.training import Training

log = logging.getLogger("runout.server")

ANSWER_S = 60.0
"""A node that has not answered by then is asked the next time."""


class Wishes:
    """What the nodes ask for, asked every ``ask_s`` seconds."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._heard: dict[str, tuple[str, ...]] = {}
        self._next_s = training.fleet.clock() + training.settings.ask_s

    def reason(self, online: list[int]) -> str:
        """Return why a training is due now; empty: it is not, or it is not time to ask."""
        training = self._training
        settings, fleet, cohort = training.settings, training.fleet, training.cohort
        if not settings.ask_s or cohort is None or fleet.clock() < self._next_s:
            return ""
        self._next_s = fleet.clock() + settings.ask_s
        answers = readiness.ask(fleet, online, min(ANSWER_S, settings.deadline_s), settings.quorum)
        wishes: list[str] = []
        lives = 0
        for _, told in sorted(answers.told.items()):
            wishes += self._wish(told, cohort.registry.asset_class)
            known = told.classes.get(cohort.registry.asset_class)
            lives += known.lives if known is not None else 0
        current = cohort.registry.current()
        learnt = sum(current.manifest.lives.values()) if current is not None else 0
        if settings.new_lives and lives - learnt >= settings.new_lives:
            wishes.append(f"{lives - learnt} finished lives are new")
        return "; ".join(wishes)

    def _wish(self, told: Readiness, asset_class: str) -> list[str]:
        known = told.classes.get(asset_class)
        asked = known.quality.retrain if known is not None else ()
        before = self._heard.get(told.node, ())
        self._heard[told.node] = asked
        # Which bounds, and not by how much: figures change with every case.
        if {_bound(one) for one in asked} <= {_bound(one) for one in before}:
            return []
        return [f"{told.node}: {one}" for one in asked]


def _bound(words: str) -> str:
    """Return a wish without its numbers.

    >>> _bound("precision 0.5 is below 0.9") == _bound("precision 0.6 is below 0.9")
    True
    """
    return "".join(c for c in words if not (c.isdigit() or c in ".%"))

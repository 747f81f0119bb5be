"""From what each device measured on its held-out lives: which model judges, and how good it is."""

import math
from collections.abc import Iterable, Mapping

from contract.spec import AssetClass, rul_name

Measured = Mapping[str, float]
"""One device's metrics: ``heldout_rows`` and ``rmse/<name>``, where known."""

ROWS = "heldout_rows"
MOST_DEVICES = 200
"""Whose errors stand in the journal beside a release."""


def mean(measured: Iterable[Measured], name: str) -> float | None:
    """Return the root mean square error over all devices' held-out rows; None where unknown.

    >>> mean([{"heldout_rows": 30.0, "rmse/ridge": 3.0}, {"heldout_rows": 10.0, "rmse/ridge": 5.0}],
    ...      "ridge")
    3.605551275463989
    """
    rows = squares = 0.0
    for one in measured:
        if f"rmse/{name}" in one and one.get(ROWS, 0.0) > 0:
            rows += one[ROWS]
            squares += one[ROWS] * one[f"rmse/{name}"] ** 2
    return math.sqrt(squares / rows) if rows else None


def choose(spec: AssetClass, models: Iterable[str], measured: list[Measured]) -> str:
    """Return the candidate's model with the lowest error; without any, the class's first.

    >>> from contract.model_spec import Ridge, Sklearn
    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"),), rul=(Ridge(), Sklearn()))
    >>> choose(pump, ["ridge", "sklearn"], [{"heldout_rows": 9.0, "rmse/ridge": 3.0,
    ...                                      "rmse/sklearn": 2.0}])
    'sklearn'
    >>> choose(pump, ["ridge", "sklearn"], [])
    'ridge'
    """
    there = [name for name in (rul_name(model) for model in spec.rul) if name in set(models)]
    errors = {name: error for name in there if (error := mean(measured, name)) is not None}
    if errors:
        return min(errors, key=lambda name: errors[name])
    return there[0] if there else ""


def summary(measured: Mapping[str, Measured]) -> dict[str, float]:
    """Return the metrics of a release, from those of each node.

    ``rmse/<name>`` is over all held-out rows, ``rmse_worst/<name>`` the worst node's: the mean
    hides it. Names are the candidate's models, ``live`` (what judged until now) and ``local`` (each
    device's own model, learnt alone).
    """
    metrics = {
        "nodes": float(len(measured)),
        ROWS: sum(one.get(ROWS, 0.0) for one in measured.values()),
    }
    names = {key.removeprefix("rmse/") for one in measured.values() for key in one if "/" in key}
    for name in sorted(names):
        error = mean(measured.values(), name)
        if error is None:
            continue
        metrics[f"rmse/{name}"] = error
        metrics[f"rmse_worst/{name}"] = max(
            one[f"rmse/{name}"] for one in measured.values() if f"rmse/{name}" in one
        )
    return metrics


def each(
    measured: Mapping[str, Measured], judging: str
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Return of each device the error in hours before, after and by its own model alone.

    Of more than ``MOST_DEVICES`` those that the release serves worst. ``judging``: its model.

    >>> each({"rpi-1": {"rmse/live": 5.0, "rmse/ridge": 3.04}}, "ridge")
    {'rpi-1': (5.0, 3.04, None)}
    """

    def error(one: Measured, name: str) -> float | None:
        value = one.get(f"rmse/{name}")
        return None if value is None or not math.isfinite(value) else round(value, 3)

    found = {
        node: (error(one, "live"), error(one, judging), error(one, "local"))
        for node, one in measured.items()
    }
    told = [node for node, errors in found.items() if errors[1] is not None]
    worst = sorted(told, key=lambda node: -(found[node][1] or 0.0))[:MOST_DEVICES]
    return {node: found[node] for node in worst}


def in_words(metrics: Measured, judging: str) -> str:
    """Say in words how a release compares with what judged before and with devices alone."""
    if f"rmse/{judging}" not in metrics:
        return "no held-out lives yet: nothing measured"
    words = f"{judging} errs by {metrics[f'rmse/{judging}']:.1f} h on held-out lives"
    words += f" (worst node {metrics[f'rmse_worst/{judging}']:.1f} h)"
    others = [
        f"{name} {metrics[f'rmse/{key}']:.1f} h"
        for key, name in (("live", "what judged until now"), ("local", "devices alone"))
        if f"rmse/{key}" in metrics
    ]
    return words + (f"; {', '.join(others)}" if others else "")

"""Whose ridge sums are believed: a model is judged on every node's rows, by their sums alone.

The squared error of any linear model on the rows behind some sums is ``energy - 2 w·target +
w·gram·w``: so the server can hold each node against what most others agree on, without a row of it.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from contract.arrays import Floats
from contract.models.ridge import GramSums
from server.guard import Limits
from server.merge import Contribution

FEWEST = 4
"""Nodes below which there is no majority to speak of."""
JURY = 16
"""Nodes whose own models are compared, at most: by their names, evenly."""
STIFF = 0.1
"""Penalty of one node's own model: it has few lives."""


class Trusted(NamedTuple):
    """What may be merged.

    Attributes:
        contributions: of nodes that are believed, some of them counting for less.
        reduced: names of those.
        left_out: why, by the names of the others.
    """

    contributions: list[Contribution]
    reduced: dict[str, str]
    left_out: dict[str, str]


def trusted(
    contributions: list[Contribution], penalty: float, limits: Limits, prefix: str = "ridge/"
) -> Trusted:
    """Return the sums that may be merged, and who was left out or reduced, and why.

    A majority of honest nodes is what it rests on: half of the jury, at least, must be.
    """
    with_rows = [one for one in contributions if float(one.arrays[prefix + "n"][0]) > 0]
    if len(with_rows) < FEWEST:
        return Trusted(contributions, {}, {})
    sums = {one.key.node: GramSums.from_arrays(one.arrays, prefix) for one in with_rows}
    reduced: dict[str, str] = {}
    for name, own in sums.items():
        limit = limits.rows_cap * float(np.median([o.n for n, o in sums.items() if n != name]))
        if own.n > limit:
            reduced[name] = f"claims {own.n:.0f} rows, counted as {limit:.0f}"
            sums[name] = own.decay(limit / own.n)
    consensus = _consensus(sums, penalty)
    errors = {name: error(own, consensus) for name, own in sums.items()}
    middle = float(np.median(list(errors.values())))
    left_out = {
        name: f"the fleet's model errs by {one:.3g} h on its rows, by {middle:.3g} on most others'"
        for name, one in errors.items()
        if one > limits.error_cap * middle
    }
    kept = []
    for one in contributions:
        name = one.key.node
        if name in left_out:
            continue
        if name in reduced:
            arrays = {**one.arrays, **sums[name].arrays(prefix)}
            # In part: so its device must not take its own part out of the total.
            kept.append(replace(one, arrays=arrays))
        else:
            kept.append(one)
    return Trusted(kept, {n: why for n, why in reduced.items() if n not in left_out}, left_out)


def trusted_statistics(contributions: list[Contribution], limits: Limits) -> Trusted:
    """Return the statistics that may be merged, where health is told as moments.

    Healthy vectors are told in the deviations of each asset's own beginning, so that they spread
    about as far everywhere: who says otherwise would make the fleet blind, or raise alarms.
    """
    told = [one for one in contributions if _spread(one) is not None]
    if len(told) < FEWEST:
        return Trusted(contributions, {}, {})
    spreads = {one.key.node: _spread(one) or 0.0 for one in told}
    counts = {one.key.node: float(one.arrays["health/n"]) for one in told}
    middle = float(np.median(list(spreads.values())))
    left_out, reduced, kept = {}, {}, []
    for one in contributions:
        name = one.key.node
        spread = spreads.get(name, middle)
        if not middle / limits.error_cap <= spread <= middle * limits.error_cap:
            left_out[name] = f"its healthy vectors spread {spread:.3g}, most others' {middle:.3g}"
            continue
        others = [n for other, n in counts.items() if other != name]
        limit = limits.rows_cap * float(np.median(others))
        if counts.get(name, 0.0) > limit:
            share = limit / counts[name]
            reduced[name] = f"claims {counts[name]:.0f} healthy vectors, counted as {limit:.0f}"
            parts = {
                key: np.asarray(array, dtype=np.float64) * share
                for key, array in one.arrays.items()
                if key in {"health/n", "health/scatter", "basis/n", "basis/scatter"}
            }
            one = replace(one, arrays={**one.arrays, **parts})  # noqa: PLW2901
        kept.append(one)
    return Trusted(kept, reduced, left_out)


def _spread(one: Contribution) -> float | None:
    """Return the root mean square of a node's healthy vectors; None: it tells none as moments."""
    arrays = one.arrays
    scatter = np.asarray(arrays.get("health/scatter", np.zeros(0)), dtype=np.float64)
    n = float(arrays["health/n"]) if "health/n" in arrays and scatter.ndim == 2 else 0.0
    if n <= 0:
        return None
    mean = np.asarray(arrays["health/mean"], dtype=np.float64)
    return float(np.sqrt((np.trace(scatter) / n + float(mean @ mean)) / len(mean)))


def error(sums: GramSums, coefficients: Floats) -> float:
    """Return the root mean square error of a model ``(D,)`` on the rows behind some sums."""
    square = (
        sums.energy
        - 2.0 * float(coefficients @ sums.target)
        + float(coefficients @ sums.gram @ coefficients)
    )
    return float(np.sqrt(max(square, 0.0) / sums.n))


def _consensus(sums: dict[str, GramSums], penalty: float) -> Floats:
    """Return the model of those whose own models most others' rows agree with."""
    names = sorted(sums)
    jury = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, JURY).astype(int))]
    models = {name: sums[name].solve(max(penalty, STIFF)) for name in jury}
    agreed = {
        name: float(np.median([error(sums[other], model) for other in jury if other != name]))
        for name, model in models.items()
    }
    best = sorted(jury, key=lambda name: (agreed[name], name))[: (len(jury) + 1) // 2]
    total = sums[best[0]]
    for name in best[1:]:
        # Each alike: or one that claims much would speak for all.
        total = total.merge(sums[name].decay(sums[best[0]].n / sums[name].n))
    return total.solve(max(penalty, STIFF))

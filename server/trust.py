"""Whose ridge sums are believed: a model is judged on every node's rows, by their sums alone.

The squared error of any linear model on the rows behind some sums is ``energy - 2 w·target +
w·gram·w``: so the server can hold each node against what most others agree on, without a row of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, overload

import numpy as np

from contract.arrays import Floats
from contract.models.ridge import GramSums
from server.guard import Limits
from server.merge import Contribution, Key, Told

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
        reduced: why, by the names of those.
        left_out: why, by the names of the others.
    """

    contributions: Sequence[Contribution]
    reduced: dict[str, str]
    left_out: dict[str, str]


class Believed(Sequence[Contribution]):
    """Some contributions less some of them, others in part; read as they come, and not held."""

    def __init__(
        self,
        told: Sequence[Contribution],
        left_out: Iterable[str],
        shares: dict[str, float],
        sums: frozenset[str],
    ) -> None:
        self._told = told
        without = set(left_out)
        names = [key.node for key in _keys(told)]
        self._kept = [i for i, name in enumerate(names) if name not in without]
        self._shares = shares
        self._sums = sums

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, at: int) -> Contribution: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Contribution]: ...

    def __getitem__(self, at: int | slice) -> Contribution | Sequence[Contribution]:
        if isinstance(at, slice):
            return [self._one(i) for i in self._kept[at]]
        return self._one(self._kept[at])

    def __iter__(self) -> Iterator[Contribution]:
        return (self._one(i) for i in self._kept)

    def _one(self, at: int) -> Contribution:
        one = self._told[at]
        share = self._shares.get(one.key.node)
        if share is None:
            return one
        parts = {
            name: np.asarray(array, dtype=np.float64) * share
            for name, array in one.arrays.items()
            if name in self._sums
        }
        return replace(one, arrays={**one.arrays, **parts})


def _keys(told: Sequence[Contribution]) -> Sequence[Key]:
    return told.keys if isinstance(told, Told) else [one.key for one in told]


def trusted(
    contributions: Sequence[Contribution], penalty: float, limits: Limits, prefix: str = "ridge/"
) -> Trusted:
    """Return the sums that may be merged, and who was left out or reduced, and why.

    A majority of honest nodes is what it rests on: half of the jury, at least, must be. Read are
    all contributions twice, one after the other, and the jury's once more.
    """
    counts = {
        one.key.node: n for one in contributions if (n := float(one.arrays[prefix + "n"][0])) > 0
    }
    if len(counts) < FEWEST:
        return Trusted(contributions, {}, {})
    shares, reduced = _reduced(counts, limits, "rows")
    consensus = _consensus(contributions, sorted(counts), penalty, prefix)
    errors = {
        one.key.node: error(GramSums.from_arrays(one.arrays, prefix), consensus)
        for one in contributions
        if one.key.node in counts
    }
    middle = float(np.median(list(errors.values())))
    left_out = {
        name: f"the fleet's model errs by {one:.3g} h on its rows, by {middle:.3g} on most others'"
        for name, one in errors.items()
        if one > limits.error_cap * middle
    }
    sums = frozenset(prefix + name for name in ("n", "gram", "target"))
    return Trusted(
        Believed(contributions, left_out, shares, sums),
        {name: why for name, why in reduced.items() if name not in left_out},
        left_out,
    )


def _reduced(
    counts: dict[str, float], limits: Limits, what: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Return what counts in part: the share, and why, by name."""
    ordered = np.sort(np.array(list(counts.values())))
    shares, reduced = {}, {}
    for name, n in counts.items():
        # Of the others: of what is sorted without one of its values.
        at = int(np.searchsorted(ordered, n))
        limit = limits.rows_cap * float(np.median(np.delete(ordered, at)))
        if n > limit:
            shares[name] = limit / n
            reduced[name] = f"claims {n:.0f} {what}, counted as {limit:.0f}"
    return shares, reduced


def trusted_statistics(contributions: Sequence[Contribution], limits: Limits) -> Trusted:
    """Return the statistics that may be merged, where health is told as moments.

    Healthy vectors are told in the deviations of each asset's own beginning, so that they spread
    about as far everywhere: who says otherwise would make the fleet blind, or raise alarms.
    """
    spreads: dict[str, float] = {}
    counts: dict[str, float] = {}
    for one in contributions:
        spread = _spread(one)
        if spread is not None:
            spreads[one.key.node], counts[one.key.node] = spread, float(one.arrays["health/n"])
    if len(spreads) < FEWEST:
        return Trusted(contributions, {}, {})
    middle = float(np.median(list(spreads.values())))
    left_out = {
        name: f"its healthy vectors spread {spread:.3g}, most others' {middle:.3g}"
        for name, spread in spreads.items()
        if not middle / limits.error_cap <= spread <= middle * limits.error_cap
    }
    shares, reduced = _reduced(counts, limits, "healthy vectors")
    sums = frozenset({"health/n", "health/scatter", "basis/n", "basis/scatter"})
    return Trusted(
        Believed(contributions, left_out, shares, sums),
        {name: why for name, why in reduced.items() if name not in left_out},
        left_out,
    )


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


def _consensus(
    contributions: Sequence[Contribution], names: list[str], penalty: float, prefix: str
) -> Floats:
    """Return the model of those whose own models most others' rows agree with."""
    jury = {names[i] for i in np.unique(np.linspace(0, len(names) - 1, JURY).astype(int))}
    places = [i for i, key in enumerate(_keys(contributions)) if key.node in jury]
    sums = {
        one.key.node: GramSums.from_arrays(one.arrays, prefix)
        for one in (contributions[i] for i in places)
    }
    stiff = max(penalty, STIFF)
    models = {name: own.solve(stiff) for name, own in sums.items()}
    agreed = {
        name: float(np.median([error(sums[other], model) for other in sums if other != name]))
        for name, model in models.items()
    }
    best = sorted(sums, key=lambda name: (agreed[name], name))[: (len(sums) + 1) // 2]
    # Each alike: or one that claims much would speak for all.
    total = sums[best[0]].decay(1.0 / sums[best[0]].n)
    for name in best[1:]:
        total = total.merge(sums[name].decay(1.0 / sums[name].n))
    return total.solve(stiff)

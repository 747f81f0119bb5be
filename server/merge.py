"""The ledger of sums: who contributed what, so that each counts once and can be taken out again.

A contribution is keyed by node and epoch and tied to what it was computed under (the class's spec,
for the ridge family also the basis). Nodes that are absent in a run still count.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract import npz
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Faults, Health, Privacy
from contract.model_spec import Moments as MomentsSpec
from contract.models import kinds
from contract.models.healthy import Healthy, MomentsSums, learnt
from contract.models.kinds import KindState
from contract.models.moments import Moments
from contract.models.ridge import Gradients, GramSums
from contract.privacy import gram_of, moments_of


class Key(msgspec.Struct, frozen=True):
    """What a contribution is known by.

    Attributes:
        node: who sent it.
        epoch: its journal position: a later one of the node replaces an earlier one.
        tie: digest of what it was computed under; only equals merge.
        rows: behind the sums.
        lives: finished lives behind them.
    """

    node: str
    epoch: int
    tie: str
    rows: int
    lives: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """A key and the sums."""

    key: Key
    arrays: Arrays


class Told(Sequence[Contribution]):
    """Contributions by node: each is read from its file when it is its turn, and not held.

    Attributes:
        keys: of all, in order.
    """

    def __init__(self, keys: list[Key], path: Callable[[str], Path]) -> None:
        self.keys = keys
        self._path = path

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> Contribution: ...

    @overload
    def __getitem__(self, at: slice) -> "Told": ...

    def __getitem__(self, at: int | slice) -> "Contribution | Told":
        if isinstance(at, slice):
            return Told(self.keys[at], self._path)
        key = self.keys[at]
        return Contribution(key, npz.read(self._path(key.node))[1])

    def __iter__(self) -> Iterator[Contribution]:
        return (self[i] for i in range(len(self.keys)))


class Ledger:
    """The newest contribution of each node, in one file each; in memory are their keys alone.

    Totals are summed in the order of the nodes' names, so that neither the order of arrival nor
    what was withdrawn meanwhile makes a difference, bit for bit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[str, Key] = {}
        self.unreadable: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.npz")):
            try:
                head, _ = npz.read(path)
                key = msgspec.json.decode(head, type=Key)
            except (ContractError, msgspec.MsgspecError) as error:
                # The node's next contribution replaces it; until then the others count without.
                self.unreadable.append(str(error))
                continue
            self._keys[key.node] = key

    def put(self, contribution: Contribution) -> bool:
        """Take a contribution in; False if it is known already, or older than what is known."""
        key = contribution.key
        known = self._keys.get(key.node)
        if known is not None and known.tie == key.tie and known.epoch >= key.epoch:
            return False
        npz.write(self._path(key.node), npz.to_bytes(msgspec.json.encode(key), contribution.arrays))
        self._keys[key.node] = key
        return True

    def withdraw(self, node: str) -> bool:
        """Take a node's contribution out; the total is then as if it had never been in."""
        if self._keys.pop(node, None) is None:
            return False
        self._path(node).unlink(missing_ok=True)
        return True

    def under(self, tie: str) -> Told:
        """Return the contributions computed under one basis or spec, by node."""
        ordered = sorted(self._keys.items())
        return Told([key for _, key in ordered if key.tie == tie], self._path)

    def nodes_not_under(self, tie: str) -> list[str]:
        """Return the nodes whose contribution does not count under a tie."""
        return sorted(n for n, key in self._keys.items() if key.tie != tie)

    def __len__(self) -> int:
        return len(self._keys)

    def _path(self, node: str) -> Path:
        return self._folder / f"{quote(node, safe='')}.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What the first phase adds up to.

    Attributes:
        basis: moments of all feature vectors, diagonal.
        health: what was learnt of healthy behaviour.
        histogram: of healthy scores.
    """

    basis: Moments
    health: Healthy
    histogram: NDArray[np.int64]

    @classmethod
    def of(cls, contributions: Iterable[Contribution], spec: Health) -> "Statistics | None":
        """Return the sum of what several nodes sent of such a model; None for nobody."""
        total: Statistics | None = None
        for one in contributions:
            arrays = one.arrays
            statistics = cls(
                Moments.from_arrays(arrays, "basis/"),
                learnt(spec, arrays, "health/"),
                np.asarray(arrays["health/histogram"], dtype=np.int64),
            )
            total = statistics if total is None else total.merge(statistics)
        return total

    def merge(self, other: "Statistics") -> "Statistics":
        """Return the sum of both."""
        return Statistics(
            self.basis.merge(other.basis),
            self.health.merge(other.health),
            self.histogram + other.histogram,
        )


def kinds_total(contributions: Iterable[Contribution], spec: Faults) -> KindState | None:
    """Return what several nodes learnt of kinds of faults; None for nobody."""
    total: KindState | None = None
    for one in contributions:
        state = kinds.learnt(spec, one.arrays, "faults/")
        total = state if total is None else total.merge(state)
    return total


def noisy_statistics(
    contributions: Sequence[Contribution], spec: MomentsSpec, privacy: Privacy
) -> Statistics | None:
    """Return what statistics with noise in them add up to; None for too few nodes.

    Raises:
        ContractError: their sum is noise alone.
    """
    if len(contributions) < privacy.among:
        return None
    arrays = contributions[0].arrays
    total = Moments.empty(len(np.asarray(arrays["health/mean"])))
    for one in contributions:
        own = Moments.from_arrays(one.arrays, "health/")
        # Raw sums, as ``noisy_moments`` tells them.
        total = Moments(total.n + own.n, total.mean + own.mean, total.scatter + own.scatter)
    return Statistics(
        Moments.from_arrays(arrays, "basis/"),
        MomentsSums(spec, moments_of(total, len(contributions))),
        np.asarray(arrays["health/histogram"], dtype=np.int64),
    )


def noisy_gram_total(
    contributions: Sequence[Contribution], cap_h: float, privacy: Privacy
) -> GramSums | None:
    """Return what ridge sums with noise in them add up to; None for too few nodes."""
    total = gram_total(contributions)
    if total is None or len(contributions) < privacy.among:
        return None
    return gram_of(total, len(contributions), cap_h, privacy)


def ledger_folder(state: Path, asset_class: str) -> Path:
    """Return where a cohort's ledgers are."""
    return state / "ledger" / quote(asset_class, safe="")


def withdraw(state: Path, node: str) -> list[str]:
    """Take a node out of every ledger; returns which ones it was in."""
    folders = sorted((state / "ledger").glob("*/*/"))
    return [f"{f.parent.name} {f.name}" for f in folders if Ledger(f).withdraw(node)]


def gram_total(contributions: Iterable[Contribution], prefix: str = "ridge/") -> GramSums | None:
    """Return the sum of the ridge sums of several nodes; None for nobody."""
    names = [prefix + name for name in ("n", "gram", "target")]
    total: Arrays = {}
    for one in contributions:
        for name in names:
            # As they are told, packed: half of what unpacked ones would take, and the same sums.
            told = np.asarray(one.arrays[name], dtype=np.float64)
            if name in total:
                np.add(total[name], told, out=total[name])
            else:
                total[name] = told.copy()
    return GramSums.from_arrays(total, prefix) if total else None


def shape_total(contributions: Iterable[Contribution]) -> Floats | None:
    """Return the directions by the sums of several nodes' gradients; None where there are none."""
    total: Gradients | None = None
    for one in contributions:
        sums = Gradients.from_arrays(one.arrays, "gradients/")
        total = sums if total is None else total.merge(sums)
    return None if total is None else total.shape()

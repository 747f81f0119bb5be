"""Finished lives as training rows: feature vectors and the hours that were left."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.model_spec import RulModel
from contract.models.moments import Moments
from contract.models.ridge import Basis


class Life(NamedTuple):
    """A life that ended in a failure.

    Attributes:
        asset: whose.
        life: which of its lives.
        X: raw feature vectors ``(n, F)``.
        y: hours left at each, up to the cap ``(n,)``.
        w: what each row counts ``(n,)``; None: all alike.
    """

    asset: str
    life: int
    X: Floats
    y: Floats
    w: Floats | None = None

    @property
    def weights(self) -> Floats:
        """Return what each row counts ``(n,)``."""
        return np.ones(len(self.y)) if self.w is None else self.w

    @property
    def rows(self) -> tuple[Floats, Floats, Floats]:
        """Return vectors, labels and weights."""
        return self.X, self.y, self.weights


def basis_of(lives: list[Life]) -> Basis:
    """Return the standardisation of some lives' vectors; raises ``IndexError`` for none."""
    total = Moments.empty(lives[0].X.shape[1], diagonal=True)
    for life in lives:
        total = total.merge(Moments.of(life.X, diagonal=True))
    return Basis.of(total)


def own_basis(model: RulModel, basis: Basis, lives: list[Life]) -> Basis:
    """Return what a model's vectors are standardised by on this device, along a basis' shape."""
    if model.basis == "fleet" or not lives:
        return basis
    return replace(basis_of(lives), shape=basis.shape)


FAR = 1.2
"""Of the cap: rows with more hours left than this tell little about the last ones ..."""
FAR_WEIGHT = 0.3
"""... and count so much, or a long life would be learnt mostly from when nothing was wrong."""


def row_weights(t_ns: NDArray[np.int64], end_ns: int, cap_h: float) -> Floats:
    """Return what each row counts.

    >>> row_weights(np.array([0, 3_600_000_000_000]), 7_200_000_000_000, 1.5).tolist()
    [0.3, 1.0]
    """
    return np.where((end_ns - t_ns) / 3.6e12 > FAR * cap_h, FAR_WEIGHT, 1.0)


def hours_left(t_ns: NDArray[np.int64], end_ns: int, cap_h: float) -> Floats:
    """Return the label of each row: hours to the failure, capped.

    >>> hours_left(np.array([0, 3_600_000_000_000]), 7_200_000_000_000, 1.5).tolist()
    [1.5, 1.0]
    """
    return np.clip((end_ns - t_ns) / 3.6e12, 0.0, cap_h)

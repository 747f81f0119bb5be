"""Rows that may be learnt: whole, but for columns that say nothing at all."""

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.errors import ContractError


def filled(Z: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return rows ``(n, F)`` with absent columns at their healthy mean, 0, and which these are.

    A column that is NaN in each row is absent. Any other number that is not finite is refused:
    it would be in all that is learnt from then on.

    Raises:
        ContractError: names the first such row and column.
    """
    absent = np.asarray(np.isnan(Z).all(axis=0) & (len(Z) > 0), dtype=np.bool_)
    if absent.any():
        Z = np.where(absent, 0.0, Z)
    if not np.isfinite(Z).all():
        row, column = np.argwhere(~np.isfinite(Z))[0].tolist()
        raise ContractError(f"row {row}, column {column} is {Z[row, column]}: it is not learnt")
    return Z, absent

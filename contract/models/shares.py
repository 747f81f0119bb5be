"""Who is behind a score, where the score is no sum of terms."""

from typing import Protocol

import numpy as np

from contract.arrays import Floats


class Scores(Protocol):
    """Anything that scores rows."""

    def score_rows(self, Z: Floats) -> Floats:
        """Score standardised rows ``(n, F)``: ``(n,)``."""


def by_absence(model: Scores, z: Floats) -> Floats:
    """Return each column's share in the score of ``z`` ``(F,)``.

    The share of the fall in the score where the column stood at its healthy mean; a rise counts
    as nothing.
    """
    without = np.tile(z, (len(z), 1))
    np.fill_diagonal(without, 0.0)
    scores = model.score_rows(np.concatenate([z[None, :], without]))
    falls = np.maximum(scores[0] - scores[1:], 0.0)
    total = falls.sum()
    shares: Floats = falls / total if total > 0 else falls
    return shares

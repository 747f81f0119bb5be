"""A fleet's remaining-life model made a device's own: its own lives count in full, others' less.

Sums allow what weights do not: a device's own rows and all others' stand apart in them, so that how
much of the others to take is one number, and each device chooses its own by its own lives.
"""

from typing import NamedTuple

import numpy as np

from agent.labels import Life, own_basis
from contract.arrays import Arrays
from contract.model_spec import Ridge
from contract.models.ridge import Basis, GramSums, RidgeModel
from contract.release import Release

SHARES = (0.0, 0.03, 0.1, 0.3, 1.0)
"""What another device's row may count beside one's own; 1: as much, which is the fleet's model."""
FOLDS = 4
FEWEST = 2 * FOLDS
"""Own lives below which a device takes the fleet's model as it is."""


class Personal(NamedTuple):
    """The model, and how much of the others is in it."""

    model: RidgeModel
    share: float

    def arrays(self) -> Arrays:
        """Return the state, less what the release holds."""
        return {
            "personal/coefficients": self.model.coefficients,
            "personal/share": np.array(self.share),
            **self.model.basis.arrays("personal/basis/"),
        }


def ridge_of(release: Release) -> tuple[Ridge, Basis] | None:
    """Return the ridge model of a release that a device makes its own, and the fleet's basis."""
    spec = release.manifest.asset_class
    model = next((one for one in spec.rul if isinstance(one, Ridge)), None)
    if model is None or release.basis is None or "ridge/coefficients" not in release.arrays:
        return None
    mixes = "fleet/gram" in release.arrays
    return (model, release.basis) if mixes or model.basis == "own" else None


def restored(release: Release, arrays: Arrays) -> Personal | None:
    """Take back what ``Personal.arrays`` returned, beside the release it was made of."""
    found = ridge_of(release)
    if found is None or "personal/coefficients" not in arrays:
        return None
    spec, _ = found
    basis = Basis.from_arrays(arrays, "personal/basis/")
    coefficients = np.asarray(arrays["personal/coefficients"], dtype=np.float64)
    cap_h = release.manifest.asset_class.cap_h
    return Personal(RidgeModel(spec, basis, coefficients, cap_h), float(arrays["personal/share"]))


def personal(release: Release, node: str, lives: list[Life]) -> Personal | None:
    """Return a release's ridge model with this device's own lives at full weight.

    The share of the others is the one with the least error on own lives that are left out in turn.

    Args:
        release: with the fleet's sums in it.
        node: this one's name.
        lives: own training lives, in the order in which they ended.

    Returns:
        None where nothing is made its own, or there are no or too few own lives to do so.
    """
    found = ridge_of(release)
    if found is None or not lives:
        return None
    spec, fleets = found
    cap_h = release.manifest.asset_class.cap_h
    basis = own_basis(spec, fleets, lives)
    # What this device has contributed is in the fleet's sums: its first lives, as many as it told.
    # Where some of them were forgotten here since, its part cannot be taken out.
    told = release.manifest.lives.get(node, 0)
    if len(lives) < max(FEWEST, told) or "fleet/gram" not in release.arrays:
        if spec.basis == "fleet":
            return None
        coefficients = np.asarray(release.arrays["ridge/coefficients"], dtype=np.float64)
        return Personal(RidgeModel(spec, basis, coefficients, cap_h), 1.0)
    parts = [
        GramSums.of_rows(basis, spec, [life.rows for life in lives[fold::FOLDS]])
        for fold in range(FOLDS)
    ]
    own = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    others = GramSums.from_arrays(release.arrays, "fleet/")
    if told:
        then = own_basis(spec, fleets, lives[:told])
        before = GramSums.of_rows(then, spec, [life.rows for life in lives[:told]])
        others = others.withdraw(before)

    def solved(sums: GramSums, share: float) -> RidgeModel:
        mixed = sums.merge(others.decay(share)) if share else sums
        return RidgeModel(spec, basis, mixed.solve(spec.penalty), cap_h)

    def error(share: float) -> float:
        squares = 0.0
        for fold, part in enumerate(parts):
            model = solved(own.withdraw(part), share)
            for life in lives[fold::FOLDS]:
                missed = np.square(model.predict(life.X) - life.y)
                squares += float(np.average(missed, weights=life.weights))
        return squares

    # Where it makes no difference the fleet's model is the better one: it has seen more.
    share = min(reversed(SHARES), key=error)
    return Personal(solved(own, share), share)

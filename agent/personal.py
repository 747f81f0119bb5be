"""A fleet's remaining-life model made a device's own: its own lives count in full, others' less.

Sums allow what weights do not: a device's own rows and all others' stand apart in them, so that how
much of the others to take is one number, and each device chooses its own by its own lives.
"""

from typing import NamedTuple

import numpy as np

from agent.labels import Life, own_basis
from contract.arrays import Arrays
from contract.model_spec import Ridge, RulModel
from contract.models.layers import LayersModel
from contract.models.ridge import Basis, GramSums, RidgeModel
from contract.release import Release
from contract.spec import rul_name

SHARES = (0.0, 0.03, 0.1, 0.3, 1.0)
"""What another device's row may count beside one's own; 1: as much, which is the fleet's model."""
FOLDS = 4
FEWEST = 2 * FOLDS
"""Own lives below which a device takes the fleet's model as it is."""


class Personal(NamedTuple):
    """A release's model, as it judges here.

    Attributes:
        model: it.
        share: what another device's row counts beside an own one.
    """

    model: RidgeModel | LayersModel
    share: float

    def arrays(self) -> Arrays:
        """Return the state, less what the release holds."""
        arrays = {
            "personal/share": np.array(self.share),
            **self.model.basis.arrays("personal/basis/"),
        }
        if isinstance(self.model, RidgeModel):
            arrays["personal/coefficients"] = self.model.coefficients
        return arrays


def own_model(release: Release, name: str = "") -> RulModel | None:
    """Return the spec of a release's model, the one that judges unless named, if it is made own."""
    name = name or release.manifest.rul_model
    spec = next((m for m in release.manifest.asset_class.rul if rul_name(m) == name), None)
    if spec is None or name not in release.rul:
        return None
    mixes = isinstance(spec, Ridge) and "fleet/gram" in release.arrays
    return spec if mixes or spec.basis == "own" else None


def restored(release: Release, arrays: Arrays) -> Personal | None:
    """Take back what ``Personal.arrays`` returned, beside the release it was made of."""
    spec = own_model(release)
    if spec is None or "personal/basis/mean" not in arrays:
        return None
    basis = Basis.from_arrays(arrays, "personal/basis/")
    share = float(arrays["personal/share"])
    cap_h = release.manifest.asset_class.cap_h
    if not isinstance(spec, Ridge):
        return Personal(LayersModel.from_arrays(release.arrays, "sklearn/", basis, cap_h), share)
    coefficients = np.asarray(arrays["personal/coefficients"], dtype=np.float64)
    return Personal(RidgeModel(spec, basis, coefficients, cap_h), share)


def personal(release: Release, node: str, lives: list[Life], name: str = "") -> Personal | None:
    """Return a release's model in this device's own standardisation, its lives at full weight.

    The share of the others is the one with the least error on own lives that are left out in turn.

    Args:
        release: with the fleet's sums in it.
        node: this one's name.
        lives: own training lives, in the order in which they ended.
        name: of the model; empty: the one that judges.

    Returns:
        None where nothing is made its own, or there are no or too few own lives to do so.
    """
    spec, fleets = own_model(release, name), release.basis
    if spec is None or fleets is None or not lives:
        return None
    cap_h = release.manifest.asset_class.cap_h
    basis = own_basis(spec, fleets, lives)
    if not isinstance(spec, Ridge):
        return Personal(LayersModel.from_arrays(release.arrays, "sklearn/", basis, cap_h), 1.0)
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

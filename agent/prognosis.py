"""How long is left, as this device has learnt it alone: from its own finished lives."""

from dataclasses import replace

import numpy as np

from agent.labels import Life, basis_of
from contract.arrays import Arrays, Floats
from contract.model_spec import Ridge, Sklearn
from contract.models.layers import LayersModel
from contract.models.ridge import Basis, Gradients, GramSums, RidgeModel, first_of, width
from contract.release import Predictor
from contract.spec import AssetClass


class LocalRul:
    """Remaining-life models of one asset class, learnt on this device.

    Sums of a life are added when it ends. The standardisation they need is taken from all lives
    each time their number has doubled; then all sums are made anew.
    """

    def __init__(self, spec: AssetClass, *, sklearn: bool) -> None:
        self._spec = spec
        self._ridge = next((m for m in spec.rul if isinstance(m, Ridge)), None)
        self._sklearn = next((m for m in spec.rul if isinstance(m, Sklearn) and sklearn), None)
        self._basis: Basis | None = None
        self._sums: GramSums | None = None
        self._layers: Arrays = {}
        self._known = 0
        self._next_basis = 1
        self.interval: Interval | None = None
        """Of the ridge model; by turns, where no lives are held out."""
        self.models: dict[str, Predictor] = {}
        """By name, in the order of the class; empty before the first life has ended."""

    def forget(self) -> None:
        """Begin anew with the next life: vectors mean another than they did."""
        self._basis, self._sums, self._known = None, None, 0

    def learn(self, lives: list[Life]) -> None:
        """Learn the lives that are new in ``lives``: all training lives of the class, in order."""
        if not lives or (self._ridge is None and self._sklearn is None):
            return
        basis, fresh = self._take(lives)
        found: dict[str, Predictor] = {}
        for model in self._spec.rul:
            if model is self._ridge:
                found["ridge"] = self._learn_ridge(self._ridge, fresh, basis)
            elif model is self._sklearn:
                found["sklearn"] = self._learn_sklearn(self._sklearn, lives, basis)
        self.models = found

    def _take(self, lives: list[Life]) -> tuple[Basis, list[Life]]:
        """Return the basis for these lives, and those of them that are not in the sums yet."""
        basis = self._basis
        fresh = lives[self._known :]
        # A store that forgets its oldest life for each new one has nothing to add sums to.
        full = len(lives) == self._known
        if basis is None or full or len(lives) >= self._next_basis:
            basis, self._sums, fresh = basis_of(lives), None, lives
            if self._ridge is not None and self._ridge.shaping:
                basis = shaped(basis, self._ridge, lives)
            if self._ridge is not None and not self._spec.holdout:
                self.interval = crossed(self._ridge, basis, lives, self._spec.cap_h)
            self._next_basis = len(lives) if full else 2 * len(lives)
        self._basis, self._known = basis, len(lives)
        return basis, fresh

    def _learn_ridge(self, model: Ridge, lives: list[Life], basis: Basis) -> RidgeModel:
        sums = self._sums or GramSums.empty(width(len(basis.mean), model))
        expansion = basis.expansion(model)
        for life in lives:
            sums = sums.add(expansion.apply(basis.apply(life.X)), life.y, life.weights)
        self._sums = sums
        return RidgeModel(model, basis, sums.solve(model.penalty_alone), self._spec.cap_h)

    def _learn_sklearn(self, model: Sklearn, lives: list[Life], basis: Basis) -> LayersModel:
        from agent.models.sklearn_adapter import train  # noqa: PLC0415  # 100 MB where configured

        Z = basis.apply(np.concatenate([life.X for life in lives]))
        y = np.concatenate([life.y for life in lives]) / self._spec.cap_h
        self._layers = train(model, Z, y, self._layers, seed=len(lives))
        return LayersModel.from_arrays(self._layers, "sklearn/", basis, self._spec.cap_h)

    def arrays(self) -> Arrays:
        """Return the models' weights, and how many lives are in them.

        Ridge can be made anew from the lives; it is there for the day on which they are lost.
        """
        arrays = {**self._layers, "known": np.array([self._known, self._next_basis])}
        for model in self.models.values():
            arrays |= model.basis.arrays()
            if isinstance(model, RidgeModel):
                arrays["ridge/coefficients"] = model.coefficients
        return arrays

    def restore(self, arrays: Arrays, lives: list[Life]) -> None:
        """Take back what ``arrays`` returned; ``lives`` begin with the training lives known then.

        Sums are added up in the order of the lives, as they were: the same to the last bit.
        """
        known, next_basis = (int(v) for v in arrays["known"])
        self._layers = {n: array for n, array in arrays.items() if n.startswith("sklearn/")}
        basis = Basis.from_arrays(arrays) if "basis/mean" in arrays else None
        coefficients = arrays.get("ridge/coefficients")
        if known and len(lives) >= known:
            # The basis in force was made when the number of lives last doubled.
            for count in sorted({next_basis // 2 if next_basis > known else known, known}):
                basis, fresh = self._take(lives[:count])
                if self._ridge is not None:
                    coefficients = self._learn_ridge(self._ridge, fresh, basis).coefficients
            self._next_basis = next_basis
        # Else the lives are lost with the store: what was learnt judges on until the next one ends.
        if basis is None:
            return
        cap_h = self._spec.cap_h
        for model in self._spec.rul:
            if model is self._ridge and coefficients is not None:
                weights = np.asarray(coefficients, dtype=np.float64)
                self.models["ridge"] = RidgeModel(self._ridge, basis, weights, cap_h)
            elif model is self._sklearn and self._layers:
                layers = LayersModel.from_arrays(self._layers, "sklearn/", basis, cap_h)
                self.models["sklearn"] = layers


def shaped(basis: Basis, model: Ridge, lives: list[Life]) -> Basis:
    """Return a basis with the directions that matter to a first model of these lives."""
    first = first_of(model)
    rows = [life.rows for life in lives]
    coefficients = GramSums.of_rows(basis, first, rows).solve(first.penalty)
    return replace(basis, shape=Gradients.of(basis, first, coefficients, rows).shape())


def error_h(predictor: Predictor, lives: list[Life]) -> float | None:
    """Return the root mean square error in hours over some lives, each life counting alike."""
    if not lives:
        return None
    squares = [float(np.mean((predictor.predict(life.X) - life.y) ** 2)) for life in lives]
    return float(np.sqrt(np.mean(squares)))


COVERAGE = 0.9
"""Share of the truths that are to lie within an interval."""
LEAST_LIVES = 4
_SHARES = np.array([0.1, 0.25, 0.5, 0.75])
"""Of the cap: where one bin of predictions ends and the next begins."""


class Interval:
    """How far from a prediction the truth was, on lives that were not learnt from.

    Split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al. 2018) by bins of the
    prediction, since errors grow with the hours that are left. Lives are what is exchangeable, and
    not their rows: each life of a bin has the same weight, and the levels are widened by one over
    their number. m lives can vouch for m of m + 1.

    Attributes:
        coverage: share of the truths that are to lie within.
        low: ``(bins,)`` added to a prediction, the interval's lower end.
        high: ``(bins,)`` its upper end.
    """

    def __init__(self, cap_h: float, coverage: float, low: Floats, high: Floats) -> None:
        self._cap_h = cap_h
        self.coverage = coverage
        self.low = low
        self.high = high

    @classmethod
    def of(
        cls, predictor: Predictor, lives: list[Life], cap_h: float, coverage: float = COVERAGE
    ) -> "Interval | None":
        """Calibrate on held-out lives; None where they are fewer than ``LEAST_LIVES``."""
        told = [predictor.predict(life.X) for life in lives]
        return cls.between(told, [life.y for life in lives], cap_h, coverage)

    @classmethod
    def between(
        cls, told: list[Floats], true: list[Floats], cap_h: float, coverage: float = COVERAGE
    ) -> "Interval | None":
        """Calibrate by what was told of some lives, and true; None where they are too few."""
        lives = told
        if len(lives) < LEAST_LIVES:
            return None
        errors = [y - guess for guess, y in zip(told, true, strict=True)]
        bins = [np.searchsorted(_SHARES * cap_h, guess) for guess in told]
        low, high = np.empty(len(_SHARES) + 1), np.empty(len(_SHARES) + 1)
        for b in range(len(low)):
            found = [e[k == b] for e, k in zip(errors, bins, strict=True) if (k == b).any()]
            # Too few lives were ever predicted so: the errors of all predictions stand for them.
            low[b], high[b] = _ends(found if len(found) >= LEAST_LIVES else errors, coverage)
        most = len(lives) / (len(lives) + 1)
        return cls(cap_h, min(coverage, most), low, high)

    def around(self, hours: float) -> tuple[float, float]:
        """Return the hours between which the truth lies; the cap stands for it and all above."""
        b = int(np.searchsorted(_SHARES * self._cap_h, hours))
        low, high = hours + self.low[b], hours + self.high[b]
        return float(np.clip(low, 0.0, hours)), float(np.clip(high, hours, self._cap_h))


FOLDS = 5


def crossed(model: Ridge, basis: Basis, lives: list[Life], cap_h: float) -> Interval | None:
    """Return an interval by turns: each life told by a model that has not learnt it.

    Sums make that cheap: a fold is taken out of them again. Cross-conformal prediction (Vovk 2015).
    """
    if len(lives) < LEAST_LIVES:
        return None
    folds = min(FOLDS, len(lives))
    parts = [
        GramSums.of_rows(basis, model, [life.rows for life in lives[fold::folds]])
        for fold in range(folds)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    told: dict[int, Floats] = {}
    for fold, part in enumerate(parts):
        coefficients = total.withdraw(part).solve(model.penalty_alone)
        without = RidgeModel(model, basis, coefficients, cap_h)
        for i in range(fold, len(lives), folds):
            told[i] = without.predict(lives[i].X)
    order = range(len(lives))
    return Interval.between([told[i] for i in order], [lives[i].y for i in order], cap_h)


def _ends(errors: list[Floats], coverage: float) -> tuple[float, float]:
    """Return the two quantiles between which a share of the errors lies, each life alike."""
    values = np.concatenate(errors)
    weights = np.concatenate([np.full(len(e), 1.0 / len(e)) for e in errors])
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    tail = max((1.0 - coverage) / 2.0 - coverage / len(errors) / 2.0, 0.0)
    first = int(np.searchsorted(share, tail, side="right"))
    last = min(int(np.searchsorted(share, 1.0 - tail)), len(values) - 1)
    return float(values[order[min(first, len(values) - 1)]]), float(values[order[last]])


def predict_one(predictor: Predictor, x: Floats) -> float | None:
    """Return hours left for one raw vector ``(F,)``; None if most of it was not measured."""
    known = np.isfinite(x)
    if not known.all():
        if known.sum() * 2 < len(x):
            return None
        x = np.where(known, x, predictor.basis.mean)
    return float(predictor.predict(x[None, :])[0])

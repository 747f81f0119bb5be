"""Lives in, a release out: the same arithmetic as a fleet of one, with checks of each step."""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from agent.labels import basis_of
from agent.models.healthy import learnt
from agent.prognosis import error_h, shaped
from agent.train.source import Gathered
from contract import VERSION
from contract.arrays import Arrays
from contract.model_spec import Ridge, Sklearn
from contract.models.ridge import GramSums
from contract.release import Manifest, Release
from contract.spec import rul_name


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: of it.
        good: whether the model may be used, as far as this goes.
        text: what was found.
    """

    name: str
    good: bool
    text: str


class Fitted(NamedTuple):
    """A release, and what was looked at on the way."""

    release: Release
    checks: list[Check]


LOST = 1e12
"""Condition of the sums beyond which a third of a number's digits are left."""


def fit(gathered: Gathered) -> Fitted:
    """Train all models of a class; nothing but the lives, the spec and its seeds enters."""
    spec = gathered.spec
    checks = _data(gathered)
    arrays: Arrays = {}
    if gathered.healthy:
        state = learnt(spec.health, gathered.healthy, "healthy/")
        if state.n:
            arrays |= state.solve().arrays("health/model/")
            arrays["health/histogram"] = np.asarray(gathered.healthy["scores"])
    if spec.rul:
        arrays |= _remaining_life(gathered, checks)
    manifest = Manifest(VERSION, spec, 0, 0, 0, (), "", {})
    release = Release(manifest, arrays)
    errors = {
        name: error
        for name, model in release.rul.items()
        if (error := error_h(model, gathered.heldout)) is not None
    }
    best = min(errors, key=lambda name: errors[name]) if errors else next(iter(release.rul), "")
    metrics = {f"rmse/{name}": error for name, error in errors.items()}
    release = Release(msgspec.structs.replace(manifest, rul_model=best, metrics=metrics), arrays)
    if best:
        checks.append(_trivial(gathered, release))
    checks.append(_whole(release, gathered))
    return Fitted(release, checks)


def _remaining_life(gathered: Gathered, checks: list[Check]) -> Arrays:
    spec, lives = gathered.spec, gathered.training
    plain = basis_of(lives)
    basis = plain
    arrays: Arrays = {}
    for model in spec.rul:
        if isinstance(model, Ridge):
            basis = shaped(plain, model, lives) if model.shaping else plain
            sums = GramSums.of_rows(basis, model, [life.rows for life in lives])
            arrays["ridge/coefficients"] = sums.solve(model.penalty)
            condition = sums.condition(model.penalty)
            text = f"condition of the sums {condition:.1e}"
            checks.append(Check("precision", condition < LOST, text))
        elif isinstance(model, Sklearn):
            from agent.models.sklearn_adapter import train  # noqa: PLC0415  # 100 MB

            Z = plain.apply(np.concatenate([life.X for life in lives]))
            y = np.concatenate([life.y for life in lives]) / spec.cap_h
            arrays |= train(model, Z, y, {}, seed=model.seed)
    finite = all(np.isfinite(array).all() for array in arrays.values())
    names = ", ".join(rul_name(model) for model in spec.rul)
    checks.append(Check("training", finite, f"{names}: all numbers finite: {finite}"))
    return basis.arrays() | arrays


def _data(gathered: Gathered) -> list[Check]:
    """Look at the lives before anything is learnt from them."""
    lives = [*gathered.training, *gathered.heldout]
    rows = sum(len(life.y) for life in lives)
    finite = all(np.isfinite(life.X).all() and np.isfinite(life.y).all() for life in lives)
    cap = gathered.spec.cap_h
    ranged = all(((life.y >= 0) & (life.y <= cap)).all() for life in lives)
    text = f"{len(gathered.training)} lives to learn from, {len(gathered.heldout)} held out"
    return [
        Check("data", finite, f"{text}, {rows} vectors, all finite: {finite}"),
        Check("labels", ranged, f"hours left between 0 and {cap:g}: {ranged}"),
    ]


def _trivial(gathered: Gathered, release: Release) -> Check:
    """Compare with the one number that errs least."""
    judged = gathered.heldout or gathered.training
    on = "held-out" if gathered.heldout else "its own"
    mean = float(np.mean(np.concatenate([life.y for life in gathered.training])))
    squares = [float(np.mean((life.y - mean) ** 2)) for life in judged]
    trivial = math.sqrt(float(np.mean(squares)))
    error = error_h(release.rul[release.manifest.rul_model], judged) or 0.0
    text = f"errs by {error:.2f} h on {on} lives; always saying {mean:.1f} h errs by {trivial:.2f}"
    return Check("better than one number", error < trivial, text)


def _whole(release: Release, gathered: Gathered) -> Check:
    """Write and read the release, and see whether it says the same."""
    again = Release.from_bytes(release.to_bytes(), "the release")
    same = again.digest == release.digest
    for life in (gathered.heldout or gathered.training)[:1]:
        for name, model in release.rul.items():
            same &= bool(np.array_equal(model.predict(life.X), again.rul[name].predict(life.X)))
    return Check("end to end", same, f"written, read and asked again: the same: {same}")

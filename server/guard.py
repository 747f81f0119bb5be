"""Judge one update against what was asked, before anything merges.

Says what is wrong, in words; never raises on bad content and never repairs silently. Flower
itself merges whatever comes: a NaN spreads, a ``(1,)`` array broadcasts, a claimed 10^9 rows own
the model.
"""

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.features import FeatureSpec
from contract.model_spec import Faults, Health, Privacy, Ridge, Sklearn
from contract.models import kinds
from contract.models.healthy import ROUNDING, learnt, nothing, semidefinite
from contract.models.histogram import BINS
from contract.models.moments import Moments
from contract.models.ridge import GramSums, first_of, width
from contract.privacy import ROOT2, bordered, edged, farthest
from contract.spec import AssetClass, rul_name
from contract.topics import check_name
from contract.update import FIT, GRADIENTS, SHAPE, STATISTICS, Request, Update, UpdateHead

NAME_LENGTH = 100
"""Longest name of a node: it becomes the name of a file."""
METRICS = 64
"""Most numbers a node may report of itself."""
FLOAT, COUNT = np.dtype(np.float64), np.dtype(np.int64)
Shape = tuple[tuple[int, ...], np.dtype[np.generic]]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one node may stand out.

    Attributes:
        rows_cap: claimed rows count up to this multiple of the others' median.
        norm_cap: a step of weights is shortened to this multiple of the others' median length.
        error_cap: ridge sums on which the fleet's model errs by more than this multiple of the
            nodes' median error are left out.
    """

    rows_cap: float = 10.0
    norm_cap: float = 5.0
    error_cap: float = 3.0


def expected(spec: AssetClass, request: Request) -> dict[str, Shape]:
    """Return the arrays that answer a request: name to shape and type.

    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"),), stats=("mean_8",), rul=(Ridge(random=2),))
    >>> asked = Request(VERSION, FIT, "pump", pump.digest(), 1)
    >>> {name: shape for name, (shape, _) in expected(pump, asked).items()}
    {'ridge/n': (2,), 'ridge/gram': (10,), 'ridge/target': (4,)}
    """  # noqa: E501  # a doctest line
    features = len(FeatureSpec.of(spec))
    watched = len(FeatureSpec.of(spec).columns(spec.health_stats))
    if request.phase == STATISTICS:
        return {
            "basis/n": ((), FLOAT),
            "basis/mean": ((features,), FLOAT),
            "basis/scatter": ((features,), FLOAT),
            **{
                name: (array.shape, array.dtype)
                for name, array in nothing(spec.health, watched).arrays("health/").items()
            },
            "health/histogram": ((BINS,), COUNT),
            **_kinds(spec.faults, watched),
        }
    shapes: dict[str, Shape] = {}
    shaped = next((m for m in spec.rul if isinstance(m, Ridge) and m.shaping), None)
    if request.phase == SHAPE and shaped is not None:
        return _gram(width(features, first_of(shaped)), "first/")
    if request.phase == GRADIENTS:
        return {"gradients/n": ((), FLOAT), "gradients/outer": ((features, features), FLOAT)}
    if request.phase != FIT:
        return shapes
    for model in spec.rul:
        if request.models and rul_name(model) not in request.models:
            continue
        if isinstance(model, Ridge):
            shapes |= _gram(width(features, model), "ridge/")
        else:
            shapes |= _layers(model, features)
    return shapes


def _kinds(spec: Faults | None, watched: int) -> dict[str, Shape]:
    if spec is None:
        return {}
    arrays = kinds.nothing(spec, watched).arrays("faults/")
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def _gram(size: int, prefix: str) -> dict[str, Shape]:
    return {
        prefix + "n": ((2,), FLOAT),
        prefix + "gram": ((size * (size + 1) // 2,), FLOAT),
        prefix + "target": ((size,), FLOAT),
    }


def _layers(model: Sklearn, features: int) -> dict[str, Shape]:
    hidden = model.hidden if model.estimator == "MLPRegressor" else ()
    sizes = [features, *hidden, 1]
    shapes: dict[str, Shape] = {}
    for i, (rows, columns) in enumerate(pairwise(sizes)):
        shapes[f"sklearn/w{i}"] = ((rows, columns), FLOAT)
        shapes[f"sklearn/b{i}"] = ((columns,), FLOAT)
    return shapes


def judge(update: Update, request: Request, spec: AssetClass) -> list[str]:
    """Return what speaks against merging an update, in words; nothing: it may be merged."""
    head, arrays = update.head, update.arrays
    against = judge_head(head, request)
    if head.asset_class.digest() != spec.digest():
        against.append(
            f"runs spec {head.asset_class.digest()} of class {head.asset_class.name!r}, "
            f"the cohort {spec.digest()} of {spec.name!r}"
        )
    if against:
        return against
    against = _judge_shapes(arrays, expected(spec, request), bare=head.rows == 0)
    if against:
        return against
    against = [
        f"array {name} holds numbers that are not finite"
        for name, array in arrays.items()
        if not np.isfinite(array).all()
    ]
    if against:
        return against
    if spec.privacy is not None:
        return _judge_noisy(arrays, spec.cap_h, spec.privacy)
    if request.phase == STATISTICS:
        against = _judge_statistics(head, arrays, spec.health)
        if spec.faults is not None:
            problem = kinds.learnt(spec.faults, arrays, "faults/").problem()
            against += [f"faults/{problem}"] if problem else []
        return against
    if request.phase == GRADIENTS:
        return _judge_gradients(head, arrays)
    for prefix in ("first/", "ridge/"):
        if prefix + "n" in arrays:
            return _judge_gram(head, arrays, prefix)
    return []


def judge_head(head: UpdateHead, request: Request) -> list[str]:
    """Return what speaks against the words of an update."""
    against = []
    if head.contract != VERSION:
        against.append(f"speaks contract {head.contract}, this server {VERSION}")
    if head.phase != request.phase:
        against.append(f"answers {head.phase!r}, asked was {request.phase!r}")
    try:
        check_name(head.node, "node")
    except ValueError as error:
        against.append(str(error))
    if len(head.node) > NAME_LENGTH:
        against.append(f"a node's name of {len(head.node)} letters; {NAME_LENGTH} at most")
    against += [
        f"{what} is {count}, below nothing"
        for what, count in (
            ("rows", head.rows),
            ("lives", head.lives),
            ("heldout", head.heldout),
            ("epoch", head.epoch),
        )
        if count < 0
    ]
    if len(head.metrics) > METRICS:
        against.append(f"{len(head.metrics)} metrics; {METRICS} at most")
    against += [
        f"metric {name} is not finite"
        for name, value in head.metrics.items()
        if not np.isfinite(value)
    ]
    return against


def _judge_shapes(arrays: Arrays, shapes: dict[str, Shape], *, bare: bool) -> list[str]:
    missing = sorted(shapes.keys() - arrays.keys())
    if bare:
        # A node that has nothing to train on has no weights to send.
        missing = [name for name in missing if not name.startswith("sklearn/")]
    against = [f"array {name} is missing" for name in missing]
    against += [f"array {name} was not asked for" for name in sorted(arrays.keys() - shapes.keys())]
    for name in sorted(arrays.keys() & shapes.keys()):
        shape, dtype = shapes[name]
        if arrays[name].shape != shape:
            against.append(f"array {name} has shape {arrays[name].shape}, not {shape}")
        elif arrays[name].dtype != dtype:
            against.append(f"array {name} is {arrays[name].dtype}, not {dtype}")
    return against


def _judge_statistics(head: UpdateHead, arrays: Arrays, spec: Health) -> list[str]:
    against = []
    n = float(arrays["basis/n"])
    if n != head.rows:
        against.append(f"basis/n is {n:g} and the head says {head.rows} rows")
    health = learnt(spec, arrays, "health/")
    counts = (("basis/n", n), ("health/n", health.n))
    against += [f"{name} is negative" for name, count in counts if count < 0]
    if np.asarray(arrays["basis/scatter"], dtype=np.float64).min(initial=0.0) < 0:
        against.append("basis/scatter is negative")
    if np.asarray(arrays["health/histogram"], dtype=np.int64).min() < 0:
        against.append("health/histogram counts below nothing")
    problem = health.problem()
    return [*against, f"health/{problem}"] if problem else against


def _judge_noisy(arrays: Arrays, cap_h: float, privacy: Privacy) -> list[str]:
    """Judge what is clipped and noisy: no count or sign is sure, but how long it may be is."""
    against = []
    if float(arrays.get("basis/n", 0.0)) != 0.0:
        against.append("basis/n is not 0: with privacy nothing is told of features")
    found: list[tuple[str, Floats, float]] = []
    if "health/n" in arrays:
        found.append(("health", edged(Moments.from_arrays(arrays, "health/")), privacy.norm))
    if "ridge/n" in arrays:
        whole = bordered(GramSums.from_arrays(arrays, "ridge/"), cap_h)
        found.append(("ridge", whole, privacy.clip))
    for name, whole, most in found:
        if not np.allclose(whole, whole.T, rtol=ROUNDING, atol=ROUNDING * most):
            against.append(f"{name}: the sums are not symmetric")
        upper = whole[np.triu_indices(len(whole))]
        length, limit = float(np.linalg.norm(upper)), farthest(ROOT2 * most, len(upper), privacy)
        if length > limit:
            against.append(
                f"{name}: sums of norm {length:.3g}; clipped and noisy ones are within {limit:.3g}"
            )
    return against


def _judge_gradients(head: UpdateHead, arrays: Arrays) -> list[str]:
    n = float(arrays["gradients/n"])
    if not 0 <= n <= head.rows * (1 + ROUNDING):
        return [f"gradients/n is {n:g} and the head says {head.rows} rows"]
    outer = np.asarray(arrays["gradients/outer"], dtype=np.float64)
    if not np.allclose(outer, outer.T, rtol=ROUNDING, atol=ROUNDING * np.abs(outer).max()):
        return ["gradients/outer is not symmetric"]
    return [] if semidefinite(outer) else ["gradients/outer is not positive-semidefinite"]


def _judge_gram(head: UpdateHead, arrays: Arrays, prefix: str) -> list[str]:
    sums = GramSums.from_arrays(arrays, prefix)
    if sums.n < 0 or sums.energy < 0:
        return [f"{prefix}n is negative"]
    # Rows count for one each, or less.
    if sums.n > head.rows * (1 + ROUNDING):
        return [f"{prefix}n is {sums.n:g} and the head says {head.rows} rows"]
    if abs(sums.gram[0, 0] - sums.n) > ROUNDING * max(sums.n, 1.0):
        return [f"{prefix}gram counts {sums.gram[0, 0]:g} rows and {prefix}n {sums.n:g}"]
    # Rows and targets side by side are one matrix; what it sums to cannot be anything.
    whole = np.block(
        [[sums.gram, sums.target[:, None]], [sums.target[None, :], np.array([[sums.energy]])]]
    )
    if not semidefinite(whole):
        return [f"{prefix}gram with its targets is not positive-semidefinite"]
    return []


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One node's weights after its local passes.

    Attributes:
        node: its name.
        rows: what it weighs in a mean.
        arrays: ``sklearn/w0, b0, w1, ...``.
    """

    node: str
    rows: float
    arrays: Arrays


def balance(
    weights: list[Weights], start: Arrays | None, limits: Limits
) -> tuple[list[Weights], list[str]]:
    """Cap the rows and the step of whoever stands far out; say each time what was done.

    Steps are measured from ``start``; where all start afresh, from zero.
    """
    if len(weights) < 2:
        return weights, []
    centre = {
        name: np.zeros(array.shape) if start is None else _floats(start[name])
        for name, array in weights[0].arrays.items()
    }
    lengths = [_length(w.arrays, centre) for w in weights]
    balanced, said = [], []
    for i, one in enumerate(weights):
        others = [other.rows for j, other in enumerate(weights) if j != i]
        limit = limits.rows_cap * float(np.median(others))
        rows = one.rows
        if rows > limit:
            said.append(f"{one.node}: claims {rows:.0f} rows, counted as {limit:.0f}")
            rows = limit
        limit = limits.norm_cap * float(np.median([x for j, x in enumerate(lengths) if j != i]))
        arrays = one.arrays
        if lengths[i] > limit:
            said.append(f"{one.node}: a step of length {lengths[i]:.3g}, shortened to {limit:.3g}")
            share = limit / lengths[i]
            arrays = {
                name: centre[name] + share * (_floats(array) - centre[name])
                for name, array in arrays.items()
            }
        balanced.append(dataclasses.replace(one, rows=rows, arrays=arrays))
    return balanced, said


def _length(arrays: Arrays, centre: dict[str, Floats]) -> float:
    squares = [float(np.sum((_floats(a) - centre[name]) ** 2)) for name, a in arrays.items()]
    return math.sqrt(sum(squares))


def _floats(array: NDArray[np.generic]) -> Floats:
    return np.asarray(array, dtype=np.float64)

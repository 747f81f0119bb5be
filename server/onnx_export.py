"""A release's models as ONNX graphs: for runtimes that know nothing of Runout.

Double precision throughout, operator set 17. Each graph has one input of rows and one output;
class, version, digest and the names of the columns stand in its metadata. Needs the package
``onnx`` (``runout[onnx]``).
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contract.features import FeatureSpec
from contract.models.chart import ChartModel
from contract.models.clusters import ClustersModel
from contract.models.extremes import ExtremesModel
from contract.models.half_space import FEW, LIMIT, HalfSpaceModel, boxes
from contract.models.healthy import Scorer
from contract.models.kinds import BayesModel, ClassifierModel, KindModel, LinearModel, ridge_of
from contract.models.lagged import LaggedModel
from contract.models.layers import LayersModel
from contract.models.moments import HealthModel
from contract.models.network import NetworkModel, projection
from contract.models.ridge import Expansion, RidgeModel
from contract.release import Predictor, Release
from server.onnx_graph import ROWS, Graph

# -- remaining life -------------------------------------------------------------------------


def _ridge(graph: Graph, model: RidgeModel, _size: int) -> str:
    z = graph.standardised(ROWS, model.basis)
    z = graph.expanded(z, model.expansion) if model.spec.random else z
    return graph.within(graph.linear(z, model.coefficients), 0.0, model.cap_h)


def _layers(graph: Graph, model: LayersModel, _size: int) -> str:
    hours = graph.layered(graph.standardised(ROWS, model.basis), model.layers)
    hours = graph.op("Mul", graph.total(hours), graph.constant(model.cap_h))
    return graph.within(hours, 0.0, model.cap_h)


# -- health ---------------------------------------------------------------------------------


def _moments(graph: Graph, model: HealthModel, _size: int) -> str:
    along = graph.op("MatMul", ROWS, graph.constant(model.axes))
    back = graph.op("MatMul", along, graph.constant(np.ascontiguousarray(model.axes.T)))
    residual = graph.op("Sub", ROWS, back)
    variances = graph.constant(model.variances * model.t2_limit)
    t2 = graph.total(graph.op("Div", graph.op("Mul", along, along), variances))
    squared = graph.total(graph.op("Mul", residual, residual))
    spe = graph.op("Div", squared, graph.constant(model.spe_limit))
    return graph.op("Sqrt", graph.op("Max", t2, spe))


def _chart(graph: Graph, model: ChartModel, _size: int) -> str:
    apart = graph.op("Sub", ROWS, graph.constant(model.mean))
    parts = graph.op("Abs", graph.op("Div", apart, graph.constant(model.limit)))
    worst = graph.largest(parts)
    if not model.power:
        return worst
    over = graph.op("Max", worst, graph.constant(1e-300))
    over = graph.op("Div", parts, graph.op("Unsqueeze", over, graph.constant([1])))
    over = graph.op("Mul", over, over)
    over = graph.op("Mul", over, over) if model.power == 4 else over
    root = graph.op("Sqrt", graph.total(over))
    return graph.op("Mul", worst, graph.op("Sqrt", root) if model.power == 4 else root)


def _extremes(graph: Graph, model: ExtremesModel, _size: int) -> str:
    return graph.largest(graph.op("Div", graph.op("Abs", ROWS), graph.constant(model.limit)))


def _clusters(graph: Graph, model: ClustersModel, _size: int) -> str:
    apart = graph.op(
        "Sub", graph.op("Unsqueeze", ROWS, graph.constant([1])), graph.constant(model.places)
    )
    squared = graph.op("ReduceSum", graph.op("Mul", apart, apart), graph.constant([2]), keepdims=0)
    nearest = graph.op("ReduceMin", squared, axes=[1], keepdims=0)
    return graph.op("Sqrt", graph.op("Div", nearest, graph.constant(model.limit)))


def _network(graph: Graph, model: NetworkModel, size: int) -> str:
    if model.spec.estimator == "SGDOneClassSVM":
        return _border(graph, model, size)
    told = graph.layered(ROWS, model.layers)
    apart = graph.op("Sub", ROWS, told)
    distance = graph.total(graph.op("Mul", apart, apart))
    over = graph.op("Relu", graph.op("Sub", distance, graph.constant(model.centre)))
    return graph.op("Sqrt", graph.op("Div", over, graph.constant(model.limit)))


def _border(graph: Graph, model: NetworkModel, size: int) -> str:
    weights, phases = projection(size, model.spec)
    turned = graph.op("MatMul", ROWS, graph.constant(weights))
    turned = graph.cosine(graph.op("Add", turned, graph.constant(phases)))
    gain = graph.constant(math.sqrt(2.0 / model.spec.random))
    inside = graph.total(graph.layered(graph.op("Mul", turned, gain), model.layers))
    outside = graph.op("Sub", graph.constant(-model.centre), inside)
    return graph.op("Div", graph.op("Relu", outside), graph.constant(model.limit))


def _half_space(graph: Graph, model: HalfSpaceModel, size: int) -> str:
    """Follow a row down all trees at once; what it finds is the first box that holds few."""
    spec = model.spec
    columns, cuts = boxes(size, spec)
    trees = np.arange(spec.trees)
    flat_columns, flat_cuts = graph.constant(columns.ravel()), graph.constant(cuts.ravel())
    flat_share = graph.constant(model.share.ravel())
    cut_of_tree = graph.constant(trees * columns.shape[1])
    box_of_tree = graph.constant(trees * model.share.shape[1])
    # The first cut of a tree is the same for all rows: so there are boxes (n, trees) at once.
    value = graph.op("Gather", ROWS, graph.constant(columns[:, 0]), axis=1)
    right = graph.op("GreaterOrEqual", value, graph.constant(cuts[:, 0]))
    at = graph.op("Add", graph.whole(right), graph.constant(np.array(1)))
    found = [graph.constant(model.share[:, 0])]
    for level in range(1, spec.depth + 1):
        found.append(graph.op("Gather", flat_share, graph.op("Add", at, box_of_tree)))
        if level == spec.depth:
            break
        cut = graph.op("Add", at, cut_of_tree)
        value = graph.op("GatherElements", ROWS, graph.op("Gather", flat_columns, cut), axis=1)
        right = graph.op("GreaterOrEqual", value, graph.op("Gather", flat_cuts, cut))
        child = graph.op("Add", graph.op("Add", at, at), graph.whole(right))
        at = graph.op("Add", child, graph.constant(np.array(1)))
    few = graph.constant(FEW)
    thinness = graph.op("Mul", found[-1], graph.constant(2.0**spec.depth))
    for level in reversed(range(spec.depth)):
        here = graph.op("Mul", found[level], graph.constant(2.0**level))
        ends = graph.op("LessOrEqual", found[level], few)
        thinness = graph.op("Where", ends, here, thinness)
    density = graph.op("Div", graph.total(thinness), graph.constant(float(spec.trees)))
    density = graph.op("Add", density, graph.constant(1e-3 * model.usual))
    return graph.op("Div", graph.constant(model.usual / LIMIT), density)


def _lagged(graph: Graph, model: LaggedModel, size: int) -> str:
    """Do as ``LaggedModel.follow``, row after row, from nothing remembered."""
    spec = model.spec
    zero, usual = graph.constant(0.0), graph.constant(model.usual)
    precision = graph.constant(model.precision)

    def distance(r: str) -> str:
        return graph.all(graph.op("Mul", r, graph.op("MatMul", precision, r)))

    def step(z: str, count: str, past: str, *charts: str) -> tuple[list[str], str]:
        behind = graph.op("Add", count, graph.constant(1.0))
        told = graph.op("MatMul", past, graph.constant(model.weights))
        told = graph.op("Add", told, graph.constant(model.intercept))
        whole = graph.op("GreaterOrEqual", count, graph.constant(float(spec.lags)))
        r = graph.op("Where", whole, graph.op("Sub", z, told), zero)
        t2 = graph.op("Where", whole, distance(r), usual)
        newer = graph.op("Concat", z, past, axis=0)
        newer = graph.op("Slice", newer, graph.constant([0]), graph.constant([spec.lags * size]))
        changed, found = [behind, newer], [t2]
        for i, weight in enumerate(spec.weights):
            by = graph.constant(weight)
            smooth, varies = charts[2 * i : 2 * i + 2]
            smooth = graph.op("Add", smooth, graph.op("Mul", by, graph.op("Sub", r, smooth)))
            varies = graph.op("Add", varies, graph.op("Mul", by, graph.op("Sub", t2, varies)))
            moved = graph.op("Mul", distance(smooth), graph.constant((2.0 - weight) / weight))
            changed += [smooth, varies]
            found += [moved, varies]
        scores = [
            graph.op("Div", graph.op("Max", one, zero), graph.constant(float(limit)))
            for one, limit in zip(found, model.limits, strict=True)
        ]
        return changed, graph.op("Sqrt", graph.op("Max", *scores))

    states = [("count", np.array(0.0)), ("past", np.zeros(spec.lags * size))]
    for i in range(len(spec.weights)):
        states += [(f"smooth{i}", np.zeros(size)), (f"varies{i}", np.array(model.usual))]
    return graph.scan(states, step)


# -- kinds of faults ------------------------------------------------------------------------


def _bayes(graph: Graph, model: BayesModel, _size: int) -> str:
    bayes = model.model
    rows = graph.op("Unsqueeze", graph.compressed(ROWS), graph.constant([1]))
    apart = graph.op("Sub", rows, graph.constant(bayes.means))
    fit = graph.op("Div", graph.op("Mul", apart, apart), graph.constant(bayes.variances))
    fit = graph.op("ReduceSum", fit, graph.constant([2]), keepdims=0)
    fit = graph.op("Mul", fit, graph.constant(-0.5))
    offsets = bayes.prior - 0.5 * np.log(2.0 * np.pi * bayes.variances).sum(axis=1)
    return graph.op("Softmax", graph.op("Add", fit, graph.constant(offsets)), axis=1)


def _linear(graph: Graph, model: LinearModel, size: int) -> str:
    expansion = Expansion.of(size, ridge_of(model.spec))
    phi = graph.expanded(graph.compressed(ROWS), expansion)
    scores = graph.op("Relu", graph.linear(phi, model.coefficients))
    kinds = model.coefficients.shape[1]
    sums = graph.op("ReduceSum", scores, graph.constant([1]), keepdims=1)
    nothing = graph.op("LessOrEqual", sums, graph.constant(0.0))
    divisor = graph.op("Where", nothing, graph.constant(1.0), sums)
    even = graph.constant(np.full((1, kinds), 1.0 / kinds))
    return graph.op("Where", nothing, even, graph.op("Div", scores, divisor))


def _classifier(graph: Graph, model: ClassifierModel, _size: int) -> str:
    return graph.op("Softmax", graph.layered(graph.compressed(ROWS), model.layers), axis=1)


_PARTS: dict[type, Callable[[Graph, Any, int], str]] = {
    RidgeModel: _ridge,
    LayersModel: _layers,
    HealthModel: _moments,
    ChartModel: _chart,
    ExtremesModel: _extremes,
    ClustersModel: _clusters,
    NetworkModel: _network,
    HalfSpaceModel: _half_space,
    LaggedModel: _lagged,
    BayesModel: _bayes,
    LinearModel: _linear,
    ClassifierModel: _classifier,
}
"""Of each model a release can hold: adds its operators, for rows of that many columns."""


def export(release: Release) -> dict[str, bytes]:
    """Return graphs of all models of a release, by file name.

    ``remaining_life.ridge.onnx`` and ``.sklearn.onnx``: raw feature vectors to hours ``(n,)``;
    ``score.onnx`` and ``kinds.onnx``: watched features in the asset's own deviations to the anomaly
    score ``(n,)`` and to shares of kinds ``(n, K)``. To a model that remembers (``lagged``) the
    rows of one run follow each other, from nothing remembered, as of ``Release.score``.
    """
    spec = release.manifest.asset_class
    features = FeatureSpec.of(spec)
    watched = [features.names[i] for i in features.columns(spec.health_stats)]
    kinds = [] if spec.faults is None else list(spec.faults.kinds)
    about = {
        "asset_class": spec.name,
        "version": str(release.version),
        "digest": release.digest,
        "spec_digest": spec.digest(),
    }
    files: dict[str, bytes] = {}

    def add(
        name: str,
        model: Predictor | Scorer | KindModel,
        columns: list[str],
        answers: list[str] | None = None,
    ) -> None:
        graph = Graph()
        answer = _PARTS[type(model)](graph, model, len(columns))
        told = {**about, "model": name, "columns": json.dumps(columns)}
        if answers is not None:
            told["answers"] = json.dumps(answers)
        outputs = None if answers is None else len(answers)
        files[f"{name}.onnx"] = graph.model(answer, len(columns), outputs, told)

    for name, predictor in release.rul.items():
        add(f"remaining_life.{name}", predictor, list(features.names))
    if release.health is not None:
        add("score", release.health, watched)
    if release.kinds is not None:
        add("kinds", release.kinds, watched, kinds)
    return files


def write(release: Release, folder: Path) -> list[Path]:
    """Write the graphs into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in export(release).items():
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    return paths

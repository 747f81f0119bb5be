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
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.arrays import Floats
from contract.errors import ContractError
from contract.features import FeatureSpec
from contract.models.chart import ChartModel
from contract.models.clusters import ClustersModel
from contract.models.extremes import ExtremesModel
from contract.models.healthy import Scorer
from contract.models.kinds import BayesModel, ClassifierModel, KindModel, LinearModel, ridge_of
from contract.models.layers import Layers, LayersModel
from contract.models.moments import HealthModel
from contract.models.network import NetworkModel
from contract.models.ridge import Basis, Expansion, RidgeModel
from contract.release import Predictor, Release

OPSET = 17
ROWS, ANSWER = "rows", "answer"


class Graph:
    """Nodes and constants of one graph, by the names that its operators give."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: Floats | float | list[int]) -> str:
        """Return the name of a constant: doubles, or whole numbers for axes and shapes."""
        name = f"c{len(self._constants)}"
        whole = isinstance(value, list)
        array = np.asarray(value, dtype=np.int64 if whole else np.float64)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; returns the name of its output."""
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(self, answer: str, width: int, outputs: int | None, about: dict[str, str]) -> bytes:
        """Return the graph's file.

        Args:
            answer: what it answers.
            width: columns of its rows.
            outputs: columns of its answer; None: one number a row.
            about: metadata.
        """
        self._nodes.append(helper.make_node("Identity", [answer], [ANSWER]))
        shape: list[str | int | None] = ["n"] if outputs is None else ["n", outputs]
        graph = helper.make_graph(
            self._nodes,
            about["model"],
            [helper.make_tensor_value_info(ROWS, TensorProto.DOUBLE, ["n", width])],
            [helper.make_tensor_value_info(ANSWER, TensorProto.DOUBLE, shape)],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="runout",
            ir_version=8,
        )
        helper.set_model_props(model, about)
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content

    # -- what several models are made of ----------------------------------------------------

    def total(self, rows: str) -> str:
        """Add up each row."""
        return self.op("ReduceSum", rows, self.constant([1]), keepdims=0)

    def largest(self, rows: str) -> str:
        """Return the largest of each row."""
        return self.op("ReduceMax", rows, axes=[1], keepdims=0)

    def within(self, value: str, low: float, high: float) -> str:
        """Clip."""
        return self.op("Clip", value, self.constant(low), self.constant(high))

    def cosine(self, value: str) -> str:
        """Return cosines: runtimes know the sine of doubles, and not all know their cosine."""
        return self.op("Sin", self.op("Add", value, self.constant(math.pi / 2)))

    def standardised(self, rows: str, basis: Basis) -> str:
        """Do as ``Basis.apply``."""
        centred = self.op("Sub", rows, self.constant(basis.mean))
        return self.within(self.op("Div", centred, self.constant(basis.scale)), -10.0, 10.0)

    def expanded(self, rows: str, expansion: Expansion) -> str:
        """Do as ``Expansion.apply``, without the column of ones."""
        drawn = self.op("MatMul", rows, self.constant(expansion.weights))
        drawn = self.op("Add", drawn, self.constant(expansion.offsets))
        drawn = self.cosine(drawn) if expansion.fourier else self.op("Relu", drawn)
        drawn = self.op("Mul", drawn, self.constant(expansion.gain))
        return self.op("Concat", rows, drawn, axis=1)

    def linear(self, rows: str, coefficients: Floats) -> str:
        """Multiply by coefficients whose first is that of the column of ones."""
        product = self.op("MatMul", rows, self.constant(coefficients[1:]))
        return self.op("Add", product, self.constant(coefficients[0]))

    def layered(self, rows: str, layers: Layers) -> str:
        """Go through layers with ReLU between them."""
        for i, (weights, offsets) in enumerate(layers):
            rows = self.op("MatMul", rows, self.constant(weights))
            rows = self.op("Add", rows, self.constant(offsets))
            rows = self.op("Relu", rows) if i < len(layers) - 1 else rows
        return rows

    def compressed(self, rows: str) -> str:
        """Do as ``contract.models.kinds.compressed``."""
        grown = self.op("Add", self.op("Abs", rows), self.constant(1.0))
        return self.op("Mul", self.op("Sign", rows), self.op("Log", grown))


# -- remaining life -------------------------------------------------------------------------


def _ridge(graph: Graph, model: RidgeModel) -> str:
    z = graph.standardised(ROWS, model.basis)
    z = graph.expanded(z, model.expansion) if model.spec.random else z
    return graph.within(graph.linear(z, model.coefficients), 0.0, model.cap_h)


def _layers(graph: Graph, model: LayersModel) -> str:
    hours = graph.layered(graph.standardised(ROWS, model.basis), model.layers)
    hours = graph.op("Mul", graph.total(hours), graph.constant(model.cap_h))
    return graph.within(hours, 0.0, model.cap_h)


# -- health ---------------------------------------------------------------------------------


def _moments(graph: Graph, model: HealthModel) -> str:
    along = graph.op("MatMul", ROWS, graph.constant(model.axes))
    back = graph.op("MatMul", along, graph.constant(np.ascontiguousarray(model.axes.T)))
    residual = graph.op("Sub", ROWS, back)
    variances = graph.constant(model.variances * model.t2_limit)
    t2 = graph.total(graph.op("Div", graph.op("Mul", along, along), variances))
    squared = graph.total(graph.op("Mul", residual, residual))
    spe = graph.op("Div", squared, graph.constant(model.spe_limit))
    return graph.op("Sqrt", graph.op("Max", t2, spe))


def _chart(graph: Graph, model: ChartModel) -> str:
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


def _extremes(graph: Graph, model: ExtremesModel) -> str:
    return graph.largest(graph.op("Div", graph.op("Abs", ROWS), graph.constant(model.limit)))


def _clusters(graph: Graph, model: ClustersModel) -> str:
    apart = graph.op(
        "Sub", graph.op("Unsqueeze", ROWS, graph.constant([1])), graph.constant(model.places)
    )
    squared = graph.op("ReduceSum", graph.op("Mul", apart, apart), graph.constant([2]), keepdims=0)
    nearest = graph.op("ReduceMin", squared, axes=[1], keepdims=0)
    return graph.op("Sqrt", graph.op("Div", nearest, graph.constant(model.limit)))


def _network(graph: Graph, model: NetworkModel) -> str:
    if model.spec.estimator == "SGDOneClassSVM":
        raise ContractError("a one-class SVM over random features is not exported")
    told = graph.layered(ROWS, model.layers)
    apart = graph.op("Sub", ROWS, told)
    distance = graph.total(graph.op("Mul", apart, apart))
    over = graph.op("Relu", graph.op("Sub", distance, graph.constant(model.centre)))
    return graph.op("Sqrt", graph.op("Div", over, graph.constant(model.limit)))


# -- kinds of faults ------------------------------------------------------------------------


def _bayes(graph: Graph, model: BayesModel) -> str:
    bayes = model.model
    rows = graph.op("Unsqueeze", graph.compressed(ROWS), graph.constant([1]))
    apart = graph.op("Sub", rows, graph.constant(bayes.means))
    fit = graph.op("Div", graph.op("Mul", apart, apart), graph.constant(bayes.variances))
    fit = graph.op("ReduceSum", fit, graph.constant([2]), keepdims=0)
    fit = graph.op("Mul", fit, graph.constant(-0.5))
    offsets = bayes.prior - 0.5 * np.log(2.0 * np.pi * bayes.variances).sum(axis=1)
    return graph.op("Softmax", graph.op("Add", fit, graph.constant(offsets)), axis=1)


def _linear(graph: Graph, model: LinearModel) -> str:
    columns = len(model.coefficients) - 1 - model.spec.random
    expansion = Expansion.of(columns, ridge_of(model.spec))
    phi = graph.expanded(graph.compressed(ROWS), expansion)
    scores = graph.op("Relu", graph.linear(phi, model.coefficients))
    kinds = model.coefficients.shape[1]
    sums = graph.op("ReduceSum", scores, graph.constant([1]), keepdims=1)
    nothing = graph.op("LessOrEqual", sums, graph.constant(0.0))
    divisor = graph.op("Where", nothing, graph.constant(1.0), sums)
    even = graph.constant(np.full((1, kinds), 1.0 / kinds))
    return graph.op("Where", nothing, even, graph.op("Div", scores, divisor))


def _classifier(graph: Graph, model: ClassifierModel) -> str:
    return graph.op("Softmax", graph.layered(graph.compressed(ROWS), model.layers), axis=1)


_RUL: dict[type, Callable[[Graph, Any], str]] = {RidgeModel: _ridge, LayersModel: _layers}
_HEALTH: dict[type, Callable[[Graph, Any], str]] = {
    HealthModel: _moments,
    ChartModel: _chart,
    ExtremesModel: _extremes,
    ClustersModel: _clusters,
    NetworkModel: _network,
}
_KINDS: dict[type, Callable[[Graph, Any], str]] = {
    BayesModel: _bayes,
    LinearModel: _linear,
    ClassifierModel: _classifier,
}


def _graph_of(
    parts: dict[type, Callable[[Graph, Any], str]], model: Predictor | Scorer | KindModel
) -> tuple[Graph, str]:
    make = parts.get(type(model))
    if make is None:
        name = type(model).__name__
        raise ContractError(f"{name}: a model that remembers or counts is no graph of ONNX's")
    graph = Graph()
    return graph, make(graph, model)


def export(release: Release) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return graphs of all models of a release by file name, and why others have none.

    ``remaining_life.ridge.onnx`` and ``.sklearn.onnx``: raw feature vectors to hours ``(n,)``;
    ``score.onnx`` and ``kinds.onnx``: watched features in the asset's own deviations to the anomaly
    score ``(n,)`` and to shares of kinds ``(n, K)``.
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
    problems: dict[str, str] = {}

    def add(
        name: str,
        parts: dict[type, Callable[[Graph, Any], str]],
        model: Predictor | Scorer | KindModel,
        columns: list[str],
        answers: list[str] | None,
    ) -> None:
        try:
            graph, answer = _graph_of(parts, model)
        except ContractError as error:
            problems[name] = str(error)
            return
        told = {**about, "model": name, "columns": json.dumps(columns)}
        if answers is not None:
            told["answers"] = json.dumps(answers)
        outputs = None if answers is None else len(answers)
        files[f"{name}.onnx"] = graph.model(answer, len(columns), outputs, told)

    for name, predictor in release.rul.items():
        add(f"remaining_life.{name}", _RUL, predictor, list(features.names), None)
    if release.health is not None:
        add("score", _HEALTH, release.health, watched, None)
    if release.kinds is not None:
        add("kinds", _KINDS, release.kinds, watched, kinds)
    return files, problems


def write(release: Release, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Write the graphs into a folder; returns their paths, and why models have none."""
    files, problems = export(release)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    return paths, problems

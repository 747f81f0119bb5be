"""One ONNX graph, built operator by operator: double precision, one input of rows, one answer.

Needs the package ``onnx`` (``runout[onnx]``).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.arrays import Floats
from contract.models.layers import Layers
from contract.models.ridge import Basis, Expansion

OPSET = 17
ROWS, ANSWER = "rows", "answer"


class Graph:
    """Nodes and constants of one graph, by the names that its operators give."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._named = 0
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: Floats | float | list[int] | NDArray[np.int64]) -> str:
        """Return the name of a constant: doubles, or whole numbers for places, axes and shapes."""
        name = f"c{len(self._constants)}"
        array = np.asarray(value)
        whole = isinstance(value, list) or array.dtype.kind == "i"
        array = array.astype(np.int64 if whole else np.float64)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; returns the name of its output."""
        name = f"n{self._named}"
        self._named += 1
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def scan(
        self, states: list[tuple[str, Floats]], step: Callable[..., tuple[list[str], str]]
    ) -> str:
        """Go through the rows one after the other, from states that each step changes.

        Args:
            states: name and first value of each.
            step: given the name of a row ``(F,)`` and of each state, adds the operators of one
                step; returns the names of the new states, and of what is told of the row.

        Returns:
            The name of what is told of all rows ``(n,)``.
        """
        outside, self._nodes = self._nodes, []
        row = f"{ROWS}_one"
        changed, told = step(row, *(name for name, _ in states))
        inside, self._nodes = self._nodes, outside
        double = TensorProto.DOUBLE
        shapes = [list(value.shape) for _, value in states]
        body = helper.make_graph(
            inside,
            "step",
            [
                *(
                    helper.make_tensor_value_info(name, double, shape)
                    for (name, _), shape in zip(states, shapes, strict=True)
                ),
                helper.make_tensor_value_info(row, double, None),
            ],
            [
                *(
                    helper.make_tensor_value_info(name, double, shape)
                    for name, shape in zip(changed, shapes, strict=True)
                ),
                helper.make_tensor_value_info(told, double, []),
            ],
        )
        first = [self.constant(value) for _, value in states]
        ends = [f"{name}_end" for name, _ in states]
        found = f"{told}_all"
        self._nodes.append(
            helper.make_node("Scan", [*first, ROWS], [*ends, found], body=body, num_scan_inputs=1)
        )
        return found

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

    def all(self, values: str) -> str:
        """Add up everything."""
        return self.op("ReduceSum", values, keepdims=0)

    def whole(self, values: str) -> str:
        """Make whole numbers of them."""
        return self.op("Cast", values, to=TensorProto.INT64)

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

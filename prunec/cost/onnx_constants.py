"""Weights of ONNX operators: initialisers, also behind operators that only move their values.

Moved values are computed by ONNX's reference implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from prunec.cost import Weight
from prunec.cost.onnx_operators import zero_point
from prunec.cost.onnx_parameters import Use
from prunec.errors import PrunecError

# These keep every value exactly once, so zeros can be counted at the source.
_WHOLE = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
# These move values too, but may drop, repeat or combine them.
_PARTS = frozenset({"Concat", "Expand", "Gather", "Slice", "Split", "Tile", "Cast", "CastLike"})
# These keep one entry per value, but change which of them are zero.
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LATER = (helper.make_opsetid("", 21),)
_MOVES = _WHOLE | _PARTS | _QUANTISED
# Raised by ONNX's reference implementation where it lacks an operator, a type or a variant.
_CANNOT_MOVE = (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError, IndexError)


class Constants:
    """Stored tensors of a graph, and values that do not depend on its inputs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._opsets = model.opset_import
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._sources = {name: (name,) for name in self._tensors}
        self._nonzero: dict[str, int] = {}
        self._values: dict[str, np.ndarray] = {}
        self._per_sample = {v.name for v in graph.input if v.name not in self._tensors}
        for node in graph.node:
            given = [name for name in node.input if name]
            # Nodes are in topological order, so one pass suffices.
            if not self._per_sample.isdisjoint(given):
                self._per_sample.update(node.output)
            elif node.op_type in _MOVES and all(name in self._sources for name in given):
                moved = given if node.op_type == "Concat" else given[:1]  # the rest are arguments
                listed = tuple(dict.fromkeys(s for name in moved for s in self._sources[name]))
                self._makers |= dict.fromkeys(node.output, node)
                self._sources |= dict.fromkeys(node.output, listed)

    def per_sample(self, node: onnx.NodeProto) -> bool:
        """Return whether an operator depends on an input, even if only on its batch size."""
        return not self._per_sample.isdisjoint(node.input)

    def weight(self, name: str, zero: str = "") -> Weight | None:
        """Return the weights that a value holds, or None if it is not made of weights.

        Args:
            name: name of the value.
            zero: name of its zero points, one in total or one per output channel.
        """
        if name not in self._sources or (zero and zero not in self._sources):
            return None
        sources = self._sources[name]
        source = self._source(name)
        if source is not None and not zero:
            return Weight(sources, math.prod(source.dims), self.nonzero(source), sources)
        try:
            value = self._value(name)
            nonzero = int(np.count_nonzero(_centred(value, self._value(zero)) if zero else value))
        except _CANNOT_MOVE:
            return None
        stored = sum(math.prod(self._tensors[source].dims) for source in sources)
        # A part of a tensor is a weight of its own; the whole one counts once.
        key = sources if stored == value.size else name
        return Weight(sources, value.size, nonzero, key)

    def nonzero_as_read(self, tensor: onnx.TensorProto, read: Sequence[Use]) -> int:
        """Return the number of non-zero entries, quantised tensors by the zero points of their
        readers.
        """
        for node, place in read:
            zero = zero_point(node, tensor.name)
            weight = self.weight(tensor.name, zero) if zero else None
            if node.op_type == "DequantizeLinear" and place == 0:
                weight = self.weight(node.output[0])
            if weight is not None:
                return weight.nonzero
        return self.nonzero(tensor)

    def nonzero(self, tensor: onnx.TensorProto) -> int:
        """Return the number of non-zero entries of a stored tensor."""
        if tensor.name not in self._nonzero:
            self._nonzero[tensor.name] = int(np.count_nonzero(_array(tensor)))
        return self._nonzero[tensor.name]

    def _source(self, name: str) -> onnx.TensorProto | None:
        """Return the stored tensor that a value is in another order or shape, or None."""
        while name in self._makers and self._makers[name].op_type in _WHOLE:
            name = self._makers[name].input[0]
        return self._tensors.get(name)

    def _value(self, name: str) -> np.ndarray:
        if name in self._tensors:
            return _array(self._tensors[name])
        if name not in self._values:
            node = self._makers[name]
            given = {source: self._value(source) for source in node.input if source}
            made = self._evaluator(node).run(None, given)
            self._values |= {o: np.asarray(v) for o, v in zip(node.output, made, strict=True)}
        return self._values[name]

    def _evaluator(self, node: onnx.NodeProto) -> ReferenceEvaluator:
        graph = helper.make_graph(
            [node],
            "move",
            [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name],
            [onnx.ValueInfoProto(name=name) for name in node.output],
        )
        # The reference implements these from opset 19 on; earlier versions have the same semantics.
        opsets = _LATER if node.op_type in _QUANTISED else self._opsets
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))


def _centred(value: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return whether each integer differs from the zero point of its output channel."""
    # Output channels are the first axis of a convolution's weight, the last of a matrix product's.
    if zero.size > 1 and value.shape[-1:] != zero.shape:
        zero = zero.reshape(-1, *[1] * (value.ndim - 1))
    differs: np.ndarray = np.not_equal(value, zero)
    return differs


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    if external_data_helper.uses_external_data(tensor):
        raise PrunecError(
            f"the weights of {tensor.name} are in an external file that was not loaded",
            remedy="Pass the path of the .onnx file instead of the parsed model.",
        )
    return numpy_helper.to_array(tensor)

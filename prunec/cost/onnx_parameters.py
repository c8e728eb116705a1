"""Tells which initialisers of an ONNX graph are parameters: by marks, else by their readers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import onnx

from prunec.cost import ROLE

_FLOATS = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    }
)

# Operator → inputs that are settings or statistics, not weights.
_SETTINGS: Mapping[str, frozenset[int]] = {
    "BatchNormalization": frozenset({3, 4}),
    "Clip": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "Dropout": frozenset({1}),
    "OneHot": frozenset({2}),
    "Pad": frozenset({2}),
    "QLinearConv": frozenset({1, 2, 4, 5, 6, 7}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}),
    "QuantizeLinear": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
}

_ARITHMETIC = frozenset(
    {"Add", "Div", "Mul", "Sub", "Pow", "Max", "Min", "Mod", "Where", "Expand", "CastLike"}
    | {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
)

_INTEGERS = frozenset(
    {("DequantizeLinear", 0)}
    | {(name, place) for name in ("QLinearConv", "QLinearMatMul") for place in (0, 3, 8)}
    | {(name, place) for name in ("ConvInteger", "MatMulInteger") for place in (0, 1)}
)
"""Operator and input that read quantised weights."""

Use = tuple[onnx.NodeProto, int]
"""A reader of a value, and at which input."""


def uses(graph: onnx.GraphProto) -> dict[str, list[Use]]:
    """Return for each value the operators that read it and at which input."""
    found: dict[str, list[Use]] = defaultdict(list)
    for node in graph.node:
        for index, name in enumerate(node.input):
            found[name].append((node, index))
    return found


def is_parameter(tensor: onnx.TensorProto, read: Sequence[Use]) -> bool:
    """Say whether an initialiser was learnt, given who reads it."""
    role = {entry.key: entry.value for entry in tensor.metadata_props}.get(ROLE, "")
    if role:
        return bool(role == "parameter")
    return any(_learnt(tensor, use) for use in read)


def _learnt(tensor: onnx.TensorProto, use: Use) -> bool:
    operator, index = use[0].op_type, use[1]
    if (operator, index) in _INTEGERS:
        return True
    if tensor.data_type not in _FLOATS or index in _SETTINGS.get(operator, ()):
        return False
    return operator not in _ARITHMETIC or math.prod(tensor.dims) > 1

"""Distinction of parameters from other initialisers of an ONNX graph: by marks, else by readers."""

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

# Operator → indices of inputs that are settings or statistics, not weights.
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
"""(operator, input index) pairs that read quantised weights."""

Use = tuple[onnx.NodeProto, int]
"""A reader of a value, and the index of the input that reads it."""


def uses(graph: onnx.GraphProto) -> dict[str, list[Use]]:
    """Return value → its readers."""
    readers: dict[str, list[Use]] = defaultdict(list)
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
    return readers


def is_parameter(tensor: onnx.TensorProto, read: Sequence[Use]) -> bool:
    """Return whether an initialiser was learnt, given its readers."""
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
    # Single numbers in arithmetic are constants of the code, such as the 3 of a hard swish.
    return operator not in _ARITHMETIC or math.prod(tensor.dims) > 1

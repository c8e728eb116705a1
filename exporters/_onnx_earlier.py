"""Rules that express changed operators in the operators of earlier opsets.

A rule returns equivalent nodes. A single node of the same operator has the form of the requested
opset; several nodes, or another operator, have the file's current form and go through the rules
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from prunec.exporters._onnx_earlier_shapes import SHAPES
from prunec.exporters._onnx_graph import Needs, RewrittenGraph, attribute

Nodes = list[onnx.NodeProto]
Write = Callable[[onnx.NodeProto, RewrittenGraph, int], Nodes]


@dataclass(frozen=True)
class Rule:
    """Rewriting of an operator at opsets below ``below``."""

    below: int
    write: Write


def _of(
    node: onnx.NodeProto, operator: str, inputs: list[str], output: str, **options: Any
) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], f"{node.name}/{operator}", **options)


def _clip(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    # Before opset 11 bounds are attributes.
    for place, name in ((1, "min"), (2, "max")):
        bound = graph.constant(node, place, 11)
        if bound is not None:
            graph.set(node, name, float(bound))
    del node.input[1:]
    return [node]


def _softmax(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Rewrite for opsets before 13, which take all axes from the given one on; over the last axis
    both agree.
    """
    rank = graph.rank(node.input[0])
    if rank is None:
        raise Needs(node, 13, "the rank of its input is unknown")
    axis = attribute(node, "axis", -1) % rank
    graph.set(node, "axis", rank - 1)
    if axis == rank - 1:
        return [node]
    order = [*range(rank)]
    order[axis], order[-1] = order[-1], order[axis]
    turned, result = f"{node.output[0]}/turned", f"{node.output[0]}/last"
    sizes = graph.sizes(node.input[0])
    before = _of(node, "Transpose", [node.input[0]], turned, perm=order)
    after = _of(node, "Transpose", [result], node.output[0], perm=order)
    node.input[0], node.output[0] = turned, result
    graph.tell(turned, graph.type(before.input[0]), [sizes[i] for i in order] if sizes else None)
    return [before, node, after]


def _layer_norm(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    rank = graph.rank(node.input[0])
    if rank is None or len([name for name in node.output if name]) > 1:
        raise Needs(node, 17, "the rank of its input is unknown" if rank is None else "")
    axes = [*range(attribute(node, "axis", -1) % rank, rank)]
    x, y = node.input[0], node.output[0]
    kind = helper.tensor_dtype_to_np_dtype(graph.type(x))
    listed = graph.store(np.array(axes, np.int64))
    epsilon = graph.store(np.array(attribute(node, "epsilon", 1e-5), kind))
    # Ba et al. 2016 (1607.06450): (x − mean)/√(variance + ε)·γ + β.
    made = [
        _of(node, "ReduceMean", [x, listed], f"{y}/mean", keepdims=1),
        _of(node, "Sub", [x, f"{y}/mean"], f"{y}/centred"),
        _of(node, "Mul", [f"{y}/centred", f"{y}/centred"], f"{y}/squared"),
        _of(node, "ReduceMean", [f"{y}/squared", listed], f"{y}/variance", keepdims=1),
        _of(node, "Add", [f"{y}/variance", epsilon], f"{y}/safe"),
        _of(node, "Sqrt", [f"{y}/safe"], f"{y}/spread"),
        _of(node, "Div", [f"{y}/centred", f"{y}/spread"], f"{y}/normal"),
        _of(node, "Mul", [f"{y}/normal", node.input[1]], f"{y}/scaled"),
    ]
    if len(node.input) > 2 and node.input[2]:
        made.append(_of(node, "Add", [f"{y}/scaled", node.input[2]], y))
    # Without β the product is the output.
    made[-1].output[0] = y
    return made


def _hard_swish(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    x, y = node.input[0], node.output[0]
    # x·max(0, min(1, x/6 + ½)), Howard et al. 2019 (1905.02244).
    share = _of(node, "HardSigmoid", [x], f"{y}/share", alpha=1 / 6, beta=0.5)
    return [share, _of(node, "Mul", [x, f"{y}/share"], y)]


def _mish(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    x, y = node.input[0], node.output[0]
    # x·tanh(softplus(x)), Misra 2019 (1908.08681).
    soft = _of(node, "Softplus", [x], f"{y}/soft")
    bent = _of(node, "Tanh", [f"{y}/soft"], f"{y}/bent")
    return [soft, bent, _of(node, "Mul", [x, f"{y}/bent"], y)]


def _or_equal(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    y, inputs = node.output[0], list(node.input)
    part = node.op_type.removesuffix("OrEqual")
    return [
        _of(node, part, inputs, f"{y}/part"),
        _of(node, "Equal", inputs, f"{y}/equal"),
        _of(node, "Or", [f"{y}/part", f"{y}/equal"], y),
    ]


def _cast_like(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    kind = graph.type(node.input[1])
    if not kind:
        raise Needs(node, 15, "the type of its input is unknown")
    return [_of(node, "Cast", [node.input[0]], node.output[0], to=kind)]


def _gemm(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Add a zero addend, which is required before opset 11."""
    if len(node.input) < 3 or not node.input[2]:
        kind = helper.tensor_dtype_to_np_dtype(graph.type(node.input[1]))
        del node.input[2:]
        node.input.append(graph.store(np.zeros(1, kind)))
    return [node]


def _resize(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Rewrite for opsets before 13 (missing sizes are empty) and 11 (only plain repetition
    exists).
    """
    if attribute(node, "axes") is not None:
        raise Needs(node, 18, "on some axes only")
    inputs = [*node.input, "", "", ""][:4]
    if opset >= 11:
        empty = graph.store(np.zeros(0, np.float32))
        inputs[1:3] = [name or empty for name in inputs[1:3]]
        del node.input[:]
        node.input.extend(inputs if inputs[3] else inputs[:3])
        return [node]
    # Opsets 9 and 10 have no attributes for coordinates: they compute as asymmetric and floor do.
    mode, how = attribute(node, "mode", "nearest"), attribute(node, "nearest_mode", "")
    place = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if (mode, how, place) != ("nearest", "floor", "asymmetric") or not inputs[2]:
        raise Needs(node, 11, f"{mode}, {place}")
    scales = graph.constant(node, 2, 11)
    # Upsample, of opset 9, has no scales below 1.
    if scales is None or (opset < 10 and scales.min() < 1):
        raise Needs(node, 10 if scales is not None else 11)
    made = helper.make_node(
        "Resize" if opset == 10 else "Upsample", [inputs[0], inputs[2]], node.output, node.name
    )
    made.attribute.append(helper.make_attribute("mode", mode))
    return [made]


def _roi_align(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Rewrite for opsets before 16, whose only mode is today's ``output_half_pixel``."""
    name = "coordinate_transformation_mode"
    if attribute(node, name, "half_pixel") != "output_half_pixel":
        raise Needs(node, 16, "regions shifted by half a pixel")
    graph.set(node, name, None)
    return [node]


def _max_pool(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    # Dilations came with opset 10; of 1 they say nothing.
    if set(attribute(node, "dilations", [1])) == {1}:
        graph.set(node, "dilations", None)
    return [node]


RULES: dict[str, Rule] = {
    "CastLike": Rule(15, _cast_like),
    "Clip": Rule(11, _clip),
    "Gemm": Rule(11, _gemm),
    "GreaterOrEqual": Rule(12, _or_equal),
    "HardSwish": Rule(14, _hard_swish),
    "Hardmax": Rule(13, _softmax),
    "LayerNormalization": Rule(17, _layer_norm),
    "LessOrEqual": Rule(12, _or_equal),
    "LogSoftmax": Rule(13, _softmax),
    "MaxPool": Rule(10, _max_pool),
    "Mish": Rule(18, _mish),
    "Resize": Rule(18, _resize),
    "RoiAlign": Rule(16, _roi_align),
    "Softmax": Rule(13, _softmax),
    **{name: Rule(below, write) for name, (below, write) in SHAPES.items()},
}
"""Operator → its rule; other operators differ only in types, or in attributes that are left out."""

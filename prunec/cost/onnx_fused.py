"""Operators that onnxruntime fuses, replaced by standard operators of equal cost and shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from onnx import helper

DOMAIN = "com.microsoft"


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with countable operators in place of fused ones; others stay.

    Only cost and shapes are preserved: activations and sums, which count 0, are dropped.
    """
    if not any(node.domain == DOMAIN and node.op_type in _SAME for node in model.graph.node):
        return model
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    axes = {tensor.name: len(tensor.dims) for tensor in copied.graph.initializer}
    nodes = [standard for node in copied.graph.node for standard in _standard(node, axes)]
    del copied.graph.node[:]
    copied.graph.node.extend(nodes)
    return copied


def _standard(node: onnx.NodeProto, axes: Mapping[str, int]) -> list[onnx.NodeProto]:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    if node.domain == DOMAIN and node.op_type in _SAME:
        return _SAME[node.op_type](copied, axes)
    return [copied]


def _without(node: onnx.NodeProto, operator: str, inputs: int, kept: str) -> onnx.NodeProto:
    attributes = [a for a in node.attribute if a.name in kept.split()]
    made = helper.make_node(operator, node.input[:inputs], node.output[:1], node.name)
    made.attribute.extend(attributes)
    return made


def _convolution(node: onnx.NodeProto, axes: Mapping[str, int]) -> list[onnx.NodeProto]:
    kept = "auto_pad dilations group kernel_shape pads strides"
    return [_without(node, "Conv", 3, kept)]


def _gemm(node: onnx.NodeProto, axes: Mapping[str, int]) -> list[onnx.NodeProto]:
    return [_without(node, "Gemm", 3, "alpha beta transA transB")]


def _matmul(node: onnx.NodeProto, axes: Mapping[str, int]) -> list[onnx.NodeProto]:
    """Return an einsum of activations with equal batch axes, or a product with a stored matrix."""
    given = {a.name for a in node.attribute if a.i}
    first, second = node.input[:2]
    # Batch axes in another order have no standard operator of equal shape.
    if given & {"transBatchA", "transBatchB"}:
        return [node]
    if second in axes and "transA" not in given:
        return _stored(node, axes[second], turned="transB" in given)
    left = "...ki" if "transA" in given else "...ik"
    right = "...jk" if "transB" in given else "...kj"
    right = right.removeprefix("...") if axes.get(second) == 2 else right
    equation = f"{left},{right}->...ij"
    return [
        helper.make_node("Einsum", [first, second], node.output[:1], node.name, equation=equation)
    ]


def _stored(node: onnx.NodeProto, axes: int, *, turned: bool) -> list[onnx.NodeProto]:
    first, second = node.input[:2]
    if not turned or axes < 2:
        return [helper.make_node("MatMul", [first, second], node.output[:1], node.name)]
    order = [*range(axes - 2), axes - 1, axes - 2]
    other = f"{node.output[0]}/turned"
    return [
        helper.make_node("Transpose", [second], [other], perm=order),
        helper.make_node("MatMul", [first, other], node.output[:1], node.name),
    ]


def _elementwise(node: onnx.NodeProto, axes: Mapping[str, int]) -> list[onnx.NodeProto]:
    return [_without(node, "Identity", 1, "")]


_SAME: dict[str, Callable[[onnx.NodeProto, Mapping[str, int]], list[onnx.NodeProto]]] = {
    "FusedConv": _convolution,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "TransposeMatMul": _matmul,
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), _elementwise),
}

"""Operators with weights: convolutions, matrix products, norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from prunec.deploy.compaction.reading import Call
from prunec.graph.capture.node import Node

_RANKS = (3, 4, 5)


def convolution(call: Call) -> Node | None:
    """Translate Conv, whose padding may differ at the two ends of an axis."""
    weight = call.value(1).shape
    if len(weight) not in _RANKS or (call.has(2) and not call.is_constant(2)):
        return None
    before, after = _padding(call, weight[2:])
    return call.call(
        f"conv{len(weight) - 2}d",
        {
            "input": call.node(0),
            "weight": call.weight(1),
            "bias": call.beside(1, 2) if call.has(2) else None,
            "stride": _per_axis(call, "strides", len(weight) - 2),
            "padding": before,
            "padding_after": after,
            "dilation": _per_axis(call, "dilations", len(weight) - 2),
            "groups": call.attribute("group", 1),
        },
    )


def transposed_convolution(call: Call) -> Node | None:
    """Translate ConvTranspose; padding does not matter, as each tap counts as a border tap."""
    weight = call.value(1).shape
    if len(weight) not in _RANKS or (call.has(2) and not call.is_constant(2)):
        return None
    return call.call(
        f"conv_transpose{len(weight) - 2}d",
        {
            "input": call.node(0),
            "weight": call.weight(1),
            "bias": call.beside(1, 2) if call.has(2) else None,
            "stride": _per_axis(call, "strides", len(weight) - 2),
            "padding": [0] * (len(weight) - 2),
            "dilation": _per_axis(call, "dilations", len(weight) - 2),
            "groups": call.attribute("group", 1),
        },
    )


def gemm(call: Call) -> Node | None:
    """Translate a linear map: α = β = 1, first operand not transposed."""
    usual = call.attribute("alpha", 1.0) == call.attribute("beta", 1.0) == 1.0
    if not usual or call.attribute("transA", 0) or not call.is_constant(1):
        return None
    size = call.made.shape[-1]
    if call.has(2) and not (call.is_constant(2) and _of_columns(call.value(2).shape, size)):
        return None
    turned = not call.attribute("transB", 0)
    bias = call.beside(1, 2, turned=turned) if call.has(2) else None
    named = {"input": call.node(0), "weight": call.weight(1, turned=turned), "bias": bias}
    return call.call("linear", named)


def _of_columns(shape: tuple[int, ...], size: int) -> bool:
    """Return whether an addend of a product is one number per column."""
    return math.prod(shape) == size and shape[-1:] == (size,)


def matmul(call: Call) -> Node | None:
    """Translate a product of activations, or of activations and a stored matrix."""
    stored = [call.is_constant(i) and len(call.value(i).shape) == 2 for i in (0, 1)]
    first, second = (
        call.weight(i) if stored[i] and not all(stored) else call.node(i) for i in (0, 1)
    )
    return call.call("matmul", {"self": first, "other": second})


def batch_norm(call: Call) -> Node | None:
    """Translate a batch norm with running statistics."""
    outputs = [name for name in call.proto.output if name]
    stored = all(call.is_constant(i) for i in range(1, 5))
    if len(outputs) != 1 or not stored or call.attribute("training_mode", 0):
        return None
    if call.attribute("spatial", 1) != 1:
        return None
    keys = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}
    return call.call(
        "batch_norm",
        {
            "input": call.node(0),
            **{key: call.node(index) for key, index in keys.items()},
            "eps": call.attribute("epsilon", 1e-5),
        },
    )


def instance_norm(call: Call) -> Node | None:
    """Translate a norm of each channel over its positions."""
    if not (call.is_constant(1) and call.is_constant(2)) or len(call.made.shape) < 3:
        return None
    named = {"input": call.node(0), "weight": call.node(1), "bias": call.node(2),
             "running_mean": None, "running_var": None, "use_input_stats": True,
             "eps": call.attribute("epsilon", 1e-5)}  # fmt: skip
    return call.call("instance_norm", named)


def group_norm(call: Call) -> Node | None:
    """Translate a norm of channel groups; before opset 21 its factors are per group."""
    if not (call.is_constant(1) and call.is_constant(2)) or call.opset < 21:
        return None
    named = {"input": call.node(0), "num_groups": call.attribute("num_groups"),
             "weight": call.node(1), "bias": call.node(2),
             "eps": call.attribute("epsilon", 1e-5)}  # fmt: skip
    return call.call("group_norm", named)


def layer_norm(call: Call) -> Node | None:
    """Translate a norm over the axes from ``axis`` on."""
    outputs = [name for name in call.proto.output if name]
    stored = call.is_constant(1) and (call.is_constant(2) or not call.has(2))
    if len(outputs) != 1 or not stored:
        return None
    shape = call.made.shape
    axis = int(call.attribute("axis", -1)) % len(shape)
    if call.value(1).shape != shape[axis:]:
        return None
    named = {"input": call.node(0), "normalized_shape": list(shape[axis:]),
             "weight": call.node(1), "bias": call.node(2) if call.has(2) else None,
             "eps": call.attribute("epsilon", 1e-5)}  # fmt: skip
    return call.call("layer_norm", named)


def _per_axis(call: Call, name: str, rank: int) -> list[int]:
    return list(call.attribute(name) or [1] * rank)


def _padding(call: Call, kernel: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return the padding before and after each axis, at most."""
    rank = len(kernel)
    how = call.attribute("auto_pad", "NOTSET")
    if how.startswith("SAME"):  # depends on the size, which may be open: take the most
        dilation = _per_axis(call, "dilations", rank)
        most = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        return most, most
    pads = [0] * (2 * rank) if how == "VALID" else list(call.attribute("pads") or [0] * 2 * rank)
    return pads[:rank], pads[rank:]


TRANSLATIONS: Mapping[str, Callable[[Call], Node | None]] = {
    "Conv": convolution, "ConvTranspose": transposed_convolution, "Gemm": gemm,
    "MatMul": matmul, "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm, "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
}  # fmt: skip

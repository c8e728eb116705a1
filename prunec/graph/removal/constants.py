"""Channels whose value is known, whatever the input.

A value is propagated per position of a layout, in float64, NaN standing for *unknown*.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.operators.kernels import bias_name
from prunec.graph.channels.structure import Kernel, Structure
from prunec.graph.channels.weights import Weights

NAN = float("nan")
_FILLS = {"zeros_like": 0.0, "zero": 0.0, "ones_like": 1.0}


def propagate(structure: Structure, weights: Weights) -> dict[Node, Tensor]:
    """Value of every position of every layout, NaN where unknown, float64, in the layout's shape.

    Args:
        structure: of the captured network.
        weights: of the network; a kernel's bias may have been added.
    """
    known: dict[Node, Tensor] = {}
    for node in structure.layouts:
        if node.op != "call_function":
            known[node] = _stored(structure, node, weights)
    for node in structure.captured.nodes:
        if node.op == "call_function" and node in structure.layouts:
            layout = structure.layouts[node]
            value = _value(structure, node, known, weights)
            known[node] = _fit(value, tuple(layout.shape))
    return known


def along(values: Tensor, axis: int, size: int) -> Tensor:
    """Values along one axis, shape (size,); NaN where they differ along another."""
    rank = values.dim()
    axis %= rank
    shape = tuple(values.shape[i] if i == axis else 1 for i in range(rank))
    return (
        _fit(values, shape).reshape(-1).expand(size)
        if shape[axis] == 1
        else _fit(values, shape).reshape(-1)
    )


def _stored(structure: Structure, node: Node, weights: Weights) -> Tensor:
    shape = tuple(structure.layouts[node].shape)
    if node.op == "get_attr":
        name = str(node.target)
        value = weights.stored(name) if name in weights else None
        if value is not None and tuple(value.shape) == shape and value.is_floating_point():
            return weights[name]
    return torch.full(shape, NAN, dtype=torch.float64)


def _fit(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Shrink or expand to a shape; a shrunk axis keeps a value only if all along it agree."""
    if value.dim() != len(shape):
        return torch.full(shape, NAN, dtype=torch.float64)
    for axis, size in enumerate(shape):
        if value.shape[axis] > 1 and size == 1:
            first = value.narrow(axis, 0, 1)
            same = (value == first).all(axis, keepdim=True)
            value = torch.where(same, first, torch.full_like(first, NAN))
    return value.expand(shape)


def _value(structure: Structure, node: Node, known: dict[Node, Tensor], weights: Weights) -> Tensor:
    kind = structure.kinds.get(node, "refused")
    if kind == "kernel":
        return _kernel(structure.kernels[node], known, weights).reshape(
            structure.layouts[node].shape
        )
    if kind == "norm":
        return _norm(structure, node, known, weights)
    if kind == "move":
        link = structure.links[node]
        flat = torch.cat([known[x].reshape(-1) for x in link.operands])
        moved = torch.where(link.index < 0, link.fill, flat[link.index.clamp(min=0)])
        return moved.reshape(structure.layouts[node].shape)
    if kind == "elementwise":
        return _elementwise(structure, node, known)
    if kind == "alike":
        values = [known[x] for x in node.all_input_nodes if x in known]
        shape = structure.layouts[node].shape
        same = torch.stack([v.expand(shape) for v in values])
        return torch.where((same == same[0]).all(0), same[0], NAN)
    if kind == "rule":
        return structure.rules[node].value(known, weights)
    if kind == "like":
        fill = _FILLS.get(ops.op_name(node), ops.arguments(node).get("fill_value"))
        fill = ops.arguments(node).get("value") if fill is None else fill
        number = float(fill) if isinstance(fill, (int, float)) else NAN
        return torch.full(tuple(structure.layouts[node].shape), number, dtype=torch.float64)
    if kind in ("identity", "window", "reduction", "border", "prelu"):
        source = known[node.all_input_nodes[0]]
        return _one_source(structure, node, kind, source, weights)
    return torch.full(tuple(structure.layouts[node].shape), NAN, dtype=torch.float64)


def _one_source(
    structure: Structure, node: Node, kind: str, value: Tensor, weights: Weights
) -> Tensor:
    if kind == "prelu":
        slope = weights[str(node.all_input_nodes[1].target)].to(torch.float64)
        shape = [1] * value.dim()
        shape[min(1, value.dim() - 1)] = -1
        return torch.where(value >= 0, value, value * slope.reshape(shape))
    if kind == "border" and not _repeats(node):
        fill = float(ops.arguments(node).get("value") or 0.0)
        return torch.where(value == fill, value, NAN)
    if kind == "window" and not uniform_window(structure, node):
        return torch.where(value == 0, value, NAN)
    if kind == "window":
        value = value * _factor(node)
    if kind == "reduction":
        rank = len(structure.captured.shape(node.all_input_nodes[0]))
        dims = ops.arguments(node)["dim"]
        for axis in sorted(
            {d % rank for d in ([dims] if isinstance(dims, int) else dims)}, reverse=True
        ):
            value = _fit(value, tuple(1 if i == axis else s for i, s in enumerate(value.shape)))
            value = value if ops.arguments(node).get("keepdim") else value.squeeze(axis)
        if ops.op_name(node) == "sum":
            return torch.where(value == 0, value, NAN)
    return value


def _repeats(node: Node) -> bool:
    """Whether a padding repeats values that are there, instead of putting a number."""
    mode = ops.arguments(node).get("mode")
    return mode not in (None, "constant") or ops.op_name(node) in (
        "reflection_pad2d",
        "replication_pad2d",
    )


def uniform_window(structure: Structure, node: Node) -> bool:
    """Whether a window over a constant gives the same everywhere."""
    if not ops.op_name(node).startswith("avg_pool"):
        return True
    named = ops.arguments(node)
    rank = int(ops.op_name(node)[-2])
    if named.get("divisor_override") is None:  # what a window leaves out, its divisor does as well
        return not named["count_include_pad"] or not any(ops.single(named["padding"], rank))
    kernel = ops.single(named["kernel_size"], rank)
    stride = ops.single(named["stride"] or kernel, rank)
    padding = ops.single(named["padding"], rank)
    inputs = structure.captured.shape(node.all_input_nodes[0])[-rank:]
    outputs = structure.captured.shape(node)[-rank:]
    return all(
        p == 0 and (o - 1) * s + k <= i
        for p, o, s, k, i in zip(padding, outputs, stride, kernel, inputs, strict=True)
    )


def _factor(node: Node) -> float:
    """What a uniform window makes of a constant: its size over the divisor that was asked for."""
    divisor = ops.arguments(node).get("divisor_override")
    if divisor is None:
        return 1.0
    rank = int(ops.op_name(node)[-2])
    return math.prod(ops.single(ops.arguments(node)["kernel_size"], rank)) / float(divisor)


def _elementwise(structure: Structure, node: Node, known: dict[Node, Tensor]) -> Tensor:
    operands = [x for x in node.all_input_nodes if x in known]
    shape = tuple(structure.layouts[node].shape)
    if ops.op_name(node) in ("where", "masked_fill"):
        return torch.full(shape, NAN, dtype=torch.float64)
    replace = {x: known[x] for x in operands}

    def put(argument: object) -> object:
        if isinstance(argument, Node):
            return replace.get(argument, structure.captured.concrete(argument))
        return argument

    kwargs = {key: put(value) for key, value in node.kwargs.items()}
    result = node.target(*[put(a) for a in node.args], **kwargs)  # type: ignore[operator]
    assert isinstance(result, Tensor)
    unknown = torch.zeros(shape, dtype=torch.bool)
    for x in operands:
        unknown = unknown | replace[x].isnan()
    result = torch.where(unknown, NAN, result.to(torch.float64))
    if ops.op_name(node) == "mul":
        for x in operands:
            result = torch.where(replace[x] == 0, 0.0, result)
    return result


def _norm(structure: Structure, node: Node, known: dict[Node, Tensor], weights: Weights) -> Tensor:
    norm = structure.norms[node]
    value = known[norm.source]
    rank = value.dim()
    shape = [-1 if i == 1 else 1 for i in range(rank)]

    def stored(name: str | None, default: float) -> Tensor:
        if name is None:
            return torch.full([1] * rank, default, dtype=torch.float64)
        return weights[name].to(torch.float64).reshape(shape)

    gamma, beta = stored(norm.weight, 1.0), stored(norm.bias, 0.0)
    mean, variance = stored(norm.mean, 0.0), stored(norm.variance, 1.0)
    result = (value - mean) / torch.sqrt(variance + norm.epsilon) * gamma + beta
    return torch.where((gamma == 0).expand_as(result), beta.expand_as(result), result)


def _kernel(kernel: Kernel, known: dict[Node, Tensor], weights: Weights) -> Tensor:
    values = along(known[kernel.source], kernel.axis, len(kernel.inputs))
    groups = kernel.groups
    reads = weights.reads(kernel)
    known_values = values.reshape(groups, 1, -1)
    usable = ~known_values.isnan()
    doubtful = usable & (known_values != 0)
    if kernel.border is not None and bool(doubtful.any()):
        usable = usable & ~(doubtful & at_border(kernel, weights.matrix(kernel)))
    constant = ~(reads & ~usable).any(-1)
    result = torch.full(constant.shape, NAN, dtype=torch.float64)
    if bool(constant.any()):
        filled = torch.where(usable, known_values, 0.0).expand(reads.shape)[constant]
        taps = weights.matrix(kernel)[constant].sum(-1, dtype=torch.float64)
        result[constant] = (taps * filled).sum(-1)
    result = result.reshape(-1)
    name = bias_name(kernel)
    return result + weights[name] if name is not None and name in weights else result


def at_border(kernel: Kernel, matrix: Tensor) -> Tensor:
    """For each pair of channels, whether a tap that is not zero reads beyond the input."""
    if kernel.border is None:
        return torch.zeros(matrix.shape[:3], dtype=torch.bool)
    return (matrix[..., kernel.border] != 0).any(-1)

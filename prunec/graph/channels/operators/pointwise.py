"""Operators that work position by position, over windows of positions, or over whole axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.shapes import broadcast
from prunec.graph.channels.structure import Mark, Rule, varying


def visit_elementwise(builder: Builder, node: Node) -> None:
    """Operands that meet position by position are cut together."""
    captured = builder.captured
    operands = [n for n in node.all_input_nodes if captured.is_tensor(n)]
    out_shape = captured.shape(node)
    rank = len(out_shape)
    aligned = []
    for operand in operands:
        builder.axes(operand)  # names the atoms that were joined alike
        layout, real = builder.layout(operand), captured.shape(operand)
        lead = [1] * (rank - layout.dim())
        aligned.append((layout.reshape(lead + list(layout.shape)), tuple(lead) + real))
    target = broadcast(*[tuple(layout.shape) for layout, _ in aligned])
    result: Tensor | None = None
    name = ops.op_name(node)
    for layout, real in aligned:
        spread = any(real[i] == 1 and out_shape[i] > 1 and target[i] > 1 for i in range(rank))
        if spread and not varying(layout):
            builder.pin(layout, f"broadcast by {name} at {node.name}")
        elif result is None:
            result = layout.expand(target)
        else:
            builder.join(
                result,
                layout.expand(target),
                f"meets a value that is no channel in {name} at {node.name}",
            )
    if result is None:
        builder.refuse(node, operands, f"outer product by {name} at {node.name}")
        return
    builder.settle(node, "elementwise", result.contiguous())


@dataclass(frozen=True)
class Spread(Rule):
    """A value repeated in the shape of another tensor, along whose channels it lies then."""

    source: Node

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """The value."""
        return known[self.source]

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """The value; of the other tensor only the shape."""
        mark(self.source, live)


def visit_expand_as(builder: Builder, node: Node) -> None:
    """expand_as(value, other)."""
    visit_elementwise(builder, node)
    source = node.args[0]
    assert isinstance(source, Node)
    if len(builder.captured.shape(source)) != len(builder.captured.shape(node)):
        builder.refuse(node, node.all_input_nodes)
    elif builder.found.kinds[node] == "elementwise":
        builder.rule(node, Spread(source), builder.layout(node))


@dataclass(frozen=True)
class Filled(Rule):
    """A new tensor of one number; its channels are cut with those they meet."""

    number: float

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """The number."""
        return torch.tensor(self.number, dtype=torch.float64)

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """Nothing."""


def visit_factory(builder: Builder, node: Node) -> None:
    """zeros, ones, full: the channels of an image or of a row of features lie along axis 1."""
    shape = builder.captured.shape(node)
    name = ops.op_name(node)
    fill = {"zeros": 0.0, "ones": 1.0}.get(name.removeprefix("new_"))
    number = ops.arguments(node).get("fill_value") if fill is None else fill
    if len(shape) not in (2, 4, 5) or not isinstance(number, (int, float)):
        builder.found.layouts[node] = builder.blank(node)
        return
    atoms = builder.unions.fresh(shape[1])
    builder.rule(node, Filled(float(number)), atoms.reshape([1, -1] + [1] * (len(shape) - 2)))


def visit_like(builder: Builder, node: Node) -> None:
    """A tensor of one number, in the shape of another."""
    builder.settle(node, "like", builder.layout(node.all_input_nodes[0]))


def visit_window(builder: Builder, node: Node) -> None:
    """Windows over the trailing axes, each channel by itself."""
    source = node.all_input_nodes[0]
    name = ops.op_name(node)
    rank = len(builder.captured.shape(node))
    spatial = int(name.rstrip("_exact")[-2]) if name[-1] == "d" else 2
    layout = builder.layout(source)
    if any(axis >= rank - spatial for axis in builder.axes(source)):
        layout = builder.layout(source)
        builder.refuse(node, [source], f"{name} at {node.name} runs over channels")
        return
    for axis in range(rank - spatial, rank):
        layout = layout.narrow(axis, 0, 1)
    builder.settle(node, "window", layout)


def visit_reduction(builder: Builder, node: Node) -> None:
    """A mean, sum or extreme over axes on which no channels lie."""
    source = node.all_input_nodes[0]
    named = ops.arguments(node)
    rank = len(builder.captured.shape(source))
    name = ops.op_name(node)
    axes = reduced_axes(named.get("dim"), rank)
    layout = None
    if axes:
        layout = builder.outside(source, axes, f"{name} at {node.name} runs over channels")
    if layout is None:
        builder.refuse(node, [source], f"{name} at {node.name} runs over channels")
        return
    if not named.get("keepdim"):
        for axis in sorted(axes, reverse=True):
            layout = layout.squeeze(axis)
    builder.settle(node, "reduction", layout)


def reduced_axes(dim: object, rank: int) -> list[int]:
    """Axes that a reduction runs over; empty where it runs over all."""
    if isinstance(dim, int):
        return [dim % rank]
    return sorted({d % rank for d in dim}) if isinstance(dim, (list, tuple)) else []


def visit_prelu(builder: Builder, node: Node) -> None:
    """Slopes per channel are cut with the channels; one slope for all is element-wise."""
    source, slope = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(slope, Node)
    size = math.prod(builder.captured.shape(slope))
    if slope.op != "get_attr" or size == 1:
        visit_elementwise(builder, node)
        return
    builder.slice(str(slope.target), 0, builder.along(source, 1), size)
    builder.settle(node, "prelu", builder.layout(source))

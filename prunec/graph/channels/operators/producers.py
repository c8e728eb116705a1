"""Operators that make channels: convolutions, linear maps, look-ups; and batch norm after them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operators.kernels import room_for_bias
from prunec.graph.channels.structure import Kernel, Mark, Norm, Rule


def visit_convolution(builder: Builder, node: Node) -> None:
    """A convolution, transposed or not, in one to three dimensions."""
    named = ops.arguments(node)
    weight, source = named["weight"], named["input"]
    captured = builder.captured
    rank = len(captured.shape(source))
    if weight.op != "get_attr" or rank != len(captured.shape(weight)):
        builder.refuse(
            node, [source, weight], f"{ops.op_name(node)} at {node.name}: its weight is computed"
        )
        return
    if _mixes_positions(builder, node, source, 1):
        return
    transposed = "transpose" in ops.op_name(node)
    shape, out = captured.shape(weight), captured.shape(node)
    groups = int(named["groups"])
    spatial = math.prod((captured.shape(source) if transposed else out)[2:])
    size = shape[1] * groups if transposed else shape[0]
    positions = spatial * math.prod(shape[2:])
    border = _border(named, captured.shape(source)[2:], out[2:], shape[2:], transposed)
    add_kernel(builder, node, source, named, size, 1, groups, transposed, border, positions)


def visit_linear(builder: Builder, node: Node) -> None:
    """A linear map of the last axis."""
    named = ops.arguments(node)
    weight, source = named["weight"], named["input"]
    if weight.op != "get_attr":
        builder.refuse(node, [source, weight], f"linear at {node.name}: its weight is computed")
        return
    out = builder.captured.shape(node)
    axis = len(out) - 1
    if _mixes_positions(builder, node, source, axis):
        return
    size, positions = builder.captured.shape(weight)[0], math.prod(out[1:-1])
    add_kernel(builder, node, source, named, size, axis, 1, False, None, positions)


def visit_weight_product(
    builder: Builder, node: Node, source: Node, weight: Node, axis: int, *, transposed: bool
) -> None:
    """A product of activations with a parameter of two axes.

    Args:
        builder: of the analysis.
        node: the call.
        source: the activations.
        weight: the parameter, of shape (I, O) where ``transposed``, else (O, I).
        axis: axis of the activations that is summed over, and of the result.
        transposed: which of the two.
    """
    if _mixes_positions(builder, node, source, axis):
        return
    shape, out = builder.captured.shape(weight), builder.captured.shape(node)
    positions = math.prod(out[1:]) // out[axis]
    named = {"weight": weight, "bias": None}
    add_kernel(
        builder, node, source, named, shape[int(transposed)], axis, 1, transposed, None, positions
    )


def add_kernel(
    builder: Builder, node: Node, source: Node, named: Mapping[str, Any], size: int, axis: int,
    groups: int, transposed: bool, border: Tensor | None, positions: int,
) -> None:  # fmt: skip
    """Record a kernel: its inputs are whom it reads, its outputs are new atoms."""
    found = builder.found
    weight, bias = str(named["weight"].target), named["bias"]
    if builder.uses.setdefault(weight, (transposed, groups)) != (transposed, groups):
        builder.refuse(node, [source], f"{weight} is also used by another kind of kernel")
        for (owner, _), atoms in found.slices.items():
            if owner == weight:
                builder.pin(atoms, f"{weight} is used by kernels of two kinds")
        return
    inputs = builder.along(source, axis)
    if groups == 1:
        builder.slice(weight, 0 if transposed else 1, inputs, len(inputs))
    else:
        builder.slice(weight, -1, inputs, len(inputs))  # counts through the groups
    out_axis = -2 if transposed and groups > 1 else int(transposed)
    outputs = builder.slice(weight, out_axis, None, size)
    name = None
    if bias is not None:
        name = str(bias.target)
        builder.slice(name, 0, outputs, size)
    if groups == len(inputs) > 1:
        builder.join(inputs.repeat_interleave(size // groups), outputs)
    found.kernels[node] = Kernel(
        node, weight, name, source, axis, inputs, outputs, groups, transposed, border, positions,
        room_for_bias(builder.captured, node, weight) if name is None else None,
    )  # fmt: skip
    shape = [1] * len(builder.captured.shape(node))
    shape[axis] = size
    builder.settle(node, "kernel", outputs.reshape(shape))


def _border(
    named: Mapping[str, Any],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    kernel: tuple[int, ...],
    transposed: bool,
) -> Tensor | None:
    """Taps that read beyond the input for some output position, shape (taps,)."""
    border = torch.zeros(kernel, dtype=torch.bool)
    if transposed:
        return ~border.reshape(-1)
    rank, padding = len(kernel), named["padding"]
    stride, dilation = ops.single(named["stride"], rank), ops.single(named["dilation"], rank)
    for axis in range(rank):
        taps = torch.arange(kernel[axis]) * dilation[axis]
        if isinstance(padding, str):
            before = 0 if padding == "valid" else int(taps[-1]) // 2
        else:
            before = ops.single(padding, rank)[axis]
        last = (outputs[axis] - 1) * stride[axis]
        beyond = (taps < before) | (last + taps - before >= inputs[axis])
        border |= beyond.reshape([-1 if i == axis else 1 for i in range(rank)])
    return border.reshape(-1) if bool(border.any()) else None


# -- values that pass a kernel ---------------------------------------------------------------------


@dataclass(frozen=True)
class Mixing(Rule):
    """A kernel over positions: the channels that lie along other axes pass it by."""

    source: Node
    axis: int
    biased: bool

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """Nothing but zeros stays what it was."""
        value = known[self.source].narrow(self.axis, 0, 1)
        return torch.where((value == 0) & torch.tensor(not self.biased), value, float("nan"))

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """A channel that is read is read at all positions."""
        for axis in range(self.axis, live.dim()):
            live = live.any(axis, keepdim=True)
        mark(self.source, live)


def _mixes_positions(builder: Builder, node: Node, source: Node, axis: int) -> bool:
    axes = builder.axes(source)
    if not axes or (axis in axes and 0 not in axes):
        return False
    named = ops.arguments(node)
    rank = len(builder.captured.shape(source))
    inner = [axis] if ops.op_name(node) not in ops.CONVOLUTIONS else list(range(axis, rank))
    layout = builder.outside(
        source, inner, f"{ops.op_name(node)} at {node.name} runs over channels"
    )
    if layout is None:
        builder.refuse(node, node.all_input_nodes)
        return True
    for weight in node.all_input_nodes:
        if weight is not source:
            builder.pin(
                builder.layout(weight), f"{ops.op_name(node)} at {node.name} mixes positions"
            )
    biased = named.get("bias") is not None
    builder.rule(node, Mixing(source, axis, biased), layout)
    return True


# -- batch norm, embedding -------------------------------------------------------------------------


def visit_batch_norm(builder: Builder, node: Node) -> None:
    """Batch norm by its running statistics: a factor and a shift per channel."""
    named = ops.arguments(node)
    source = named["input"]
    parts = [named[key] for key in ("weight", "bias", "running_mean", "running_var")]
    if any(isinstance(p, Node) and p.op != "get_attr" for p in parts) or parts[2] is None:
        builder.refuse(node, [source], f"batch norm at {node.name} uses statistics of the batch")
        return
    atoms = builder.along(source, 1)
    names = [None if p is None else str(p.target) for p in parts]
    for name in names:
        if name is not None:
            builder.slice(name, 0, atoms, len(atoms))
    assert names[2] is not None
    assert names[3] is not None
    builder.found.norms[node] = Norm(
        node, source, names[0], names[1], names[2], names[3], float(named["eps"])
    )
    builder.settle(node, "norm", builder.layout(source))


@dataclass(frozen=True)
class Lookup(Rule):
    """An embedding: rows of a table by number; a column may be the same in all rows."""

    table: str
    rank: int

    @property
    def cuts(self) -> tuple[str, ...]:
        """The table."""
        return (self.table,)

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """Columns that do not vary are constants."""
        table = weights[self.table].to(torch.float64)
        same = (table == table[:1]).all(0)
        value = torch.where(same, table[0], float("nan"))
        return value.reshape([1] * (self.rank - 1) + [-1])

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """Its numbers are no channels."""


def visit_embedding(builder: Builder, node: Node) -> None:
    """The width of an embedding may be cut, its rows are looked up by number."""
    named = ops.arguments(node)
    table = named["weight"]
    if table.op != "get_attr":
        builder.refuse(node, node.all_input_nodes, f"embedding at {node.name}: a computed table")
        return
    name = str(table.target)
    rows, width = builder.captured.shape(table)
    builder.pin(builder.slice(name, 0, None, rows), f"embedding at {node.name} looks up its rows")
    atoms = builder.slice(name, 1, None, width)
    rank = len(builder.captured.shape(node))
    builder.rule(node, Lookup(name, rank), atoms.reshape([1] * (rank - 1) + [-1]))

"""Operators that trade channels against positions: pixel shuffles and unfolding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.structure import Mark, Rule


@dataclass(frozen=True)
class Regroup(Rule):
    """A channel becomes ``apart`` channels, or ``together`` channels become one.

    Attributes:
        source: what is regrouped.
        axis: the channel axis.
        apart, together: how many; one of them is 1.
        padded: whether zeros of a border come in.
        flat: whether the axes behind the channels become one.
    """

    source: Node
    axis: int
    apart: int
    together: int
    padded: bool
    flat: bool = False

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """A constant stays what it is; several that become one must agree."""
        value = known[self.source]
        for axis in range(self.axis + 1, value.dim()):
            if value.shape[axis] > 1:
                first = value.narrow(axis, 0, 1)
                value = torch.where((value == first).all(axis, keepdim=True), first, float("nan"))
        if self.padded:
            value = torch.where(value == 0, value, float("nan"))
        if self.flat:
            value = value.flatten(self.axis + 1)
        if value.shape[self.axis] == 1:
            return value
        if self.together > 1:
            rows = _rows(value, self.axis, self.together)
            first = rows.select(self.axis + 1, 0)
            same = (rows == first.unsqueeze(self.axis + 1)).all(self.axis + 1)
            value = torch.where(same, first, float("nan"))
        return value.repeat_interleave(self.apart, self.axis)

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """All that a channel became, all that became one."""
        for axis in range(self.axis + 1, live.dim()):
            live = live.any(axis, keepdim=True)
        if live.shape[self.axis] > 1:
            live = _rows(live, self.axis, self.apart).any(self.axis + 1)
            live = live.repeat_interleave(self.together, self.axis)
        rank = known[self.source].dim()
        mark(self.source, live.reshape(*live.shape, *[1] * (rank - live.dim())))


def _rows(tensor: Tensor, axis: int, length: int) -> Tensor:
    """An axis taken apart into rows of some length."""
    shape = tensor.shape
    return tensor.reshape(*shape[:axis], -1, length, *shape[axis + 1 :])


def visit_pixel_shuffle(builder: Builder, node: Node) -> None:
    """The r² channels that become the pixels of one go together."""
    source = node.all_input_nodes[0]
    factor = int(ops.arguments(node)["upscale_factor"]) ** 2
    axis = len(builder.captured.shape(source)) - 3
    atoms = builder.along(source, axis).reshape(-1, factor)
    builder.join(atoms[:, :1].expand_as(atoms), atoms)
    rule = Regroup(source, axis, 1, factor, padded=False)
    builder.rule(node, rule, _on(builder, node, axis, atoms[:, 0]))


def visit_pixel_unshuffle(builder: Builder, node: Node) -> None:
    """A channel becomes r² channels."""
    source = node.all_input_nodes[0]
    factor = int(ops.arguments(node)["downscale_factor"]) ** 2
    axis = len(builder.captured.shape(source)) - 3
    atoms = builder.along(source, axis).repeat_interleave(factor)
    rule = Regroup(source, axis, factor, 1, padded=False)
    builder.rule(node, rule, _on(builder, node, axis, atoms))


def visit_unfold(builder: Builder, node: Node) -> None:
    """A channel becomes as many as the window has places."""
    source = node.all_input_nodes[0]
    named = ops.arguments(node)
    factor = math.prod(ops.single(named["kernel_size"], 2))
    atoms = builder.along(source, 1).repeat_interleave(factor)
    padded = any(ops.single(named["padding"], 2))
    rule = Regroup(source, 1, factor, 1, padded=padded, flat=True)
    builder.rule(node, rule, _on(builder, node, 1, atoms))


def _on(builder: Builder, node: Node, axis: int, atoms: Tensor) -> Tensor:
    rank = len(builder.captured.shape(node))
    return atoms.reshape([-1 if i == axis else 1 for i in range(rank)])

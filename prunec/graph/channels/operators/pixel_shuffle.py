"""Operators that trade channels against positions: pixel shuffles and unfolding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node, per_axis
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, on_axis, one_value
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Regrouping(Family):
    """A channel becomes ``apart`` channels, or ``together`` channels become one.

    Attributes:
        node: the call.
        source: what is regrouped.
        axis: the channel axis.
        apart, together: how many; one of them is 1.
        padded: whether zeros of a border come in.
        flat: whether the axes behind the channels become one.
    """

    node: Node
    source: Node
    axis: int
    apart: int = 1
    together: int = 1
    padded: bool = False
    flat: bool = False

    def value(self, known: Known, weights: Weights) -> Tensor:
        """A constant stays what it is; several that become one must agree."""
        value = known[self.source]
        for axis in range(self.axis + 1, value.dim()):
            value = one_value(value, axis) if value.shape[axis] > 1 else value
        if self.padded:
            value = torch.where(value == 0, value, NAN)
        if self.flat:
            value = value.flatten(self.axis + 1)
        if value.shape[self.axis] == 1:
            return value
        if self.together > 1:
            rows = _rows(value, self.axis, self.together)
            value = one_value(rows, self.axis + 1).squeeze(self.axis + 1)
        return value.repeat_interleave(self.apart, self.axis)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """All that a channel became, all that became one."""
        for axis in range(self.axis + 1, live.dim()):
            live = live.any(axis, keepdim=True)
        if live.shape[self.axis] > 1:
            live = _rows(live, self.axis, self.apart).any(self.axis + 1)
            live = live.repeat_interleave(self.together, self.axis)
        rank = known[self.source].dim()
        mark(self.source, live.reshape(*live.shape, *[1] * (rank - live.dim())))


class PixelShuffle(Regrouping):
    """The r² channels that become the pixels of one go together."""

    names = ("pixel_shuffle",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the channels that become one."""
        source = node.operands[0]
        factor = int(node.arguments["upscale_factor"]) ** 2
        axis = len(source.shape) - 3
        atoms = builder.along(source, axis).reshape(-1, factor)
        builder.join(atoms[:, :1].expand_as(atoms), atoms)
        layout = on_axis(atoms[:, 0], axis, len(node.shape))
        builder.bind(cls(node, source, axis, together=factor), layout)


class PixelUnshuffle(Regrouping):
    """A channel becomes r² channels."""

    names = ("pixel_unshuffle",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Repeat each channel's atom."""
        source = node.operands[0]
        factor = int(node.arguments["downscale_factor"]) ** 2
        axis = len(source.shape) - 3
        atoms = builder.along(source, axis).repeat_interleave(factor)
        layout = on_axis(atoms, axis, len(node.shape))
        builder.bind(cls(node, source, axis, apart=factor), layout)


class Unfold(Regrouping):
    """A channel becomes as many as the window has places."""

    names = ("im2col",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Repeat each channel's atom."""
        source, named = node.operands[0], node.arguments
        factor = math.prod(per_axis(named["kernel_size"], 2))
        padded = any(per_axis(named["padding"], 2))
        atoms = builder.along(source, 1).repeat_interleave(factor)
        layout = on_axis(atoms, 1, len(node.shape))
        builder.bind(cls(node, source, 1, apart=factor, padded=padded, flat=True), layout)


@dataclass(frozen=True, eq=False)
class Fold(Family):
    """Sums of overlapping windows; the channels of a window's places become one."""

    names = ("col2im",)

    node: Node
    source: Node
    places: int

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the channels that become one."""
        source = node.operands[0]
        places = math.prod(per_axis(node.arguments["kernel_size"], 2))
        if len(source.shape) != 3:
            builder.refuse(node, [source])
            return
        atoms = builder.along(source, 1).reshape(-1, places)
        builder.join(atoms[:, :1].expand_as(atoms), atoms)
        builder.bind(cls(node, source, places), on_axis(atoms[:, 0], 1, len(node.shape)))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Sums of zeros."""
        value = known[self.source]
        if value.shape[1] == 1:
            return torch.tensor(NAN, dtype=torch.float64)
        zero = _rows((value == 0).all(2), 1, self.places).all(2)
        return torch.where(zero, 0.0, NAN)[..., None, None].to(torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """All that becomes one."""
        live = live.flatten(2).any(2)
        mark(self.source, live.repeat_interleave(self.places, 1)[..., None])


def _rows(tensor: Tensor, axis: int, length: int) -> Tensor:
    """An axis taken apart into rows of some length."""
    shape = tensor.shape
    return tensor.reshape(*shape[:axis], -1, length, *shape[axis + 1 :])

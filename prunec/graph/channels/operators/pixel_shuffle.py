"""Operators that exchange channels for positions: pixel shuffle, unfold, fold."""

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
    """A channel that becomes ``apart`` channels, or ``together`` channels that become one.

    Attributes:
        node: the call.
        source: operand.
        axis: the channel axis.
        apart: channels made from one channel.
        together: channels merged into one; 1 if ``apart`` is larger than 1.
        padded: whether padding adds zeros.
        flat: whether the axes after the channel axis become one.
    """

    node: Node
    source: Node
    axis: int
    apart: int = 1
    together: int = 1
    padded: bool = False
    flat: bool = False

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return constants; channels that become one must agree."""
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
        """Mark every channel with a live position in any channel made from it."""
        for axis in range(self.axis + 1, live.dim()):
            live = live.any(axis, keepdim=True)
        if live.shape[self.axis] > 1:
            live = _rows(live, self.axis, self.apart).any(self.axis + 1)
            live = live.repeat_interleave(self.together, self.axis)
        rank = known[self.source].dim()
        mark(self.source, live.reshape(*live.shape, *[1] * (rank - live.dim())))


class PixelShuffle(Regrouping):
    """depth_to_space (Shi et al., 2016): the r² channels of one output channel go together."""

    names = ("pixel_shuffle",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the r² channels that become one."""
        source = node.operands[0]
        factor = int(node.arguments["upscale_factor"]) ** 2
        axis = len(source.shape) - 3
        atoms = builder.along(source, axis).reshape(-1, factor)
        builder.join(atoms[:, :1].expand_as(atoms), atoms)
        layout = on_axis(atoms[:, 0], axis, len(node.shape))
        builder.bind(cls(node, source, axis, together=factor), layout)


class PixelUnshuffle(Regrouping):
    """The inverse: one channel becomes r² channels."""

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
    """im2col: one channel becomes one channel per position of the window."""

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
    """col2im: sums of overlapping windows; the channels of one window become one."""

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
        """Return 0 where all merged channels are 0."""
        value = known[self.source]
        if value.shape[1] == 1:
            return torch.tensor(NAN, dtype=torch.float64)
        zero = _rows((value == 0).all(2), 1, self.places).all(2)
        return torch.where(zero, 0.0, NAN)[..., None, None].to(torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark all channels that become a live one."""
        live = live.flatten(2).any(2)
        mark(self.source, live.repeat_interleave(self.places, 1)[..., None])


def _rows(tensor: Tensor, axis: int, length: int) -> Tensor:
    """Return an axis split into rows of ``length``."""
    shape = tensor.shape
    return tensor.reshape(*shape[:axis], -1, length, *shape[axis + 1 :])

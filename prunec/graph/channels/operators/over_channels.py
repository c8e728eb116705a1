"""Reductions over the channel axis in which zero channels have no effect.

A channel that is 0 everywhere adds nothing to a sum or a norm. A mean still divides by the original
number of channels, and a maximum is still at least 0 if a zero channel was removed: both are
    written
so. All other channels are read, constant ones included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark, Operator, Writer, Written
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class OverChannels(Operator):
    """A reduction over the channel axis, alone or together with positions.

    Attributes:
        node: the call.
        source: operand.
        axis: channel axis of the operand.
        others: whether positions are reduced too.
    """

    node: Node
    source: Node
    axis: int
    others: bool

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the reduction of constant channels; over positions only sums of zeros."""
        value = known[self.source].expand(
            [self.source.shape[i] if i == self.axis else n
             for i, n in enumerate(known[self.source].shape)]
        )  # fmt: skip
        reduced = {
            "mean": value.mean(), "amax": value.max(), "amin": value.min(),
            "sum": NAN if self.others else value.sum(),
        }.get(self.node.operator, NAN)  # fmt: skip
        zero = bool((value == 0).all())
        number = 0.0 if zero else float(reduced)
        return torch.full([1] * len(self.node.shape), number, dtype=torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark every channel that is not zero throughout."""
        mark(self.source, live.any() & (known[self.source] != 0))

    def emit(self, writer: Writer) -> Written:
        """Write the reduction of the kept channels, corrected for the removed zeros."""
        written = writer.copy(self.node)
        if writer.is_whole(self.source):
            return written
        name, size = self.node.operator, self.source.shape[self.axis]
        if name == "mean":
            return writer.scaled(written, writer.count_kept(self.source, self.axis) / size)
        if name in ("amax", "amin"):
            return writer.bounded(written, 0.0, above=name == "amin")
        return written


def runs_over_channels(builder: Builder, node: Node, source: Node, axes: list[int]) -> bool:
    """Record a reduction over the channel axis if zeros do not affect it; return whether so.

    Args:
        builder: running analysis.
        node: the call.
        source: operand.
        axes: reduced axes.
    """
    channels = builder.axes(source)
    order = node.arguments.get("ord", 2)
    if len(channels) != 1 or channels[0] not in axes or 0 in axes:
        return False
    if not isinstance(order, int | float) or order < 0 or math.isnan(order):
        return False
    if channels[0] in source.dynamic:
        return False
    if node.operator in ("amax", "amin") and not _is_float(source):  # clamp would yield floats
        return False
    operator = OverChannels(node, source, channels[0], len(axes) > 1)
    builder.bind(operator, builder.blank(node))
    return True


def _is_float(source: Node) -> bool:
    """Return whether a value is of floating point, not of bools or integers."""
    return source.dtype is not None and source.dtype.is_floating_point

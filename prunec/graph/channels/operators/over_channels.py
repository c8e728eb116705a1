"""Sums, means, extremes and norms that run over the channels: zeros count for nothing in them.

A channel that is 0 throughout adds nothing to a sum or a norm. A mean divides by the channels that
there were, and an extreme never falls below a 0 that was among them: both are written so. Any other
channel is read, constants too.
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
    """A reduction over the channel axis, alone or with axes of positions.

    Attributes:
        node: the call.
        source: what it reads.
        axis: the channel axis of the source.
        others: whether it runs over positions too.
    """

    node: Node
    source: Node
    axis: int
    others: bool

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return what constants of all channels come to; over positions a sum of zeros alone."""
        value = known[self.source].expand(
            [self.source.shape[i] if i == self.axis else n
             for i, n in enumerate(known[self.source].shape)]
        )  # fmt: skip
        found = {
            "mean": value.mean(), "amax": value.max(), "amin": value.min(),
            "sum": NAN if self.others else value.sum(),
        }.get(self.node.operator, NAN)  # fmt: skip
        zero = bool((value == 0).all())
        number = 0.0 if zero else float(found)
        return torch.full([1] * len(self.node.shape), number, dtype=torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark every channel that is not zero throughout."""
        mark(self.source, live.any() & (known[self.source] != 0))

    def emit(self, writer: Writer) -> Written:
        """Write it over the channels that stay, then put in what the zeros that went stood for."""
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
    """Record a reduction over a channel axis, if zeros count for nothing in it; say whether it was.

    Args:
        builder: of the analysis.
        node: the call.
        source: what it reads.
        axes: those that it runs over.
    """
    channels = builder.axes(source)
    order = node.arguments.get("ord", 2)
    if len(channels) != 1 or channels[0] not in axes or 0 in axes:
        return False
    if not isinstance(order, int | float) or order < 0 or math.isnan(order):
        return False
    if channels[0] in source.dynamic:
        return False
    if node.operator in ("amax", "amin") and not _is_float(source):  # a bound makes it a float
        return False
    operator = OverChannels(node, source, channels[0], len(axes) > 1)
    builder.bind(operator, builder.blank(node))
    return True


def _is_float(source: Node) -> bool:
    """Say whether a value is of floating-point numbers, and not of flags or whole numbers."""
    return source.dtype is not None and source.dtype.is_floating_point

"""PReLU: slopes per channel are cut with the channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import on_axis
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.elementwise import Elementwise
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Prelu(Family):
    """max(x, 0) + slope·min(x, 0) (He et al., 2015); a single slope is element-wise."""

    names = ("prelu",)

    node: Node
    source: Node
    slope: str

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Tie the slopes to the channels."""
        source, slope = list(node.arguments.values())[:2]
        size = math.prod(slope.shape)
        if slope.kind != "stored" or size == 1:
            Elementwise.visit(builder, node)
            return
        builder.slice(slope.stored, 0, builder.along(source, 1), size)
        builder.bind(cls(node, source, slope.stored), builder.layout(source))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the formula of constants."""
        value = known[self.source]
        slope = weights[self.slope].to(torch.float64)
        slope = on_axis(slope, min(1, value.dim() - 1), value.dim())
        return torch.where(value >= 0, value, value * slope)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the formula inside and along the border."""
        return self.at_each_position([self.source], known, borders, weights)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand."""
        mark(self.source, live)

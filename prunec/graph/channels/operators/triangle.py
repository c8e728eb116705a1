"""Triangles of the last two axes: zeros on one side of a diagonal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders, settings
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Triangle(Family):
    """tril and triu of positions."""

    names = ("tril", "triu")

    node: Node
    source: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the operand's channels; refuse if they lie along the last two axes."""
        source = node.operands[0]
        rank = len(source.shape)
        why = f"{node.operator} at {node.name} runs over channels"
        layout = builder.outside(source, range(rank - 2, rank), why)
        if layout is None:
            builder.refuse(node, [source], why)
        else:
            builder.bind(cls(node, source), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return 0 where the operand is 0."""
        value = known[self.source]
        return torch.where(value == 0, value, NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the constant on one side of the diagonal, 0 on the other."""
        if self.source in borders:
            return None
        value = known[self.source]
        return Bordered((settings(self.node),), value, torch.zeros_like(value))

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the live positions of the operand."""
        mark(self.source, live)

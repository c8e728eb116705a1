"""Expansion to the shape of another tensor, whose channels it then shares."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.elementwise import met
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class ExpandAs(Family):
    """expand_as(value, other)."""

    names = ("expand_as",)

    node: Node
    source: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the channels of both tensors."""
        layout = met(builder, node)
        source = node.first
        if source.shape and len(source.shape) != len(node.shape):
            builder.refuse(node, node.operands)
        elif layout is not None:
            builder.bind(cls(node, source), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the constants of the expanded value."""
        value = known[self.source]
        return value if value.dim() else value.reshape([1] * len(self.node.shape))

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the expanded value; of the other tensor only the shape is used."""
        mark(self.source, live)

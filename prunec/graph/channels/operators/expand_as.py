"""A value repeated in the shape of another tensor, along whose channels it lies then."""

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
        """The channels of both meet."""
        layout = met(builder, node)
        source = node.first
        if source.shape and len(source.shape) != len(node.shape):
            builder.refuse(node, node.operands)
        elif layout is not None:
            builder.bind(cls(node, source), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """The value."""
        value = known[self.source]
        return value if value.dim() else value.reshape([1] * len(self.node.shape))

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """The value; of the other tensor only the shape."""
        mark(self.source, live)

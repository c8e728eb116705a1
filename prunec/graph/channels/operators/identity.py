"""Operators that return the same values again: copies, types, dropout in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.weights import Weights

_NOTHING = ("lift_fresh_copy", "alias", "detach")  # left out of what is written


@dataclass(frozen=True, eq=False)
class Identity(Family):
    """The same tensor again."""

    names = frozenset(
        (
            "contiguous clone alias detach lift_fresh_copy dropout feature_dropout alpha_dropout "
            "feature_alpha_dropout to _to_copy type_as float double half bfloat16 "
            "positive"
        ).split()
    )

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """The channels of what it reads."""
        builder.bind(cls(node), builder.layout(node.operands[0]))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """The same, as far as the type holds it."""
        source, dtype = self.node.operands[0], self.node.dtype
        value = known[source]
        if dtype is None or dtype == source.dtype:
            return value
        held = torch.where(value.isnan(), 0.0, value).to(dtype).to(torch.float64)
        return torch.where(value.isnan(), value, held)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Position by position."""
        return self.at_each_position([self.node.operands[0]], known, borders, weights, linear=True)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """The same."""
        mark(self.node.operands[0], live)

    def passed(self) -> Node | None:
        """What it reads."""
        return self.node.operands[0] if self.node.operator in self.names else None

    def emit(self, writer: Writer) -> Written:
        """Dropout trains on; what does nothing is left out."""
        source = self.node.operands[0]
        if self.node.operator in _NOTHING:
            return writer.new(source)
        if "dropout" in self.node.operator:
            return writer.dropout(self.node, source)
        return writer.copy(self.node)

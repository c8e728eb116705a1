"""Operators that return their operand's values: copies, casts, dropout in evaluation mode."""

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

_NOTHING = ("lift_fresh_copy", "alias", "detach")  # artefacts of the capture, not written


@dataclass(frozen=True, eq=False)
class Identity(Family):
    """An operator that returns its operand's values."""

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
        """Carry the operand's channels through."""
        builder.bind(cls(node), builder.layout(node.operands[0]))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the operand's constants, rounded to the type of a cast."""
        source, dtype = self.node.operands[0], self.node.dtype
        value = known[source]
        if dtype is None or dtype == source.dtype:
            return value
        held = torch.where(value.isnan(), 0.0, value).to(dtype).to(torch.float64)
        return torch.where(value.isnan(), value, held)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the operand's constants inside and along the border."""
        return self.at_each_position([self.node.operands[0]], known, borders, weights, linear=True)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the live positions of the operand."""
        mark(self.node.operands[0], live)

    def passed(self) -> Node | None:
        """Return the operand."""
        return self.node.operands[0] if self.node.operator in self.names else None

    def emit(self, writer: Writer) -> Written:
        """Write a dropout that trains on; leave out aliases."""
        source = self.node.operands[0]
        if self.node.operator in _NOTHING:
            return writer.new(source)
        if "dropout" in self.node.operator:
            return writer.dropout(self.node, source)
        return writer.copy(self.node)

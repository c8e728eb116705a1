"""Embeddings: look-up of table rows by index; columns may be cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, on_axis
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Embedding(Family):
    """A look-up of rows; a column that is equal in all rows is a constant."""

    names = ("embedding",)

    node: Node
    table: str

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Create atoms for the columns; pin the rows, which are addressed by index."""
        table = node.arguments["weight"]
        if table.kind != "stored":
            builder.refuse(node, node.operands, f"embedding at {node.name}: a computed table")
            return
        rows, width = table.shape
        why = f"embedding at {node.name} looks up its rows"
        builder.pin(builder.slice(table.stored, 0, None, rows), why)
        atoms = builder.slice(table.stored, 1, None, width)
        rank = len(node.shape)
        builder.bind(cls(node, table.stored), on_axis(atoms, rank - 1, rank))

    @property
    def cuts(self) -> tuple[str, ...]:
        """The table."""
        return (self.table,)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the columns that do not vary over the rows."""
        table = weights[self.table].to(torch.float64)
        same = (table == table[:1]).all(0)
        rank = len(self.node.shape)
        return on_axis(torch.where(same, table[0], NAN), rank - 1, rank)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark nothing: the looked-up indices are not channels."""

"""Max pooling that also returns the indices of the maxima, and max unpooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, broadcast
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.window import Window, dimensions
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class IndexedPool(Window):
    """Maxima and their indices within a channel.

    Attributes:
        made_by: the call; ``node`` is one item of its result.
        part: 0 for the maxima, 1 for the indices.
    """

    names = frozenset(
        (
            "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
            "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
        ).split()
    )
    several = True

    made_by: Node
    part: int = 0

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Bind the call; its two results are bound item by item."""
        source = node.operands[0]
        if cls.seen(builder, node, source) is not None:
            builder.structure.operators[node] = cls(node, source, node)

    def visit_item(self, builder: Builder, node: Node) -> None:
        """Bind one result to the operand's channels."""
        item = replace(self, node=node, part=int(node.arguments["index"]))
        layout = self.seen(builder, self.made_by, self.source)
        assert layout is not None
        builder.bind(item, layout)

    @property
    def call(self) -> Node:
        """The pooling call."""
        return self.made_by

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return constants of the maxima; indices are unknown."""
        value = super().value(known, weights)
        return value if self.part == 0 else torch.full_like(value, NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return uneven constants of the maxima; indices are unknown."""
        return super().bordered(known, borders, weights) if self.part == 0 else None

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand for an item; the call itself reads through its items."""
        if self.node is not self.made_by:
            mark(self.source, live)

    @property
    def required(self) -> tuple[Node, ...]:
        """The operand."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Unpool(Family):
    """Values at the indices recorded by a max pooling, zeros elsewhere."""

    names = ("max_unpool2d", "max_unpool3d")

    node: Node
    source: Node
    places: Node  # indices

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the channels of values and indices."""
        source, places = node.operands[:2]
        rank = len(source.shape)
        spatial = range(rank - dimensions(node.operator), rank)
        inside = any(axis in spatial for n in (source, places) for axis in builder.axes(n))
        if inside or source.shape != places.shape:
            builder.refuse(node, [source, places])
            return
        shape = broadcast(*(tuple(builder.layout(n).shape) for n in (source, places)))
        layout = builder.layout(source).expand(shape)
        builder.join(layout, builder.layout(places).expand(shape))
        builder.bind(cls(node, source, places), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return 0 where the values are 0."""
        value = known[self.source]
        return torch.where(value == 0, value, NAN)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark values that are not zero, and their indices."""
        live = live & (known[self.source] != 0)
        mark(self.source, live)
        mark(self.places, live)

"""Maximum poolings that also return where the maxima stood, and what puts them back there."""

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
    """Maxima, and their places within a channel.

    Attributes:
        made_by: the call; ``node`` is an item of what it returns.
        part: 0 for the maxima, 1 for the places.
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
        """The channels of what it reads; of each of the two by itself."""
        source = node.operands[0]
        if cls.seen(builder, node, source) is not None:
            builder.found.operators[node] = cls(node, source, node)

    def visit_item(self, builder: Builder, node: Node) -> None:
        """The same channels."""
        item = replace(self, node=node, part=int(node.arguments["index"]))
        layout = self.seen(builder, self.made_by, self.source)
        assert layout is not None
        builder.bind(item, layout)

    @property
    def call(self) -> Node:
        """The pooling."""
        return self.made_by

    def value(self, known: Known, weights: Weights) -> Tensor:
        """The constant; where it stands first is not asked."""
        value = super().value(known, weights)
        return value if self.part == 0 else torch.full_like(value, NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """As of any pooling."""
        return super().bordered(known, borders, weights) if self.part == 0 else None

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """What its items read."""
        if self.node is not self.made_by:
            mark(self.source, live)

    @property
    def required(self) -> tuple[Node, ...]:
        """What it reads."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Unpool(Family):
    """Values at the places that a pooling found, zeros elsewhere."""

    names = ("max_unpool2d", "max_unpool3d")

    node: Node
    source: Node
    places: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """The channels of values and places meet."""
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
        """Zeros among zeros."""
        value = known[self.source]
        return torch.where(value == 0, value, NAN)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Values, and places where there is more than zeros."""
        live = live & (known[self.source] != 0)
        mark(self.source, live)
        mark(self.places, live)

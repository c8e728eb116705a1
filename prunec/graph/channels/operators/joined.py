"""Concatenations along positions, in which the channels of the parts are joined."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.layouts import NAN, broadcast, is_one_number
from prunec.graph.channels.operator import Known, Mark, Operator
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class JoinedPositions(Operator):
    """A concatenation along an axis without channels: the parts' channels are joined."""

    node: Node

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the constants on which all parts agree."""
        values = [known[x] for x in self.node.operands if x in known]
        shape = broadcast(*[tuple(v.shape) for v in values])
        same = torch.stack([v.expand(shape) for v in values])
        return torch.where((same == same[0]).all(0), same[0], NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return a constant number beside constant channels as their border."""
        sources = [x for x in self.node.operands if x in known]
        numbers = [known[x] for x in sources if is_one_number(known[x])]
        others = [known[x] for x in sources if not is_one_number(known[x])]
        if not numbers or not others or any(x in borders for x in sources):
            return None
        number, inside = numbers[0].reshape(-1)[0], others[0]
        if any(bool(value.reshape(-1)[0] != number) for value in numbers):
            return None
        for other in others[1:]:
            inside = torch.where(inside == other, inside, NAN)
        return Bordered((self.node,), inside, torch.full_like(inside, float(number)))

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the live channels in all parts."""
        for source in self.node.operands:
            mark(source, live)


def joins_positions(builder: Builder, call: Node, moved: tuple[Node, ...]) -> bool:
    """Return whether a concatenation runs along an axis without channels."""
    axis = int(call.arguments["dim"])
    return any(
        x.shape[axis] > 1 and builder.layout(x).shape[axis] == 1 and bool(builder.layout(x).any())
        for x in moved
    )


def bind_joined(builder: Builder, node: Node, moved: tuple[Node, ...]) -> None:
    """Join the parts' channels that lie at the same index."""
    shape = broadcast(*[tuple(builder.layout(x).shape) for x in moved])
    first = builder.layout(moved[0]).expand(shape)
    for operand in moved[1:]:
        builder.join(first, builder.layout(operand).expand(shape))
    builder.bind(JoinedPositions(node), first)

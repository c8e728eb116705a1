"""Tensors filled with one number, by explicit size or in the shape of another tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.names import FACTORIES
from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, on_axis
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.weights import Weights

_NUMBERS = {"zeros": 0.0, "ones": 1.0, "zeros_like": 0.0, "zero": 0.0, "ones_like": 1.0}
_WITH_CHANNELS = (2, 4, 5)  # axes of a row of features, an image, a volume


@dataclass(frozen=True, eq=False)
class Filled(Family):
    """zeros, ones, full: channels lie along axis 1 and are cut with the channels they meet."""

    names = FACTORIES
    several = True

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Create atoms along axis 1."""
        number = _number(node)
        rank = len(node.shape) if node.is_tensor else 0
        if rank == 1 and number is not None and _biases(node):
            builder.bind(cls(node), builder.unions.fresh(node.shape[0]))
            return
        if number is None or rank not in _WITH_CHANNELS:
            operands = () if node.is_tensor else [n for n in node.operands if n.is_tensor]
            builder.refuse(node, operands)
            return
        atoms = builder.unions.fresh(node.shape[1])
        builder.bind(cls(node), on_axis(atoms, 1, len(node.shape)))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the fill value."""
        number = _number(self.node)
        shape = [1] * len(self.node.shape)
        return torch.full(shape, NAN if number is None else number, dtype=torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark nothing."""

    def emit(self, writer: Writer) -> Written:
        """Write the call with the number of kept channels."""
        if writer.channel_axis(self.node) is None:
            return writer.copy(self.node)
        return writer.resize(self.node, min(1, len(self.node.shape) - 1))


@dataclass(frozen=True, eq=False)
class FilledLike(Family):
    """zeros_like, ones_like, full_like: filled in the shape of another tensor."""

    names = ("zeros_like", "ones_like", "full_like", "zero", "fill")

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the channels of the other tensor."""
        builder.bind(cls(node), builder.layout(node.operands[0]))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the fill value, which may be held in a tensor without axes."""
        source, *given = self.node.operands
        number = float(known[given[0]]) if given and given[0] in known else _number(self.node)
        shape = known[source].shape
        return torch.full(shape, NAN if number is None else number, dtype=torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark a fill value that is a tensor; of the other tensor only the shape is used."""
        for number in self.node.operands[1:]:
            mark(number, torch.ones((), dtype=torch.bool))


def _biases(node: Node) -> bool:
    """Return whether every reader of a vector uses it as its bias."""
    return all(user.arguments.get("bias") is node for user in node.users)


def _number(node: Node) -> float | None:
    """Return the fill value; None where it is computed."""
    number = _NUMBERS.get(node.operator.removeprefix("new_"))
    if number is None:
        named = node.arguments
        number = named.get("fill_value", named.get("value"))
    return float(number) if isinstance(number, (int, float)) else None

"""Kernels over positions: channels that lie along other axes than the kernel's pass it by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark, Operator
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Mixing(Operator):
    """A kernel over positions."""

    node: Node
    source: Node
    axis: int
    biased: bool

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Nothing but zeros stays what it was."""
        value = known[self.source].narrow(self.axis, 0, 1)
        return torch.where((value == 0) & torch.tensor(not self.biased), value, NAN)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """A channel that is read is read at all positions."""
        for axis in range(self.axis, live.dim()):
            live = live.any(axis, keepdim=True)
        mark(self.source, live)


def mixes_positions(
    builder: Builder, node: Node, source: Node, axis: int, inner: list[int]
) -> bool:
    """Record a kernel whose axis no channels lie along; say whether it is one.

    Args:
        builder: of the analysis.
        node: the call.
        source: what it reads.
        axis: the first axis that the kernel mixes.
        inner: all of them.
    """
    axes = builder.axes(source)
    if not axes or (axis in axes and 0 not in axes):
        return False
    layout = builder.outside(source, inner, f"{node.operator} at {node.name} runs over channels")
    if layout is None:
        builder.refuse(node, node.operands)
        return True
    for weight in node.operands:
        if weight is not source:
            builder.pin(builder.layout(weight), f"{node.operator} at {node.name} mixes positions")
    biased = node.arguments.get("bias") is not None
    builder.bind(Mixing(node, source, axis, biased), layout)
    return True

"""Kernels over positions, as in token mixing: channels along other axes are not mixed."""

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
    """A kernel over positions (Tolstikhin et al., MLP-Mixer, 2021)."""

    node: Node
    source: Node
    axis: int
    biased: bool

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return 0 where the operand is 0 and no bias is added."""
        value = known[self.source].narrow(self.axis, 0, 1)
        return torch.where((value == 0) & torch.tensor(not self.biased), value, NAN)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark live channels at all positions."""
        for axis in range(self.axis, live.dim()):
            live = live.any(axis, keepdim=True)
        mark(self.source, live)


def mixes_positions(
    builder: Builder, node: Node, source: Node, axis: int, inner: list[int]
) -> bool:
    """Record a kernel over an axis without channels; return whether the call is one.

    Args:
        builder: running analysis.
        node: the call.
        source: operand.
        axis: first axis that the kernel mixes.
        inner: all axes that the kernel mixes.
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

"""Means, sums and extremes over positions; reductions over channels are in over_channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders, settings
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, one_value
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.over_channels import runs_over_channels
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Reduction(Family):
    """A reduction over positions, each channel alone."""

    names = ("mean", "sum", "amax", "amin")

    node: Node
    source: Node
    axes: tuple[int, ...]
    squeezed: bool

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the operand's channels; refuse a reduction over them."""
        source = node.operands[0]
        axes = reduced_axes(node.arguments.get("dim"), len(source.shape))
        if runs_over_channels(builder, node, source, axes):
            return
        why = f"{node.operator} at {node.name} runs over channels"
        layout = builder.outside(source, axes, why) if axes else None
        if layout is None:
            builder.refuse(node, [source], why)
            return
        squeezed = not node.arguments.get("keepdim")
        if squeezed:
            for axis in reversed(axes):
                layout = layout.squeeze(axis)
        builder.bind(cls(node, source, tuple(axes), squeezed), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return values that are the same along the axes; of a sum only 0."""
        value = self._without_axes(known[self.source])
        return torch.where(value == 0, value, NAN) if self.node.operator == "sum" else value

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return uneven constants of a mean or a sum."""
        source, name = borders.get(self.source), self.node.operator
        if name not in ("mean", "sum"):
            return None
        if source is None:
            if name == "mean":
                return None
            value = known[self.source]
            source = Bordered((), value, torch.zeros_like(value))
        return source.moved(
            settings(self.node),
            inside=self._without_axes(source.inside),
            border=self._without_axes(source.border),
            sharp=False,
            whole=source.whole and name == "mean",
        )

    def _without_axes(self, value: Tensor) -> Tensor:
        """Return the value that is the same along the axes, NaN where values differ."""
        for axis in reversed(self.axes):
            value = one_value(value, axis) if value.shape[axis] > 1 else value
            value = value.squeeze(axis) if self.squeezed else value
        return value

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand all along the axes."""
        if self.squeezed:
            for axis in self.axes:
                live = live.unsqueeze(axis)
        mark(self.source, live)


def reduced_axes(dim: object, rank: int) -> list[int]:
    """Return the reduced axes, ascending; empty where all are reduced."""
    if isinstance(dim, int):
        return [dim % rank]
    return sorted({d % rank for d in dim}) if isinstance(dim, (list, tuple)) else []

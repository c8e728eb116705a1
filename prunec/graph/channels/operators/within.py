"""Operators that mix values along some axes, independently at all others: softmax, layer norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders, settings
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import one_value
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.over_channels import runs_over_channels
from prunec.graph.channels.operators.reduction import reduced_axes
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Within(Family):
    """An operator that mixes values along some axes; channels lie along the others."""

    names = frozenset(
        (
            "softmax _softmax log_softmax _log_softmax layer_norm native_layer_norm rms_norm "
            "cumsum linalg_vector_norm"
        ).split()
    )

    node: Node
    source: Node
    axes: tuple[int, ...]
    squeezed: bool

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the operand's channels; refuse if they lie along the mixed axes."""
        source = node.operands[0]
        named = node.arguments
        rank = len(source.shape)
        if "normalized_shape" in named:
            axes = list(range(rank - len(named["normalized_shape"]), rank))
        else:
            axes = reduced_axes(named.get("dim"), rank)
        norm = node.operator == "linalg_vector_norm"
        if norm and runs_over_channels(builder, node, source, axes):
            return
        why = f"{node.operator} at {node.name} normalises over channels"
        layout = builder.outside(source, axes, why) if axes else None
        for operand in node.operands[1:]:
            if operand.is_tensor:
                builder.pin(builder.layout(operand), why)
        if layout is None:
            builder.refuse(node, [source], why)
            return
        squeezed = norm and not named.get("keepdim")
        if squeezed:
            for axis in reversed(axes):
                layout = layout.squeeze(axis)
        builder.bind(cls(node, source, tuple(axes), squeezed), layout)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return uneven constants of cumulative sums and norms."""
        name, value = self.node.operator, known[self.source]
        if name not in ("cumsum", "linalg_vector_norm") or self.source in borders:
            return None
        value = value.abs() if name == "linalg_vector_norm" else value
        for axis in reversed(self.axes) if self.squeezed else ():
            value = one_value(value, axis).squeeze(axis)
        nothing = torch.zeros_like(value)
        return Bordered((settings(self.node),), value, nothing, sharp=False, whole=False)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark live channels all along the axes."""
        for axis in self.axes:
            live = live.unsqueeze(axis) if self.squeezed else live.any(axis, keepdim=True)
        mark(self.source, live)

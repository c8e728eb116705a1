"""Instance norm: each channel normalised over its positions, or by stored statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import on_axis, one_value
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.group_norm import affine
from prunec.graph.channels.operators.kernel import stored_name
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class InstanceNorm(Family):
    """Normalisation of each channel of each sample alone (Ulyanov et al., 2016)."""

    names = ("instance_norm",)

    node: Node
    source: Node
    weight: str | None
    bias: str | None
    mean: str | None
    variance: str | None
    epsilon: float

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Tie parameters and statistics to the channels."""
        named = node.arguments
        source = named["input"]
        atoms = builder.along(source, 1)
        keys = ("weight", "bias", "running_mean", "running_var")
        weight, bias, *running = (stored_name(named[key]) for key in keys)
        for name in (weight, bias, *running):
            if name is not None:
                builder.slice(name, 0, atoms, len(atoms))
        mean, variance = (None, None) if named["use_input_stats"] else running
        norm = cls(node, source, weight, bias, mean, variance, float(named["eps"]))
        builder.bind(norm, on_axis(atoms, 1, len(source.shape)))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return β for a channel that does not vary, or its norm by stored statistics."""
        value = known[self.source]
        for axis in range(value.dim()):
            if axis != 1 and value.shape[axis] > 1:
                value = one_value(value, axis)
        flat = value.reshape(-1)
        if self.mean is None or self.variance is None:
            # 0 for a constant, which is its own mean; NaN stays NaN.
            normal = flat - flat
        else:
            spread = torch.sqrt(weights[self.variance].to(torch.float64) + self.epsilon)
            normal = (flat - weights[self.mean].to(torch.float64)) / spread
        return on_axis(affine(normal, self.weight, self.bias, weights), 1, value.dim())

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark live channels whose γ is not zero."""
        if self.weight is not None:
            live = live & on_axis(weights[self.weight] != 0, 1, live.dim())
        mark(self.source, live)

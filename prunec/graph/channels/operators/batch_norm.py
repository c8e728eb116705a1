"""Batch norm with running statistics: a scale and a shift per channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import on_axis
from prunec.graph.channels.operator import Known, Mark, Writer, Written, WrittenLayer
from prunec.graph.channels.operators.kernel import stored_name
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Norm(Family):
    """One batch norm call: names of its tensors (or None) and its epsilon."""

    names = ("batch_norm",)

    node: Node
    source: Node
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Tie the parameters and statistics to the channels; refuse statistics of the batch."""
        named = node.arguments
        source = named["input"]
        parts = [named[key] for key in ("weight", "bias", "running_mean", "running_var")]
        if any(p is not None and p.kind != "stored" for p in parts) or parts[2] is None:
            why = f"batch norm at {node.name} uses statistics of the batch"
            builder.refuse(node, [source], why)
            return
        atoms = builder.along(source, 1)
        weight, bias, mean, variance = map(stored_name, parts)
        for name in (weight, bias, mean, variance):
            if name is not None:
                builder.slice(name, 0, atoms, len(atoms))
        assert mean is not None
        assert variance is not None
        norm = cls(node, source, weight, bias, mean, variance, float(named["eps"]))
        builder.bind(norm, builder.layout(source))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return (x − μ)/√(σ²+ε)·γ + β of a constant x; β where γ is zero, whatever x is."""
        value = known[self.source]
        rank = value.dim()

        def stored(name: str | None, default: float) -> Tensor:
            if name is None:
                return torch.full([1] * rank, default, dtype=torch.float64)
            return on_axis(weights[name].to(torch.float64), 1, rank)

        gamma, beta = stored(self.weight, 1.0), stored(self.bias, 0.0)
        mean, variance = stored(self.mean, 0.0), stored(self.variance, 1.0)
        result = (value - mean) / torch.sqrt(variance + self.epsilon) * gamma + beta
        # NaN · 0 is NaN, so the known case is selected explicitly.
        return torch.where((gamma == 0).expand_as(result), beta.expand_as(result), result)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the norm of the constants inside and along the border."""
        return self.at_each_position([self.source], known, borders, weights, linear=True)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark live channels whose γ is not zero."""
        if self.weight is not None:
            live = live & on_axis(weights[self.weight] != 0, 1, live.dim())
        mark(self.source, live)

    def emit(self, writer: Writer) -> Written:
        """Write a module if the network had one for the call; write nothing for a folded norm."""
        if writer.is_folded(self.node):
            return writer.new(self.source)
        names = {
            "weight": self.weight,
            "bias": self.bias,
            "running_mean": self.mean,
            "running_var": self.variance,
        }
        tensors = {key: None if n is None else writer.tensor(n) for key, n in names.items()}
        return writer.layer(self.node, self.source, WrittenLayer(names, tensors, {}))

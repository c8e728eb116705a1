"""Group norm: channels of a normalisation group are cut together, one group fewer in the norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, on_axis
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.operators.kernel import stored_name
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class GroupNorm(Family):
    """Normalisation over a group of channels and all positions of a sample (Wu & He, 2018)."""

    names = ("group_norm",)

    node: Node
    source: Node
    weight: str | None
    bias: str | None
    channels: int
    groups: int
    epsilon: float

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the channels of each group; pin them all where there is one group only."""
        named = node.arguments
        source, groups = named["input"], int(named["num_groups"])
        atoms = builder.along(source, 1)
        weight, bias = stored_name(named["weight"]), stored_name(named["bias"])
        for name in (weight, bias):
            if name is not None:
                builder.slice(name, 0, atoms, len(atoms))
        rows = atoms.reshape(groups, -1)
        if groups == 1:
            builder.pin(atoms, f"group_norm at {node.name} normalises over all channels")
        else:
            builder.join(rows[:, :1].expand_as(rows), rows)
        norm = cls(node, source, weight, bias, len(atoms), groups, float(named["eps"]))
        builder.bind(norm, on_axis(atoms, 1, len(source.shape)))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the norm of constants: known for a whole group of them, β where γ is zero."""
        value = known[self.source]
        flat = value.reshape(-1) if value.numel() == self.channels else torch.full((1,), NAN)
        groups = flat.expand(self.channels).reshape(self.groups, -1).to(torch.float64)
        mean = groups.mean(1, keepdim=True)
        # NaN if any channel of the group is unknown: its mean is unknown too.
        deviation = groups - mean
        variance = (deviation**2).mean(1, keepdim=True)
        normal = (deviation / torch.sqrt(variance + self.epsilon)).reshape(-1)
        return on_axis(affine(normal, self.weight, self.bias, weights), 1, value.dim())

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark all channels of a group with a live channel whose γ is not zero."""
        if self.weight is not None:
            live = live & on_axis(weights[self.weight] != 0, 1, live.dim())
        flat = live.flatten(2).any(-1).any(0) if live.dim() > 2 else live.any(0)
        groups = flat.expand(self.channels).reshape(self.groups, -1)
        read = groups.any(1, keepdim=True).expand_as(groups).reshape(-1)
        mark(self.source, on_axis(read, 1, live.dim()))

    def emit(self, writer: Writer) -> Written:
        """Set num_groups to the number of groups that remain."""
        kept = writer.count_kept(self.source, 1) * self.groups // self.channels
        return writer.call(self.node, num_groups=kept)


def affine(normal: Tensor, weight: str | None, bias: str | None, weights: Weights) -> Tensor:
    """Return γ·x + β per channel, and β alone where γ is zero, whatever x is."""
    gamma = torch.ones_like(normal) if weight is None else weights[weight].to(torch.float64)
    beta = torch.zeros_like(normal) if bias is None else weights[bias].to(torch.float64)
    return torch.where(gamma == 0, beta, normal * gamma + beta)

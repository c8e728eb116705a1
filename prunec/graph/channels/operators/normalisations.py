"""Normalisation by statistics of the sample itself, and what else works within some axes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operators.pointwise import reduced_axes
from prunec.graph.channels.structure import Mark, Rule

NAN = float("nan")


@dataclass(frozen=True)
class Within(Rule):
    """An operator that mixes values along some axes; channels lie along the others."""

    source: Node
    axes: tuple[int, ...]
    squeezed: bool

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """A channel that is read is read all along the axes."""
        for axis in self.axes:
            live = live.unsqueeze(axis) if self.squeezed else live.any(axis, keepdim=True)
        mark(self.source, live)


def visit_within(builder: Builder, node: Node) -> None:
    """softmax, layer_norm, cumsum, vector norms."""
    source = node.all_input_nodes[0]
    named = ops.arguments(node)
    rank = len(builder.captured.shape(source))
    if "normalized_shape" in named:
        axes = list(range(rank - len(named["normalized_shape"]), rank))
    else:
        axes = reduced_axes(named.get("dim"), rank)
    why = f"{ops.op_name(node)} at {node.name} normalises over channels"
    layout = builder.outside(source, axes, why) if axes else None
    rest = [n for n in node.all_input_nodes[1:] if builder.captured.is_tensor(n)]
    for operand in rest:
        builder.pin(builder.layout(operand), why)
    if layout is None:
        builder.refuse(node, [source], why)
        return
    squeezed = ops.op_name(node) == "linalg_vector_norm" and not named.get("keepdim")
    if squeezed:
        for axis in sorted(axes, reverse=True):
            layout = layout.squeeze(axis)
    builder.rule(node, Within(source, tuple(axes), squeezed), layout)


@dataclass(frozen=True)
class GroupNorm(Rule):
    """Group norm: the channels of a norm's group go together, and the norm has a group less."""

    source: Node
    weight: str | None
    bias: str | None
    channels: int
    groups: int
    epsilon: float

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """Of a group of constants all moments are known; a factor of zero leaves the shift."""
        value = known[self.source]
        flat = value.reshape(-1) if value.numel() == self.channels else torch.full((1,), NAN)
        groups = flat.expand(self.channels).reshape(self.groups, -1).to(torch.float64)
        mean = groups.mean(1, keepdim=True)
        deviation = groups - mean
        variance = (deviation**2).mean(1, keepdim=True)
        normal = (deviation / torch.sqrt(variance + self.epsilon)).reshape(-1)
        return _affine(normal, self.weight, self.bias, weights).reshape(
            [-1 if i == 1 else 1 for i in range(value.dim())]
        )

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """Every channel of a group that is read, unless its factor is zero."""
        if self.weight is not None:
            live = live & (weights[self.weight] != 0).reshape(
                [-1 if i == 1 else 1 for i in range(live.dim())]
            )
        flat = live.flatten(2).any(-1).any(0) if live.dim() > 2 else live.any(0)
        groups = flat.expand(self.channels).reshape(self.groups, -1)
        read = groups.any(1, keepdim=True).expand_as(groups).reshape(-1)
        mark(self.source, read.reshape([-1 if i == 1 else 1 for i in range(live.dim())]))

    def changes(self, kept: Callable[[Node, int], int]) -> dict[str, object]:
        """As many groups as are left."""
        return {"num_groups": kept(self.source, 1) * self.groups // self.channels}


def _affine(
    normal: Tensor, weight: str | None, bias: str | None, weights: Mapping[str, Tensor]
) -> Tensor:
    gamma = torch.ones_like(normal) if weight is None else weights[weight].to(torch.float64)
    beta = torch.zeros_like(normal) if bias is None else weights[bias].to(torch.float64)
    return torch.where(gamma == 0, beta, normal * gamma + beta)


def visit_group_norm(builder: Builder, node: Node) -> None:
    """Join the channels of each group; of all channels where there is one group only."""
    named = ops.arguments(node)
    source, groups = named["input"], int(named["num_groups"])
    atoms = builder.along(source, 1)
    names = _affine_names(named)
    for name in names:
        if name is not None:
            builder.slice(name, 0, atoms, len(atoms))
    rows = atoms.reshape(groups, -1)
    if groups == 1:
        builder.pin(atoms, f"group_norm at {node.name} normalises over all channels")
    builder.join(rows[:, :1].expand_as(rows), rows)
    rule = GroupNorm(source, names[0], names[1], len(atoms), groups, float(named["eps"]))
    builder.rule(node, rule, _on_axis_one(builder, source, atoms))


@dataclass(frozen=True)
class InstanceNorm(Rule):
    """Instance norm: each channel by its own moments over positions."""

    source: Node
    weight: str | None
    bias: str | None
    mean: str | None
    variance: str | None
    epsilon: float

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """A channel that does not vary becomes the shift."""
        value = known[self.source]
        shape = [-1 if i == 1 else 1 for i in range(value.dim())]
        for axis in range(value.dim()):
            if axis != 1 and value.shape[axis] > 1:
                first = value.narrow(axis, 0, 1)
                value = torch.where((value == first).all(axis, keepdim=True), first, NAN)
        flat = value.reshape(-1)
        if self.mean is None or self.variance is None:
            normal = flat - flat
        else:
            spread = torch.sqrt(weights[self.variance].to(torch.float64) + self.epsilon)
            normal = (flat - weights[self.mean].to(torch.float64)) / spread
        return _affine(normal, self.weight, self.bias, weights).reshape(shape)

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """A channel that is read, unless its factor is zero."""
        if self.weight is not None:
            live = live & (weights[self.weight] != 0).reshape(
                [-1 if i == 1 else 1 for i in range(live.dim())]
            )
        mark(self.source, live)


def visit_instance_norm(builder: Builder, node: Node) -> None:
    """Its parameters are cut with the channels."""
    named = ops.arguments(node)
    source = named["input"]
    atoms = builder.along(source, 1)
    names = _affine_names(named)
    statistics = [named[key] for key in ("running_mean", "running_var")]
    running = [None if p is None else str(p.target) for p in statistics]
    for name in (*names, *running):
        if name is not None:
            builder.slice(name, 0, atoms, len(atoms))
    mean, variance = (None, None) if named["use_input_stats"] else running
    rule = InstanceNorm(source, *names, mean, variance, float(named["eps"]))
    builder.rule(node, rule, _on_axis_one(builder, source, atoms))


def _affine_names(named: Mapping[str, Node | None]) -> tuple[str | None, str | None]:
    weight, bias = named["weight"], named["bias"]
    return (
        None if weight is None else str(weight.target),
        None if bias is None else str(bias.target),
    )


def _on_axis_one(builder: Builder, source: Node, atoms: Tensor) -> Tensor:
    rank = len(builder.captured.shape(source))
    return atoms.reshape([-1 if i == 1 else 1 for i in range(rank)])

"""Operators along positions other than means and extremes: variance, sorting, cumulative ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, one_value
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.reduction import reduced_axes
from prunec.graph.channels.weights import Weights

_SPREADS = frozenset("var std var_mean std_mean".split())
_CHOOSES = frozenset("sort topk cummax cummin median kthvalue mode".split())
_KEEPS_AXES = frozenset("sort topk cummax cummin logcumsumexp".split())


@dataclass(frozen=True, eq=False)
class Along(Family):
    """An operator along positions, applied to each channel alone; may return several values.

    Attributes:
        node: the call, or one item of its result.
        call: the call.
        source: operand.
        axes: axes along which the operator runs.
        part: index of the returned value.
    """

    names = _SPREADS | _CHOOSES | {"logsumexp", "prod", "logcumsumexp", "argmax", "argmin"}
    several = True

    node: Node
    call: Node
    source: Node
    axes: tuple[int, ...]
    part: int = 0

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the operand's channels through; refuse if they lie along the axes."""
        source = node.operands[0]
        named = node.arguments
        axes = reduced_axes(named.get("dim"), len(source.shape)) if source.is_tensor else []
        why = f"{node.operator} at {node.name} runs over channels"
        if not axes or builder.outside(source, axes, why) is None:
            builder.refuse(node, [n for n in node.operands if n.is_tensor], why)
            return
        operator = cls(node, node, source, tuple(axes))
        if node.is_tensor:
            operator.bind(builder)
        else:
            builder.structure.operators[node] = operator

    def visit_item(self, builder: Builder, node: Node) -> None:
        """Bind one returned value to the same channels."""
        replace(self, node=node, part=int(node.arguments["index"])).bind(builder)

    def bind(self, builder: Builder) -> None:
        """Record the operator with the channels of its operand."""
        layout = builder.outside(self.source, self.axes, "")
        assert layout is not None
        for axis in reversed(self.axes) if self._squeezed else ():
            layout = layout.squeeze(axis)
        builder.bind(self, layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return 0 for the spread of equal values, and the value itself for any choice among
        them.
        """
        value = known[self.source]
        for axis in reversed(self.axes):
            value = one_value(value, axis) if value.shape[axis] > 1 else value
            value = value.squeeze(axis) if self._squeezed else value
        name = self.call.operator
        if name in _SPREADS and self.part == 0:
            # With no more values than the correction (n <= 1 by default), torch divides 0 by 0.
            return torch.where(value.isnan() | torch.tensor(self._too_few), NAN, 0.0)
        if name == "prod":
            return torch.where(value == 0, value, NAN)
        same = name in _SPREADS or (name in _CHOOSES and self.part == 0)
        return value if same else torch.full_like(value, NAN)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand at all positions along the axes; the call itself reads through its
        items.
        """
        if not self.node.is_tensor:
            return
        for axis in self.axes if self._squeezed else ():
            live = live.unsqueeze(axis)
        mark(self.source, live)

    @property
    def required(self) -> tuple[Node, ...]:
        """The operand."""
        return (self.source,)

    @property
    def _too_few(self) -> bool:
        """Whether so few values are reduced that their spread is NaN."""
        named = self.call.arguments
        correction = named.get("correction")
        if correction is None:
            correction = int(named.get("unbiased", True))
        return math.prod(self.source.shape[axis] for axis in self.axes) <= correction

    @property
    def _squeezed(self) -> bool:
        return self.call.operator not in _KEEPS_AXES and not self.call.arguments.get("keepdim")

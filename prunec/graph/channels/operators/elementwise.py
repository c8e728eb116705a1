"""Operators whose result at a position depends on the operands at that position alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.names import ELEMENTWISE
from prunec.graph.capture.node import Node, is_number, replaced
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, broadcast, varying
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.weights import Weights

_CHOOSING = {"where": ("condition", "self", "other"), "masked_fill": ("mask", "value", "self")}


@dataclass(frozen=True, eq=False)
class Elementwise(Family):
    """An element-wise operator: channels that meet at a position are cut together."""

    names = ELEMENTWISE
    takes_constants = True

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the atoms that meet at each position."""
        layout = met(builder, node)
        if layout is not None:
            builder.bind(cls(node), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the operator's result on constants; 0 where any factor of a product is 0."""
        node = self.node
        operands = [x for x in node.operands if x in known and x.is_tensor]
        shape = broadcast(*[tuple(known[x].shape) for x in operands])
        if node.operator in _CHOOSING and node.compute is not None:
            return self._chosen(known)
        result = torch.full(shape, NAN, dtype=torch.float64)
        if node.compute is not None and all(x in known for x in node.operands if x.is_tensor):
            result = self._computed(known, result)
        unknown = torch.zeros(shape, dtype=torch.bool)
        for x in operands:
            unknown = unknown | known[x].isnan()
        result = torch.where(unknown, NAN, result.to(torch.float64))
        if node.operator == "mul":
            for x in operands:
                # 0 · x = 0 even for unknown x: networks compute with finite numbers.
                result = torch.where(known[x] == 0, 0.0, result)
        return result

    def _computed(self, known: Known, unknown: Tensor) -> Tensor:
        """Return the operator's result; ``unknown`` where a number computed from the batch
        enters.
        """
        node = self.node
        if any(is_number(x.value) for x in node.operands) or node.compute is None:
            return unknown
        typed = replaced(dict(node.arguments), lambda operand: _as_typed(operand, known))
        result: Tensor = node.compute(typed)
        return result

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the result inside and along the border; None where an operand is broadcast."""
        sources = [n for n in self.node.operands if n in known and n.is_tensor]
        if any(n.shape != self.node.shape for n in sources if n in borders):
            return None
        return self.at_each_position(sources, known, borders, weights)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark every operand, except where another factor is zero."""
        for operand in self.node.operands:
            mark(operand, live & ~self._cancelled(operand, known))

    def _chosen(self, known: Known) -> Tensor:
        """Return the side that a known condition selects, or the value if both sides agree."""
        node = self.node
        given = [node.arguments[key] for key in _CHOOSING[node.operator]]
        condition, yes, no = (
            known[x] if x in known else torch.tensor(_number(x), dtype=torch.float64) for x in given
        )
        # NaN differs from itself, so unknown sides stay unknown.
        either = torch.where(yes == no, yes, NAN)
        return torch.where(condition.isnan(), either, torch.where(condition != 0, yes, no))

    def _cancelled(self, operand: Node, known: Known) -> Tensor:
        """Return where another factor is zero, so that this operand does not matter."""
        cancelled = torch.zeros([], dtype=torch.bool)
        if self.node.operator == "mul":
            for other in self.node.operands:
                if other is not operand and other in known:
                    cancelled = cancelled | (known[other] == 0)
        return cancelled

    def emit(self, writer: Writer) -> Written:
        """Write the call; an addition of a constant zero is left out."""
        operands = self.node.operands
        if self.node.operator == "add" and len(operands) == 2:
            for operand, rest in (operands, operands[::-1]):
                if writer.frozen_to_zero(operand):
                    return writer.new(rest)
        return writer.copy(self.node)


def _as_typed(operand: Node, known: Known) -> Tensor:
    """Return constants in the operand's type, for operators that take bools or integers."""
    value, dtype = known[operand], operand.dtype
    if dtype is None or dtype.is_floating_point or dtype.is_complex:
        return value
    return torch.nan_to_num(value).to(dtype)


def _number(operand: object) -> float:
    """Return a literal number; NaN for one that is computed from the batch."""
    return float(operand) if isinstance(operand, (int, float)) else NAN


def met(builder: Builder, node: Node) -> Tensor | None:
    """Join atoms that meet position by position.

    Returns:
        The layout of the result. None, with the call refused, if no operand has channels.
    """
    operands = [n for n in node.operands if n.is_tensor]
    out_shape = node.shape
    rank = len(out_shape)
    aligned = []
    for operand in operands:
        builder.axes(operand)  # renames joined atoms, so that the layouts below compare equal
        layout = builder.layout(operand)
        lead = [1] * (rank - layout.dim())
        aligned.append((layout.reshape(lead + list(layout.shape)), tuple(lead) + operand.shape))
    target = broadcast(*[tuple(layout.shape) for layout, _ in aligned])
    result: Tensor | None = None
    name = node.operator
    for layout, real in aligned:
        spread = any(real[i] == 1 and out_shape[i] > 1 and target[i] > 1 for i in range(rank))
        if spread and not varying(layout):
            builder.pin(layout, f"broadcast by {name} at {node.name}")
        elif result is None:
            result = layout.expand(target)
        else:
            why = f"meets a value that is not a channel in {name} at {node.name}"
            builder.join(result, layout.expand(target), why)
    if result is None:
        builder.refuse(node, operands, f"outer product by {name} at {node.name}")
    return result

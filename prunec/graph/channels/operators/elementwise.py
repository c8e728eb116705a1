"""Operators whose value at a position depends on that position alone, of one tensor or several."""

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
    """Operands that meet position by position are cut together."""

    names = ELEMENTWISE
    takes_constants = True

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Join the atoms that meet."""
        layout = met(builder, node)
        if layout is not None:
            builder.bind(cls(node), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """What the operator makes of constants; a factor of zero makes zero of anything."""
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
                result = torch.where(known[x] == 0, 0.0, result)
        return result

    def _computed(self, known: Known, unknown: Tensor) -> Tensor:
        """What the operator computes; unknown where a number of the batch takes part in it."""
        node = self.node
        if any(is_number(x.value) for x in node.operands) or node.compute is None:
            return unknown
        typed = replaced(dict(node.arguments), lambda operand: _as_typed(operand, known))
        result: Tensor = node.compute(typed)
        return result

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Position by position, where an operand is not repeated."""
        sources = [n for n in self.node.operands if n in known and n.is_tensor]
        if any(n.shape != self.node.shape for n in sources if n in borders):
            return None
        return self.at_each_position(sources, known, borders, weights)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Every operand, but where another factor is zero."""
        for operand in self.node.operands:
            mark(operand, live & ~self._cancelled(operand, known))

    def _chosen(self, known: Known) -> Tensor:
        """What a known condition chooses; what is the same either way."""
        node = self.node
        given = [node.arguments[key] for key in _CHOOSING[node.operator]]
        condition, yes, no = (
            known[x] if x in known else torch.tensor(_number(x), dtype=torch.float64) for x in given
        )
        either = torch.where(yes == no, yes, NAN)
        return torch.where(condition.isnan(), either, torch.where(condition != 0, yes, no))

    def _cancelled(self, operand: Node, known: Known) -> Tensor:
        """Where another factor is zero, this operand's value does not matter."""
        cancelled = torch.zeros([], dtype=torch.bool)
        if self.node.operator == "mul":
            for other in self.node.operands:
                if other is not operand and other in known:
                    cancelled = cancelled | (known[other] == 0)
        return cancelled

    def emit(self, writer: Writer) -> Written:
        """Not at all where a constant of zero is added to what stays."""
        operands = self.node.operands
        if self.node.operator == "add" and len(operands) == 2:
            for operand, rest in (operands, operands[::-1]):
                if writer.frozen_to_zero(operand):
                    return writer.new(rest)
        return writer.copy(self.node)


def _as_typed(operand: Node, known: Known) -> Tensor:
    """Constants as an operator takes them that asks for flags or for whole numbers."""
    value, dtype = known[operand], operand.dtype
    if dtype is None or dtype.is_floating_point or dtype.is_complex:
        return value
    return torch.nan_to_num(value).to(dtype)


def _number(operand: object) -> float:
    """A number that the graph holds; one that depends on the batch is unknown."""
    return float(operand) if isinstance(operand, (int, float)) else NAN


def met(builder: Builder, node: Node) -> Tensor | None:
    """Join atoms that meet position by position.

    Returns:
        The layout of the result; None, and the call refused, where none of its operands has one.
    """
    operands = [n for n in node.operands if n.is_tensor]
    out_shape = node.shape
    rank = len(out_shape)
    aligned = []
    for operand in operands:
        builder.axes(operand)  # names the atoms that were joined in the same way
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
            why = f"meets a value that is no channel in {name} at {node.name}"
            builder.join(result, layout.expand(target), why)
    if result is None:
        builder.refuse(node, operands, f"outer product by {name} at {node.name}")
    return result

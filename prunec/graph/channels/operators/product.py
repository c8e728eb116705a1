"""Products of activations: matrix products and einsum.

An axis that both operands and the result share (heads, for example) is a batch axis: channels at
the same index are cut together in all three. A summed axis ties the channels of one operand to
those of the other. Every other axis belongs to one operand alone.
"""

from __future__ import annotations

import string
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, varying
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.operators.letters import (
    Side,
    channels,
    own_letters,
    project,
    same_value,
    seen_in,
    tie,
)  # fmt: skip
from prunec.graph.channels.operators.linear import visit_weight_product
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Product(Family):
    """A sum of products of two operands, in einsum notation.

    Attributes:
        node: the call.
        sides: the operands with their letters.
        out: one letter per axis of the result.
        averaged: the operand whose mean is taken, if the other is a softmax along the summed axis.
    """

    names: ClassVar[Collection[str]] = ("matmul", "mm", "bmm", "baddbmm")

    node: Node
    sides: tuple[Side, Side]
    out: str
    averaged: Side | None = None

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Tie the channels of a matrix product of the last two axes."""
        first, second = [n for n in node.arguments.values() if isinstance(n, Node)][-2:]
        shapes = [first.shape, second.shape]
        if node.operator == "baddbmm" and bool(builder.layout(node.operands[0]).any()):
            builder.refuse(node, node.operands)
            return
        if min(map(len, shapes)) < 2:
            builder.refuse(node, [first, second], f"matmul at {node.name} of a vector")
            return
        rank = len(node.shape)
        batch = string.ascii_lowercase[: rank - 2]
        letters = [batch[rank - len(shape) :] for shape in shapes]
        sides = ((first, letters[0] + "yz"), (second, letters[1] + "zx"))
        visit_product(builder, node, sides, batch + "yx")

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return 0 where an operand is 0 all along the sum, or the value of a mean of equal
        values.
        """
        zero = torch.zeros([1] * len(self.out), dtype=torch.bool)
        for operand, letters in self.sides:
            zero = zero | project(known[operand] == 0, letters, self.out, torch.Tensor.all)
        mean = torch.tensor(NAN, dtype=torch.float64)
        if self.averaged is not None:
            operand, letters = self.averaged
            mean = project(known[operand], letters, self.out, same_value)
        return torch.where(zero, 0.0, mean)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark operands all along the sum, except where the other operand is zero."""
        for (operand, letters), (other, others) in (self.sides, self.sides[::-1]):
            wanted = project(live, self.out, letters, torch.Tensor.any)
            zero = project(known[other] == 0, others, letters, torch.Tensor.all)
            mark(operand, wanted & ~zero)


class Einsum(Product):
    """An einsum of two operands, each letter once per operand."""

    names = ("einsum",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Tie the channels as the equation says; refuse other equations."""
        equation, listed = list(node.arguments.values())[:2]
        operands = [n for n in listed if isinstance(n, Node)]
        left, arrow, out = equation.replace(" ", "").partition("->")
        terms = left.split(",")
        repeated = any(len(set(term)) < len(term) for term in terms)
        if not arrow or len(terms) != 2 or "." in equation or repeated:
            builder.refuse(node, operands, f"einsum at {node.name}: '{equation}'")
            return
        visit_product(builder, node, ((operands[0], terms[0]), (operands[1], terms[1])), out)


def visit_product(builder: Builder, node: Node, sides: tuple[Side, Side], out: str) -> None:
    """Tie the operands' channels along shared axes and bind those of the result."""
    if _visit_with_weight(builder, node, sides, out):
        return
    one, two = own_letters(sides)
    shared = set(one[1]) & set(two[1])
    for tied in (shared & set(out), shared - set(out)):
        met = sorted({c for side in (one, two) for c in channels(builder, side) & tied})
        if met:
            tie(builder, (one, two), met)
    free = [channels(builder, side) - shared for side in (one, two)]
    if all(free):
        why = f"outer product by {node.operator} at {node.name}"
        builder.refuse(node, [one[0], two[0]], why)
        return
    layouts = [seen_in(builder, side, out) for side in (one, two)]
    lead = max(layouts, key=lambda seen: (len(varying(seen)), bool(seen.any()), seen.numel()))
    summed = shared - set(out)
    averaged = next((b for a, b in ((one, two), (two, one)) if _is_mean(a, summed)), None)
    builder.bind(Product(node, (one, two), out, averaged), lead)


def _is_mean(side: Side, summed: set[str]) -> bool:
    """Return whether an operand is a softmax along the summed axis, with entries that sum to 1."""
    node, letters = side
    # In evaluation these do not change the weights of the mean.
    while node.operator in ("dropout", "clone"):
        node = node.operands[0]
    if node.operator not in ("softmax", "_softmax"):
        return False
    return summed == {letters[int(node.arguments["dim"]) % len(letters)]}


def _visit_with_weight(builder: Builder, node: Node, sides: tuple[Side, Side], out: str) -> bool:
    """Record a product with a stored matrix as a kernel; return whether it was one."""
    for (weight, names), (source, letters) in (sides, sides[::-1]):
        if weight.kind != "stored" or len(names) != 2 or source.kind == "stored":
            continue
        for summed, made in ((names[0], names[1]), (names[1], names[0])):
            if summed in letters and letters.replace(summed, made) == out:
                visit_weight_product(
                    builder, node, source, weight, letters.index(summed),
                    transposed=names[0] == summed,
                )  # fmt: skip
                return True
    return False

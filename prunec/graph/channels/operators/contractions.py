"""Products of activations: matrix products, einsum, attention.

An axis that both operands and the result have (a head, say) is a batch axis: the channels at each
of its places go together on all sides. An axis that is summed over ties the channels of one operand
to those of the other. The axes that are left belong to one operand alone.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operators.producers import visit_weight_product
from prunec.graph.channels.shapes import broadcast
from prunec.graph.channels.structure import Mark, Rule, varying

Side = tuple[Node, str]
"""An operand, and a letter for each of its axes."""


@dataclass(frozen=True)
class Contraction(Rule):
    """A sum of products of two operands, as einsum writes it.

    Attributes:
        sides: the operands.
        out: a letter for each axis of the result.
        averaged: the operand that the other, a softmax along the sum, takes a mean of.
    """

    sides: tuple[Side, Side]
    out: str
    averaged: Side | None = None

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """Zero where one operand is zero all along the sum; a mean of what is the same is that."""
        zero = torch.zeros([1] * len(self.out), dtype=torch.bool)
        for operand, letters in self.sides:
            zero = zero | _project(known[operand] == 0, letters, self.out, torch.Tensor.all)
        mean = torch.tensor(float("nan"), dtype=torch.float64)
        if self.averaged is not None:
            operand, letters = self.averaged
            mean = _project(known[operand], letters, self.out, _same)
        return torch.where(zero, 0.0, mean)

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """All along the sum, but where the other operand is zero."""
        for (operand, letters), (other, others) in (self.sides, self.sides[::-1]):
            wanted = _project(live, self.out, letters, torch.Tensor.any)
            zero = _project(known[other] == 0, others, letters, torch.Tensor.all)
            mark(operand, wanted & ~zero)


def _same(values: Tensor, axis: int) -> Tensor:
    """The value all along an axis, NaN where there is no single one."""
    first = values.select(axis, 0)
    return torch.where((values == first.unsqueeze(axis)).all(axis), first, float("nan"))


def _project(
    flags: Tensor, letters: str, target: str, over: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """What lies on some axes, seen along those of ``target``; ``over`` reduces the others."""
    for axis in reversed(range(len(letters))):
        if letters[axis] not in target:
            flags = over(flags, axis)
    left = [c for c in letters if c in target]
    flags = flags.permute([left.index(c) for c in target if c in left])
    for axis, letter in enumerate(target):
        if letter not in left:
            flags = flags.unsqueeze(axis)
    return flags


@dataclass(frozen=True)
class Attention(Rule):
    """softmax(query·keyᵀ)·value for each head."""

    query: Node
    key: Node
    value_of: Node
    scale: float

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """The weights of a mean sum to one: what is the same at all places stays what it is."""
        value = known[self.value_of]
        if value.shape[-2] == 1:
            return value
        first = value.narrow(-2, 0, 1)
        return torch.where((value == first).all(-2, keepdim=True), first, float("nan"))

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """A head that is read is read whole."""
        mark(self.value_of, live.any(-2, keepdim=True))
        heads = live.flatten(-2).any(-1)[..., None, None]
        mark(self.query, heads)
        mark(self.key, heads)

    def changes(self, kept: Callable[[Node, int], int]) -> dict[str, object]:
        """The scale, which is otherwise taken from the depth."""
        return {"scale": self.scale}


def visit_product(builder: Builder, node: Node) -> None:
    """matmul, mm, bmm, baddbmm."""
    first, second = [n for n in node.args if isinstance(n, Node)][-2:]
    shapes = [builder.captured.shape(n) for n in (first, second)]
    if ops.op_name(node) == "baddbmm" and bool(builder.layout(node.all_input_nodes[0]).any()):
        builder.refuse(node, node.all_input_nodes)
        return
    if min(map(len, shapes)) < 2:
        builder.refuse(node, [first, second], f"matmul at {node.name} of a vector")
        return
    rank = len(builder.captured.shape(node))
    batch = string.ascii_lowercase[: rank - 2]
    letters = [batch[rank - len(shape) :] for shape in shapes]
    sides = ((first, letters[0] + "yz"), (second, letters[1] + "zx"))
    _visit(builder, node, sides, batch + "yx")


def visit_einsum(builder: Builder, node: Node) -> None:
    """An einsum of two operands, each letter once in each."""
    equation, listed = node.args[0], node.args[1]
    assert isinstance(equation, str)
    assert isinstance(listed, (list, tuple))
    operands = [n for n in listed if isinstance(n, Node)]
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2 or "." in equation or any(len(set(t)) < len(t) for t in terms):
        builder.refuse(node, operands, f"einsum at {node.name}: '{equation}'")
        return
    _visit(builder, node, ((operands[0], terms[0]), (operands[1], terms[1])), out)


def _visit(builder: Builder, node: Node, sides: tuple[Side, Side], out: str) -> None:
    if _visit_with_weight(builder, node, sides, out):
        return
    one, two = _own_letters(builder, sides)
    shared = set(one[1]) & set(two[1])
    for tied in (shared & set(out), shared - set(out)):
        met = sorted({c for side in (one, two) for c in _channels(builder, side) & tied})
        if met:
            _tie(builder, (one, two), met)
    free = [_channels(builder, side) - shared for side in (one, two)]
    if all(free):
        why = f"outer product by {ops.op_name(node)} at {node.name}"
        builder.refuse(node, [one[0], two[0]], why)
        return
    layouts = [_seen_in(builder, side, out) for side in (one, two)]
    lead = max(layouts, key=lambda seen: (len(varying(seen)), bool(seen.any()), seen.numel()))
    summed = shared - set(out)
    averaged = next((b for a, b in ((one, two), (two, one)) if _is_mean(a, summed)), None)
    builder.rule(node, Contraction((one, two), out, averaged), lead)


def _is_mean(side: Side, summed: set[str]) -> bool:
    """Whether an operand is a softmax along the sum, so that its entries there add up to one."""
    node, letters = side
    while ops.op_name(node) in ("dropout", "clone"):
        node = node.all_input_nodes[0]
    if ops.op_name(node) not in ("softmax", "_softmax"):
        return False
    return summed == {letters[int(ops.arguments(node)["dim"]) % len(letters)]}


def _own_letters(builder: Builder, sides: tuple[Side, Side]) -> tuple[Side, Side]:
    """Give an axis of size 1 that is broadcast against the other operand's a letter of its own."""
    sizes = [dict(zip(w, builder.captured.shape(n), strict=True)) for n, w in sides]
    found = []
    for (operand, letters), mine, theirs, spare in zip(
        sides, sizes, sizes[::-1], ("ABCDEFGH", "PQRSTUVW"), strict=True
    ):
        unused = iter(spare)
        spelled = "".join(
            next(unused) if mine[c] == 1 and theirs.get(c, 1) > 1 else c for c in letters
        )
        found.append((operand, spelled))
    return found[0], found[1]


def _channels(builder: Builder, side: Side) -> set[str]:
    """Letters of the axes along which an operand's channels lie."""
    return {side[1][axis] for axis in builder.axes(side[0])}


def _tie(builder: Builder, sides: tuple[Side, Side], met: list[str]) -> None:
    """Join the operands' channels at the same places along shared axes."""
    seen = []
    for operand, letters in sides:
        layout = builder.coarsen(builder.layout(operand), [letters.index(c) for c in met])
        seen.append(_project(layout, letters, "".join(met), _first))
    shape = broadcast(*[tuple(layout.shape) for layout in seen])
    builder.join(seen[0].expand(shape), seen[1].expand(shape))


def _seen_in(builder: Builder, side: Side, out: str) -> Tensor:
    """An operand's channels as the result has them: those that are summed over it has not."""
    summed = _channels(builder, side) - set(out)
    layout = builder.layout(side[0])
    if summed:
        layout = torch.zeros([1] * layout.dim(), dtype=torch.long)
    return _project(layout, side[1], out, _first)


def _first(layout: Tensor, axis: int) -> Tensor:
    return layout.select(axis, 0)


def _visit_with_weight(builder: Builder, node: Node, sides: tuple[Side, Side], out: str) -> bool:
    """A parameter of two axes, one of which takes the other's place in the result, is a kernel."""
    for (weight, names), (source, letters) in (sides, sides[::-1]):
        if weight.op != "get_attr" or len(names) != 2 or source.op == "get_attr":
            continue
        for summed, made in ((names[0], names[1]), (names[1], names[0])):
            if summed in letters and letters.replace(summed, made) == out:
                visit_weight_product(
                    builder, node, source, weight, letters.index(summed),
                    transposed=names[0] == summed,
                )  # fmt: skip
                return True
    return False


def visit_attention(builder: Builder, node: Node) -> None:
    """scaled_dot_product_attention: its heads go whole."""
    named = ops.arguments(node)
    query, key, value = named["query"], named["key"], named["value"]
    mask = named.get("attn_mask")
    rank = len(builder.captured.shape(query))
    heads = {builder.captured.shape(n)[:-2] for n in (query, key, value)}
    if len(heads) > 1 or named.get("enable_gqa"):
        builder.refuse(node, [query, key, value], f"attention at {node.name} shares its keys")
        return
    depth = builder.captured.shape(query)[-1]
    scale = depth**-0.5 if named.get("scale") is None else float(named["scale"])
    batch = list(range(rank - 2))
    met = [i for i in batch if any(i in builder.axes(n) for n in (query, key, value))]
    if met:
        layouts = [builder.coarsen(builder.layout(n), met) for n in (query, key, value)]
        shape = broadcast(*[tuple(layout.shape) for layout in layouts])
        for layout in layouts[1:]:
            builder.join(layouts[0].expand(shape), layout.expand(shape))
    for operand in (query, key):
        if set(builder.axes(operand)) - set(met):
            _tie_depth(builder, query, key)
            break
    why = f"attention at {node.name} runs over channels"
    seen = builder.outside(value, [rank - 2], why)
    if seen is None:
        builder.refuse(node, [query, key, value], why)
        return
    if isinstance(mask, Node) and met:
        _tie_mask(builder, mask, seen, met)
    builder.rule(node, Attention(query, key, value, scale), seen)


def _tie_mask(builder: Builder, mask: Node, layout: Tensor, met: list[int]) -> None:
    """A mask that differs by head is cut with the heads."""
    lead = [1] * (layout.dim() - len(builder.captured.shape(mask)))
    real = lead + list(builder.captured.shape(mask))
    if any(real[i] > 1 for i in met):
        theirs = builder.layout(mask)
        theirs = builder.coarsen(theirs.reshape(lead + list(theirs.shape)), met)
        mine = builder.coarsen(layout, met)
        shape = broadcast(tuple(mine.shape), tuple(theirs.shape))
        builder.join(mine.expand(shape), theirs.expand(shape))


def _tie_depth(builder: Builder, query: Node, key: Node) -> None:
    """Without heads the entries of queries and keys meet one by one."""
    letters = "abcdefgh"[: len(builder.captured.shape(query)) - 2]
    sides = ((query, letters + "yz"), (key, letters + "xz"))
    met = sorted({c for side in sides for c in _channels(builder, side) & {"z"}})
    if met:
        _tie(builder, sides, met)

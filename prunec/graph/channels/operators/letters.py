"""Joining of channels between operands whose axes are named by letters, as in einsum."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.layouts import NAN, broadcast

Side = tuple[Node, str]
"""An operand and one letter per axis."""


def project(
    flags: Tensor, letters: str, target: str, over: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Return ``flags`` with the axes of ``target``; ``over`` reduces the other axes."""
    for axis in reversed(range(len(letters))):
        if letters[axis] not in target:
            flags = over(flags, axis)
    left = [c for c in letters if c in target]
    flags = flags.permute([left.index(c) for c in target if c in left])
    for axis, letter in enumerate(target):
        if letter not in left:
            flags = flags.unsqueeze(axis)
    return flags


def same_value(values: Tensor, axis: int) -> Tensor:
    """Return the value that is the same along an axis, NaN where values differ; drop the axis."""
    first = values.select(axis, 0)
    return torch.where((values == first.unsqueeze(axis)).all(axis), first, NAN)


def own_letters(sides: tuple[Side, Side]) -> tuple[Side, Side]:
    """Rename letters of size-1 axes that are broadcast against the other operand."""
    sizes = [dict(zip(w, n.shape, strict=True)) for n, w in sides]
    spelled = []
    for (operand, letters), mine, theirs, spare in zip(
        sides, sizes, sizes[::-1], ("ABCDEFGH", "PQRSTUVW"), strict=True
    ):
        unused = iter(spare)
        own = "".join(next(unused) if mine[c] == 1 and theirs.get(c, 1) > 1 else c for c in letters)
        spelled.append((operand, own))
    return spelled[0], spelled[1]


def channels(builder: Builder, side: Side) -> set[str]:
    """Return the letters of the axes along which an operand's channels lie."""
    return {side[1][axis] for axis in builder.axes(side[0])}


def tie(builder: Builder, sides: tuple[Side, Side], met: list[str]) -> None:
    """Join the operands' channels at equal indices along shared axes."""
    seen = []
    for operand, letters in sides:
        layout = builder.coarsen(builder.layout(operand), [letters.index(c) for c in met])
        seen.append(project(layout, letters, "".join(met), _first))
    shape = broadcast(*[tuple(layout.shape) for layout in seen])
    builder.join(seen[0].expand(shape), seen[1].expand(shape))


def seen_in(builder: Builder, side: Side, out: str) -> Tensor:
    """Return an operand's layout with the axes of the result; summed channels are left out."""
    summed = channels(builder, side) - set(out)
    layout = builder.layout(side[0])
    if summed:
        layout = torch.zeros([1] * layout.dim(), dtype=torch.long)
    return project(layout, side[1], out, _first)


def _first(layout: Tensor, axis: int) -> Tensor:
    return layout.select(axis, 0)

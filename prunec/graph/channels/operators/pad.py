"""Padding: around positions it keeps channels; along channels it adds constant ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.operators.identity import Identity
from prunec.graph.channels.operators.move import Move
from prunec.graph.channels.weights import Weights

_REPEATING = frozenset(
    (
        "reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d"
    ).split()
)


@dataclass(frozen=True, eq=False)
class Pad(Family):
    """Padding of positions."""

    names = ("pad", "constant_pad_nd", *_REPEATING)

    node: Node
    source: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the channels; create constant ones where padding runs along the channel axis."""
        source = node.operands[0]
        layout, rank = builder.layout(source), len(source.shape)
        widths = _widths(node)
        if not all(isinstance(width, int) for width in widths):
            builder.refuse(
                node, [source], f"{node.operator} at {node.name}: its widths are computed"
            )
            return
        touched = [rank - 1 - i // 2 for i in range(0, len(widths), 2) if any(widths[i : i + 2])]
        if not touched:
            builder.bind(Identity(node), layout)
        elif all(layout.shape[axis] == 1 < source.shape[axis] for axis in touched):
            builder.bind(cls(node, source), layout)
        elif _repeats(node) or len(touched) != 1 or touched[0] in source.dynamic:
            builder.refuse(node, [source])
        else:
            _pad_channels(builder, node, source, touched[0])

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return constants equal to the fill value; all constants for repeats and negative
        widths.
        """
        value = known[self.source]
        if self._makes_nothing:
            return value
        return torch.where(value == _fill(self.node), value, NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the constant inside and the fill value along the border, or a wider border."""
        source, fill = borders.get(self.source), _fill(self.node)
        if self._makes_nothing:
            return None if source is None else source.moved(self._pattern)
        if source is None:
            value = known[self.source]
            border = torch.full_like(value, fill)
            return Bordered((self._pattern,), value, border, widths=self._border)
        if source.sharp:
            same = source.border == fill
            inside = torch.where(same, source.inside, NAN)
            wider = _added(source.widths, self._border)
            return replace(source.moved(self._pattern, inside=inside), widths=wider)
        return source.moved(self._pattern, whole=False) if fill == 0 else None

    @property
    def _pattern(self) -> tuple[object, ...]:
        """Mode, widths and sizes: calls with equal patterns pad the same positions."""
        mode = self.node.arguments.get("mode", self.node.operator)
        return (mode, tuple(_widths(self.node)), self.source.shape[2:])

    @property
    def _makes_nothing(self) -> bool:
        """Whether every returned value is a value of the operand."""
        return _repeats(self.node) or max(_widths(self.node)) <= 0

    @property
    def _border(self) -> dict[int, tuple[int, int]] | None:
        """Axis → (before, after) widths; None if any width is negative."""
        widths, rank = _widths(self.node), len(self.node.shape)
        if min(widths) < 0:
            return None
        pairs = zip(widths[::2], widths[1::2], strict=True)
        return {rank - 1 - i: pair for i, pair in enumerate(pairs)}

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand."""
        mark(self.source, live)


class PaddedChannels(Move):
    """Constant channels before and after those of a tensor."""

    names = ()

    def emit(self, writer: Writer) -> Written:
        """Write the call with the number of kept constant channels before and after."""
        axis = writer.channel_axis(self.node)
        if axis is None or all(map(writer.is_whole, (self.node, *self.moved))):
            return writer.copy(self.node)
        kept = writer.kept(self.node, axis)
        real = torch.nonzero(self.index.reshape(-1) >= 0).flatten()
        widths = list(self.node.arguments["pad"])
        place = 2 * (len(self.node.shape) - 1 - axis)
        before, after = int((kept < real[0]).sum()), int((kept > real[-1]).sum())
        widths[place : place + 2] = [before, after]
        return writer.call(self.node, pad=widths)


def _pad_channels(builder: Builder, node: Node, source: Node, axis: int) -> None:
    layout, real = builder.layout(source), source.shape
    index = torch.arange(layout.numel()).reshape(layout.shape)
    index = index.expand([real[i] if i == axis else n for i, n in enumerate(layout.shape)])
    # −1 marks the positions that padding creates.
    moved = torch.constant_pad_nd(index, _widths(node), -1)
    made = moved < 0
    atoms = torch.zeros_like(moved)
    atoms[~made] = layout.reshape(-1)[moved[~made]]
    atoms[made] = builder.unions.fresh(int(made.sum()))
    builder.bind(PaddedChannels(node, node, (source,), moved, _fill(node)), atoms)


def _added(
    first: Mapping[int, tuple[int, int]] | None, second: Mapping[int, tuple[int, int]] | None
) -> dict[int, tuple[int, int]] | None:
    """Return the sum of two borders, one around the other."""
    if first is None or second is None:
        return None
    sums = {}
    for axis in {*first, *second}:
        (a, b), (c, d) = first.get(axis, (0, 0)), second.get(axis, (0, 0))
        sums[axis] = (a + c, b + d)
    return sums


def _widths(node: Node) -> list[int]:
    named = node.arguments
    return list(named["pad"] if "pad" in named else named["padding"])


def _fill(node: Node) -> float:
    return float(node.arguments.get("value") or 0.0)


def _repeats(node: Node) -> bool:
    """Return whether the padding repeats values of the operand instead of a number."""
    return node.arguments.get("mode") not in (None, "constant") or node.operator in _REPEATING

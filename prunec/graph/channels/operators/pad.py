"""Padding: of positions it leaves atoms alone, of channels it makes constant ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.operators.identity import Identity
from prunec.graph.channels.operators.move import Move
from prunec.graph.channels.weights import Weights

_REPEATING = ("reflection_pad2d", "replication_pad2d")


@dataclass(frozen=True, eq=False)
class Pad(Family):
    """A border of positions around each channel."""

    names = ("pad", "constant_pad_nd", *_REPEATING)

    node: Node
    source: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """The same channels; new ones where the padding runs along the channel axis."""
        source = node.operands[0]
        layout, rank = builder.layout(source), len(source.shape)
        widths = _widths(node)
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
        """What the border repeats, or is filled with."""
        value = known[self.source]
        return value if _repeats(self.node) else torch.where(value == _fill(self.node), value, NAN)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Its operand."""
        mark(self.source, live)


class PaddedChannels(Move):
    """Channels before and after those of a tensor, each a constant."""

    names = ()

    def emit(self, writer: Writer) -> Written:
        """As many before and after as stay of those that padding made."""
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
    moved = torch.constant_pad_nd(index, _widths(node), -1)
    made = moved < 0
    atoms = torch.zeros_like(moved)
    atoms[~made] = layout.reshape(-1)[moved[~made]]
    atoms[made] = builder.unions.fresh(int(made.sum()))
    builder.bind(PaddedChannels(node, node, (source,), moved, _fill(node)), atoms)


def _widths(node: Node) -> list[int]:
    named = node.arguments
    return list(named["pad"] if "pad" in named else named["padding"])


def _fill(node: Node) -> float:
    return float(node.arguments.get("value") or 0.0)


def _repeats(node: Node) -> bool:
    """Whether a padding repeats values that are there, instead of putting a number."""
    return node.arguments.get("mode") not in (None, "constant") or node.operator in _REPEATING

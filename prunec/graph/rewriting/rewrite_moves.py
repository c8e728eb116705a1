"""Operators that move channels, written anew: by position, where only some channels stay.

Views get their literals recomputed, selections along channels become a slice or an index, and
concatenations lose what has become empty. A run of moves that permutes channels becomes one
``index_select``.
"""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.operators.moves import picked_axes
from prunec.graph.rewriting.emission import Emission

_SIZED = frozenset(("view", "reshape", "_unsafe_view", "expand", "unflatten"))
_ALONG = ops.PICKS | {"channel_shuffle", "native_channel_shuffle"}


class MovingEmission(Emission):
    """Emits moves; what they read is emitted already."""

    def move(self, node: Node) -> Node:
        """A call that moves values, as it is where all its channels stay."""
        name = ops.op_name(node)
        axis = self.channel_axis(node)
        whole = all(self.is_whole(n) for n in (node, *self.structure.links[node].operands))
        if whole and not (name == "getitem" and self.selects_channels(node)):
            return self.copy(node)
        if name in ("cat", "concat", "stack"):
            return self.concatenation(node)
        if name in ops.PADS and axis is not None:
            return self.channel_pad(node, axis)
        if self.selects_channels(node):
            return self.selection(node)
        if name in _SIZED and axis is not None:
            return self.resize(node, axis)
        return self.copy(node)

    def concatenation(self, node: Node) -> Node:
        """What is left of the parts."""
        listed = node.args[0]
        assert isinstance(listed, (list, tuple))
        parts = [self.new(n) for n in listed if isinstance(n, Node) and self.stays(n)]
        if len(parts) == 1 and ops.op_name(node) != "stack":
            return parts[0]
        return self.call(node, tensors=parts)

    def channel_pad(self, node: Node, axis: int) -> Node:
        """As many channels before and after as stay of those that padding made."""
        link = self.structure.links[node]
        kept = self.kept(node, axis)
        real = torch.nonzero(link.index >= 0).flatten()
        before, after = int((kept < real[0]).sum()), int((kept > real[-1]).sum())
        widths = list(ops.arguments(node)["pad"])
        place = 2 * (len(self.captured.shape(node)) - 1 - axis)
        widths[place : place + 2] = [before, after]
        return self.call(node, pad=widths)

    def selects_channels(self, node: Node) -> bool:
        """Whether a move picks positions along its operand's channel axis, and does only that."""
        link = self.structure.links.get(node)
        call = node.args[0] if ops.op_name(node) == "getitem" else node
        if link is None or not isinstance(call, Node) or ops.op_name(call) not in _ALONG:
            return False
        source = link.operands[0]
        axis = self.channel_axis(source)
        return axis is not None and picked_axes(self.captured, call, source) == [axis]

    def selection(self, node: Node) -> Node:
        """The positions of what stays, among what stays of the operand."""
        source = self.structure.links[node].operands[0]
        axis = self.channel_axis(source)
        assert axis is not None
        layout = self.structure.layouts[node]
        kept = self.keep[self.structure.class_of(layout.reshape(-1))]
        origin = self.structure.links[node].index[kept]
        positions = torch.searchsorted(self.kept(source, axis), origin)
        if layout.dim() < len(self.captured.shape(source)):
            return self.graph.call_function(
                torch.ops.aten.select.int, (self.new(source), axis, int(positions[0]))
            )
        return self.pick(node, source, axis, positions)

    def shuffle(self, node: Node) -> Node:
        """A run of moves that permutes channels: one look-up behind its entry."""
        shuffle = self.structure.shuffles[node]
        kept = self.kept(node, shuffle.axis)
        positions = torch.searchsorted(self.kept(shuffle.entry, shuffle.axis), shuffle.index[kept])
        return self.pick(node, shuffle.entry, shuffle.axis, positions)

    def pick(self, node: Node, source: Node, axis: int, positions: Tensor) -> Node:
        """Positions along an axis: nothing to do, a slice, or an index."""
        value = self.new(source)
        count = len(self.kept(source, axis))
        start, length = int(positions[0]), len(positions)
        if torch.equal(positions, torch.arange(start, start + length)):
            if length == count:
                return value
            return self.graph.call_function(
                torch.ops.aten.slice.Tensor, (value, axis, start, start + length)
            )
        index = self.buffer(f"index_{node.name}", positions)
        return self.graph.call_function(torch.ops.aten.index_select.default, (value, axis, index))

    def resize(self, node: Node, axis: int) -> Node:
        """A view whose literal for the channel axis is the number that stays."""
        key = "sizes" if ops.op_name(node) == "unflatten" else "size"
        named = ops.arguments(node)
        key = key if key in named else "shape"
        sizes = [self.new(n) if isinstance(n, Node) else n for n in named[key]]
        offset = 0
        if key == "sizes":
            offset = int(named["dim"]) % len(self.captured.shape(node.all_input_nodes[0]))
        place = axis - offset
        if 0 <= place < len(sizes) and sizes[place] != -1:
            sizes[place] = self.cut_size(sizes[place], node, axis)
        return self.call(node, **{key: sizes})

    def cut_size(self, size: int | Node, node: Node, axis: int) -> int | Node:
        """The size of a channel axis: a number, or its part of a product with the batch."""
        kept, real = len(self.kept(node, axis)), self.captured.shape(node)[axis]
        if not isinstance(size, Node) or kept == real:
            return size if isinstance(size, Node) else kept
        common = math.gcd(kept, real)
        product = self.graph.call_function(operator.mul, (size, kept // common))
        return self.graph.call_function(operator.floordiv, (product, real // common))

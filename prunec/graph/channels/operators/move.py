"""Operators that move values; run on integer indices, they report where each value goes.

Values are moved, repeated or dropped, never changed, so views, concatenations, splits and shuffles
need no rules of their own. In the written network, the literals of views are recomputed, selections
along channels become slices or indices, and concatenations drop empty parts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import shrink
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.operators.joined import bind_joined, joins_positions
from prunec.graph.channels.operators.positions import (
    PICKS,
    SIZED,
    picked_axes,
    run_move,
    widen,
)  # fmt: skip
from prunec.graph.channels.weights import Weights

_ERRORS = (RuntimeError, IndexError, TypeError)  # raised by torch where integers cannot be moved
_CONCATENATIONS = ("cat", "concat")
_AXES_ONLY = frozenset("permute transpose t movedim swapaxes unsqueeze squeeze expand".split())
_ALONG = PICKS | {"channel_shuffle", "native_channel_shuffle"}


@dataclass(frozen=True, eq=False)
class Move(Family):
    """A moved tensor: the call itself, or one item of its result.

    Attributes:
        node: the moved tensor.
        call: the call of the operator.
        moved: operands whose values are moved.
        index: source of each position of the layout, in the layout's shape: an offset into the
            flattened, concatenated layouts of ``moved``; −1 for a padded position.
        fill: value of padded positions.
    """

    names: ClassVar[Collection[str]] = frozenset(
        (
            "view reshape _unsafe_view flatten unflatten permute transpose t movedim swapaxes "
            "squeeze unsqueeze expand cat concat stack chunk split split_with_sizes tensor_split "
            "slice select narrow index_select index unbind roll flip repeat repeat_interleave tile "
            "channel_shuffle numpy_T mT native_channel_shuffle adjoint rot90 diagonal unfold"
        ).split()
    )
    several = True

    node: Node
    call: Node
    moved: tuple[Node, ...]
    index: Tensor
    fill: float = 0.0

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the atoms of the operands; several results are bound item by item."""
        if not node.is_tensor:
            builder.structure.operators[node] = Parts(node)
        elif any(n.is_tensor for n in node.operands):
            visit_move(builder, node, node)
        else:
            builder.refuse(node, ())

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the constants, moved."""
        flat = torch.cat([known[x].reshape(-1) for x in self.moved])
        return torch.where(self.index < 0, self.fill, flat[self.index.clamp(min=0)])

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return uneven constants of a move of channels only, or of positions only."""
        if not any(source in borders for source in self.moved):
            return None
        moves_positions = self._moves_positions(known)
        if moves_positions is None:
            return None
        made = self.at_each_position(self.moved, known, borders, weights, linear=True)
        return made.moved(self.node) if made is not None and moves_positions else made

    def _moves_positions(self, known: Known) -> bool | None:
        """Return whether only positions move, alike for all channels; None if both move."""
        name = self.call.operator
        if name in _CONCATENATIONS or name in _AXES_ONLY:
            return name in _AXES_ONLY
        if name not in PICKS or name == "index":
            return None
        source = self.moved[0]
        channels = {known[source].shape[axis] > 1 for axis in picked_axes(self.call, source)}
        return None if len(channels) > 1 else channels == {False}

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the source positions of live positions."""
        read = self.index[live]
        start = 0
        for operand in self.moved:
            shape = known[operand].shape
            own = read[(read >= start) & (read < start + shape.numel())] - start
            marked = torch.zeros(shape.numel(), dtype=torch.bool)
            marked[own] = True
            mark(operand, marked.reshape(shape))
            start += shape.numel()

    @property
    def required(self) -> tuple[Node, ...]:
        """The moved operand; parts of a concatenation may be empty."""
        return self.moved if len(self.moved) == 1 else ()

    def passed(self) -> Node | None:
        """Return the moved operand if there is exactly one and nothing is padded."""
        return None if len(self.moved) != 1 or bool((self.index < 0).any()) else self.moved[0]

    def move(self, values: Tensor) -> Tensor:
        """Return the move of another tensor of the same shape."""
        return run_move(self.node, self.call, [values.contiguous()])

    def sources(self, writer: Writer) -> Sequence[Node]:
        """Return the kept parts; an item picked along channels is picked from the operand."""
        if self.node is not self.call and self._selects_channels(writer):
            return self.moved
        if len(self.moved) == 1:
            return self.node.operands
        return [n for n in self.node.operands if n not in self.moved or writer.stays(n)]

    def emit(self, writer: Writer) -> Written:
        """Write the call unchanged if all channels are kept, else a selection of positions."""
        selects = self._selects_channels(writer)
        item = self.node is not self.call
        if all(map(writer.is_whole, (self.node, *self.moved))) and not (item and selects):
            return writer.copy(self.node)
        name = self.node.operator
        axis = writer.channel_axis(self.node)
        if name in (*_CONCATENATIONS, "stack"):
            return self._concatenation(writer)
        if selects:
            return self._selection(writer)
        if name in SIZED and axis is not None:
            return writer.resize(self.node, axis)
        return writer.copy(self.node)

    def _concatenation(self, writer: Writer) -> Written:
        parts = [writer.new(n) for n in self.node.first if writer.stays(n)]
        if len(parts) == 1 and self.node.operator != "stack":
            return parts[0]
        return writer.call(self.node, tensors=parts)

    def _selects_channels(self, writer: Writer) -> bool:
        """Return whether the move picks positions along the channel axis, and only there."""
        if self.call.operator not in _ALONG:
            return False
        source = self.moved[0]
        axis = writer.channel_axis(source)
        return axis is not None and picked_axes(self.call, source) == [axis]

    def _selection(self, writer: Writer) -> Written:
        """Write the kept positions, renumbered among the kept positions of the operand."""
        source = self.moved[0]
        axis = writer.channel_axis(source)
        assert axis is not None
        layout, index = writer.atoms(self.node), self.index
        for other in range(layout.dim()):  # channels may have lain along these before a join
            if other != writer.channel_axis(self.node):
                layout, index = layout.narrow(other, 0, 1), index.narrow(other, 0, 1)
        origin = index.reshape(-1)[writer.kept_atoms(layout.reshape(-1))]
        origin = torch.unravel_index(origin, writer.atoms(source).shape)[axis]
        positions = torch.searchsorted(writer.kept(source, axis), origin.contiguous())
        if layout.dim() < len(source.shape):
            return writer.pick_one(source, axis, int(positions[0]))
        return writer.pick(self.node, source, axis, positions)


@dataclass(frozen=True, eq=False)
class Parts(Family):
    """A call that returns several moved tensors; each item is a move of its own."""

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Bind the call; its results are bound item by item."""
        builder.structure.operators[node] = cls(node)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark nothing: the items mark the operand."""

    def visit_item(self, builder: Builder, node: Node) -> None:
        """Bind one returned tensor as a move."""
        if node.is_tensor:
            visit_move(builder, node, self.node)
        else:
            builder.refuse(node, ())


def visit_move(builder: Builder, node: Node, call: Node) -> None:
    """Carry atoms through a move; ``node`` is the call or one item of its result."""
    first = call.first
    listed = first if isinstance(first, (list, tuple)) else [first]
    moved = tuple(n for n in listed if isinstance(n, Node))
    if call.operator in _CONCATENATIONS and joins_positions(builder, call, moved):
        bind_joined(builder, node, moved)
        return
    why = _refusal(builder, node, call, moved)
    if why is not None:
        builder.refuse(node, moved, why)
        return
    ids, start = [], 0
    for operand in moved:
        layout = builder.layout(operand)
        index = torch.arange(start, start + layout.numel()).reshape(layout.shape)
        ids.append(widen(index, operand, call))
        start += layout.numel()
    try:
        values = run_move(node, call, ids)
    except _ERRORS as error:
        builder.refuse(node, moved, f"{call.operator} at {node.name}: {error}")
        return
    # An empty slice has no atoms to carry.
    if values.numel() == 0:
        builder.refuse(node, moved, f"{call.operator} at {node.name} leaves nothing")
        return
    # Axes along which the source does not differ stay of size 1, as in all layouts.
    index = shrink(values)
    atoms = torch.cat([builder.layout(operand).reshape(-1) for operand in moved])
    builder.bind(Move(node, call, moved, index), atoms[index])


def _refusal(builder: Builder, node: Node, call: Node, moved: tuple[Node, ...]) -> str | None:
    """Return why atoms cannot be carried through a call; an empty text names just the operator."""
    name = call.operator
    tensors = [n for n in call.operands if n.is_tensor]
    if any(n not in moved and n.kind != "stored" for n in tensors):
        return f"{name} at {node.name} picks positions by computed indices"
    if name == "repeat_interleave" and len(tensors) > len(moved):
        return ""
    if name in PICKS and any(set(builder.axes(n)) & n.dynamic for n in moved):
        return f"{name} at {node.name} picks channels of single samples"
    return None

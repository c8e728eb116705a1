"""Operators that move values: run on tensors of integers they say what goes where.

Positions are moved, repeated or left out, never changed, so that views, concatenations, splits and
shuffles need no rule of their own. Written again, views get their literals recomputed, selections
along channels become a slice or an index, and concatenations lose what has become empty.
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

_ERRORS = (RuntimeError, IndexError, TypeError)  # what torch raises where integers cannot be moved
_CONCATENATIONS = ("cat", "concat")
_AXES_ONLY = frozenset("permute transpose t movedim swapaxes unsqueeze squeeze expand".split())
_ALONG = PICKS | {"channel_shuffle", "native_channel_shuffle"}


@dataclass(frozen=True, eq=False)
class Move(Family):
    """A moved tensor: the call itself, or an item of what the call returns.

    Attributes:
        node: the moved tensor.
        call: the call of the operator.
        moved: the tensors whose positions it moves.
        index: where each position of its layout comes from, in the layout's shape, counted through
            the flattened layouts of ``moved``, one after the other; −1 stands for a position that
            padding made.
        fill: the value of such a position.
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
        """Carry the atoms of its operands; each of several results is carried by itself."""
        if not node.is_tensor:
            builder.found.operators[node] = Parts(node)
        elif any(n.is_tensor for n in node.operands):
            visit_move(builder, node, node)
        else:
            builder.refuse(node, ())

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Each position's value goes with it."""
        flat = torch.cat([known[x].reshape(-1) for x in self.moved])
        return torch.where(self.index < 0, self.fill, flat[self.index.clamp(min=0)])

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Where it moves channels only, or positions only."""
        if not any(source in borders for source in self.moved):
            return None
        moves_positions = self._moves_positions(known)
        if moves_positions is None:
            return None
        found = self.at_each_position(self.moved, known, borders, weights, linear=True)
        return found.moved(self.node) if found is not None and moves_positions else found

    def _moves_positions(self, known: Known) -> bool | None:
        """Whether it moves positions of all channels alike; None where it mixes the two."""
        name = self.call.operator
        if name in _CONCATENATIONS or name in _AXES_ONLY:
            return name in _AXES_ONLY
        if name not in PICKS or name == "index":
            return None
        source = self.moved[0]
        channels = {known[source].shape[axis] > 1 for axis in picked_axes(self.call, source)}
        return None if len(channels) > 1 else channels == {False}

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """The positions that live ones come from."""
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
        """What it moves; of several parts any may be empty."""
        return self.moved if len(self.moved) == 1 else ()

    def passed(self) -> Node | None:
        """The one tensor whose positions it moves."""
        return None if len(self.moved) != 1 or bool((self.index < 0).any()) else self.moved[0]

    def move(self, values: Tensor) -> Tensor:
        """What it makes of another tensor of the same shape."""
        return run_move(self.node, self.call, [values.contiguous()])

    def sources(self, writer: Writer) -> Sequence[Node]:
        """Of several parts those that stay; what is picked along channels is picked at its root."""
        if self.node is not self.call and self._selects_channels(writer):
            return self.moved
        if len(self.moved) == 1:
            return self.node.operands
        return [n for n in self.node.operands if n not in self.moved or writer.stays(n)]

    def emit(self, writer: Writer) -> Written:
        """As it is where all its channels stay; by position where only some do."""
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
        """Whether it picks positions along its operand's channel axis, and does only that."""
        if self.call.operator not in _ALONG:
            return False
        source = self.moved[0]
        axis = writer.channel_axis(source)
        return axis is not None and picked_axes(self.call, source) == [axis]

    def _selection(self, writer: Writer) -> Written:
        """The positions of what stays, among what stays of the operand."""
        source = self.moved[0]
        axis = writer.channel_axis(source)
        assert axis is not None
        layout, index = writer.atoms(self.node), self.index
        for other in range(layout.dim()):  # along which channels may have lain before they joined
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
    """A call that returns several moved tensors: each of them is a move by itself."""

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Bind the call; what it returns is looked at item by item."""
        builder.found.operators[node] = cls(node)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Nothing: its items read what it is given."""

    def visit_item(self, builder: Builder, node: Node) -> None:
        """A moved tensor."""
        if node.is_tensor:
            visit_move(builder, node, self.node)
        else:
            builder.refuse(node, ())


def visit_move(builder: Builder, node: Node, call: Node) -> None:
    """Carry atoms through a move; ``node`` is the call or an item of what it returns."""
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
    if values.numel() == 0:
        builder.refuse(node, moved, f"{call.operator} at {node.name} leaves nothing")
        return
    index = shrink(values)
    atoms = torch.cat([builder.layout(operand).reshape(-1) for operand in moved])
    builder.bind(Move(node, call, moved, index), atoms[index])


def _refusal(builder: Builder, node: Node, call: Node, moved: tuple[Node, ...]) -> str | None:
    """Why atoms cannot be carried through a call; empty for no reason but the operator."""
    name = call.operator
    tensors = [n for n in call.operands if n.is_tensor]
    if any(n not in moved and n.kind != "stored" for n in tensors):
        return f"{name} at {node.name} picks positions by computed numbers"
    if name == "repeat_interleave" and len(tensors) > len(moved):
        return ""
    if name in PICKS and any(set(builder.axes(n)) & n.dynamic for n in moved):
        return f"{name} at {node.name} picks channels of single samples"
    return None

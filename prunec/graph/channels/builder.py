"""State of the running analysis: layouts, joins and pins, and the operations on them.

A tensor's *layout* holds its atoms. An axis along which they do not differ has size 1.
Atom 0 stands for everything that is not a channel: images, sequence positions, results of operators
that are not understood.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from prunec.graph.capture.captured import Captured
from prunec.graph.capture.node import Node
from prunec.graph.channels.layouts import varying
from prunec.graph.channels.operator import Operator, Unknown
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.unions import Unions

# Parameters of more entries get no atoms: until its axis is settled, a table holds one per entry.
LARGEST_TABLE = 1 << 18


class Builder:
    """Running analysis; its structure is final only after the last node.

    Attributes:
        structure: the findings so far.
        unions: sets of joined atoms.
        uses: weight → (transposed, groups) of its first kernel.
        tables: parameter of several axes → atoms of its entries, until :meth:`settle_tables`.
        ragged: states of recurrent stacks whose rows keep channels of their own.
    """

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.structure = Structure(captured)
        self.unions = Unions()
        self.structure.pins[0] = "not a channel"
        self.uses: dict[str, tuple[bool, int]] = {}
        self.tables: dict[str, Tensor] = {}
        self.ragged: set[Node] = set()

    # -- atoms --------------------------------------------------------------------------------

    def join(self, left: Tensor, right: Tensor, reason: str = "") -> None:
        """Join atoms position by position; an atom that meets atom 0 is pinned."""
        for atom in self.unions.join(left, right):
            self.structure.pins.setdefault(atom, reason or "meets a value that is not a channel")

    def pin(self, atoms: Tensor, reason: str) -> None:
        """Record why atoms must stay; the first reason is kept."""
        pins = self.structure.pins
        pins.update((a, reason) for a in torch.unique(atoms).tolist() if a not in pins)

    def coarsen(self, layout: Tensor, axes: Collection[int]) -> Tensor:
        """Join all atoms with equal indices along ``axes``; shrink the other axes."""
        order = [*axes, *(i for i in range(layout.dim()) if i not in axes)]
        sizes = [layout.shape[i] for i in order]
        # The kept axes first, so that each row holds the atoms to be joined.
        flat = layout.permute(order).reshape(math.prod(sizes[: len(axes)]), -1)
        self.join(flat[:, :1].expand_as(flat), flat)
        for axis in range(layout.dim()):
            if axis not in axes:
                layout = layout.narrow(axis, 0, 1)
        return layout

    def slice(self, name: str, axis: int, atoms: Tensor | None, size: int) -> Tensor:
        """Return the atoms along an axis of a parameter; a second use is joined with the first."""
        known = self.structure.slices.get((name, axis))
        if known is None:
            known = self.unions.fresh(size) if atoms is None else atoms
            self.structure.slices[name, axis] = known
        elif atoms is not None:
            self.join(known, atoms)
        return known

    # -- layouts ------------------------------------------------------------------------------

    def layout(self, node: Node) -> Tensor:
        """Return the layout of a value; a parameter's is created at first use."""
        if node not in self.structure.layouts:
            self.structure.layouts[node] = self.blank(node)
            if node.kind == "stored":
                self.own_parameter(node)
        return self.structure.layouts[node]

    def blank(self, node: Node) -> Tensor:
        """Return the layout of a value without channels."""
        rank = len(node.shape) if node.is_tensor else 0
        return torch.zeros([1] * rank, dtype=torch.long)

    def own_parameter(self, node: Node) -> None:
        """Create atoms for a parameter that enters arithmetic.

        A vector of numbers or bools gets one atom per entry. So does a table, for now: the channels
        its entries meet show along which axis they lie (:meth:`settle_tables`).
        """
        shape, name = node.shape, node.stored
        size = math.prod(shape)
        stored = self.captured.stored[name]
        flags = stored.dtype == torch.bool and size == max(shape, default=0)
        if size <= 1 or not (stored.is_floating_point() or flags):
            return
        if size == max(shape):
            atoms = self.slice(name, shape.index(size), None, size)
        elif size <= LARGEST_TABLE:
            atoms = self.tables[name] = self.unions.fresh(size)
        else:
            return
        self.structure.layouts[node] = atoms.reshape(shape)

    def axes(self, node: Node) -> list[int]:
        """Return the axes along which a value's channels lie, as far as known."""
        layout = self.layout(node)
        axes = varying(layout)
        if len(axes) > 1:
            layout = self.structure.layouts[node] = self.unions.names(layout)
            axes = varying(layout)
        return axes

    def along(self, node: Node, axis: int) -> Tensor:
        """Return atoms along one axis, shape (size,); atoms that differ along others are joined."""
        size = node.shape[axis]
        axis %= max(len(node.shape), 1)
        axes = self.axes(node)
        layout = self.layout(node)
        if any(other != axis for other in axes):
            layout = self.coarsen(layout, [axis])
        for other in range(layout.dim()):
            if other != axis:
                layout = layout.narrow(other, 0, 1)
        return layout.reshape(-1).expand(size) if layout.numel() == 1 else layout.reshape(-1)

    def outside(self, node: Node, inner: Collection[int], reason: str) -> Tensor | None:
        """Return the layout outside ``inner``, the axes along which an operator mixes values.

        Returns:
            The layout, of size 1 along ``inner``. None, with the atoms pinned, if channels lie only
            there.
        """
        axes = self.axes(node)
        layout = self.layout(node)
        rest = [axis for axis in axes if axis not in inner]
        if len(rest) < len(axes):
            if not rest:
                self.pin(layout, reason)
                return None
            layout = self.coarsen(layout, rest)
        for axis in inner:
            layout = layout.narrow(axis, 0, 1)
        return layout

    # -- findings -----------------------------------------------------------------------------

    def bind(self, operator: Operator, layout: Tensor) -> None:
        """Record the operator of a call and the layout of its result."""
        self.structure.operators[operator.node] = operator
        self.structure.layouts[operator.node] = layout.contiguous()

    def refuse(self, node: Node, operands: Sequence[Node], why: str = "") -> None:
        """Pin the operands of a call; its result has no channels."""
        for operand in operands:
            self.pin(
                self.layout(operand), why or f"{node.operator} at {node.name} is not understood"
            )
        self.bind(Unknown(node), self.blank(node))

    # -- the end ------------------------------------------------------------------------------

    def settle_tables(self) -> None:
        """Keep atoms of each table along the one axis on which it met channels."""
        for name, atoms in self.tables.items():
            shape = tuple(self.captured.stored[name].shape)
            axis = self._table_axis(atoms.reshape(shape))
            if axis is None:
                self.pin(atoms, f"{name} meets channels along several of its axes, or along none")
            else:
                layout = self.coarsen(atoms.reshape(shape), [axis])
                self.structure.slices[name, axis] = layout.reshape(-1)

    def _table_axis(self, layout: Tensor) -> int | None:
        """Return the axis with one set of joined entries per index; None if there is none."""
        names = self.unions.names(layout)
        sizes = torch.bincount(names.reshape(-1))
        # Joined among each other, or with an older atom, whose smaller number names the set.
        met = (sizes[names] > 1) | (names < layout.min())
        if not bool(met.any()):
            return None
        for axis in range(names.dim()):
            rows = names.movedim(axis, 0).flatten(1)
            seen = met.movedim(axis, 0).flatten(1)
            high = torch.where(seen, rows, -1).amax(1, keepdim=True)
            if bool((torch.where(seen, rows, high) == high).all()) and bool((high >= 0).any()):
                return axis
        return None

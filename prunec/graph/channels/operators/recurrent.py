"""LSTM, GRU and RNN: hidden units, input features and projections as channels.

A unit is zero at all times if its candidate is zero as long as the other zero units are: by
    induction over time from a zero initial state. The candidate is the gate g of an LSTM, the new
    gate n
of a GRU, the whole sum of an RNN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, one_value
from prunec.graph.channels.operator import Known, Mark, Operator, Writer, Written
from prunec.graph.channels.operators.recurrent_cells import GATES, Cell, cells_of
from prunec.graph.channels.weights import Weights

_CANDIDATE = {"lstm": 2, "gru": 2, "rnn_tanh": 0, "rnn_relu": 0}  # row block of the candidate


@dataclass(frozen=True, eq=False)
class Recurrent(Family):
    """A stack of recurrent layers.

    The layout is flat: the outputs of every cell, then the units of every cell, layer by layer.
    """

    names = tuple(GATES)
    several = True

    node: Node
    source: Node
    directions: int
    cells: tuple[Cell, ...]
    from_zero: bool
    width: int

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Create atoms for the units and the outputs of every cell."""
        named = node.arguments
        kind, source, params = node.operator, named.get("input"), named.get("params")
        if (
            not isinstance(source, Node)
            or "batch_sizes" in named
            or len(source.shape) != 3
            or not isinstance(params, (list, tuple))
            or any(n.kind != "stored" for n in params)
        ):
            tensors = [n for n in node.operands if n.is_tensor]
            builder.refuse(node, tensors, f"{kind} at {node.name} of packed or single sequences")
            return
        directions = 1 + bool(named["bidirectional"])
        cells = cells_of(builder, kind, source, named, directions)
        states = first_states(node)
        from_zero = all(is_zeros(state) for state in states)
        if not from_zero:
            for state in states:
                builder.pin(builder.layout(state), f"{kind} at {node.name} begins with it")
            why = f"{kind} at {node.name} is given its state"
            for cell in cells:
                builder.pin(torch.cat([cell.units, cell.outputs]), why)
        layout = torch.cat([*(c.outputs for c in cells), *(c.units for c in cells)])
        width = source.shape[-1]
        builder.bind(cls(node, source, directions, cells, from_zero, width), layout)
        builder.structure.even.append(tuple(cell.units for cell in cells))
        builder.structure.even.append(tuple(cell.outputs for cell in cells))
        builder.structure.projected += [(c.units, c.outputs) for c in cells if c.w_hr is not None]

    def visit_item(self, builder: Builder, node: Node) -> None:
        """Bind the sequence of outputs, or the last states.

        The last states have one row per cell. If every reader picks one row, rows keep separate
        channels.
        """
        index = node.arguments["index"]
        if index == 0:
            last = self.cells[-self.directions :]
            rows = [torch.arange(c.at_outputs, c.at_outputs + len(c.outputs)) for c in last]
            positions = torch.cat(rows).reshape(1, 1, -1)
        else:
            states = [
                (c.at_outputs, len(c.outputs)) if index == 1 else (c.at_units, len(c.units))
                for c in self.cells
            ]
            rows = [torch.arange(at, at + size) for at, size in states]
            positions = torch.stack(rows).unsqueeze(1)
            if all(_picks_row(user) for user in node.users):
                builder.ragged.add(node)
        builder.bind(Item(node, self.node, positions), builder.layout(self.node)[positions])

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return 0 for units that never leave zero."""
        zero: dict[str, Tensor] = {}
        inputs = self._inputs(known)
        for layer in range(len(self.cells) // self.directions):
            cells = self.cells[layer * self.directions : (layer + 1) * self.directions]
            for cell in cells:
                zero[cell.w_hh] = self._never_leave_zero(cell, inputs == 0, weights)
            inputs = torch.cat([torch.where(self._out(c, zero, weights), 0.0, 1.0) for c in cells])
        outputs = torch.cat([self._out(cell, zero, weights) for cell in self.cells])
        units = torch.cat([zero[cell.w_hh] for cell in self.cells])
        return torch.where(torch.cat([outputs, units]), 0.0, NAN).to(torch.float64)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark what is read at later times and by the layers above, up to a fixpoint."""
        live = live & known[self.node].isnan()
        before = -1
        # Units read each other through time, so one sweep may wake units of another.
        while int(live.sum()) != before:
            before = int(live.sum())
            # From the top layer down: a layer is read by the one above.
            for index in reversed(range(len(self.cells))):
                self._read_cell(index, live, known, weights)
        mark(self.node, live)
        inputs = known[self.source].shape[-1]
        read = torch.zeros(self.width, dtype=torch.bool)
        for cell in self.cells[: self.directions]:
            units = live[cell.at_units : cell.at_units + len(cell.units)]
            read |= self._columns(weights[cell.w_ih], units)
        read = read if inputs > 1 else read.any().reshape(1)
        mark(self.source, read.reshape(1, 1, -1))

    def fold(self, known: Known, weights: Weights) -> bool:
        """Fold constant inputs into the input bias of the first layer."""
        values = self._inputs(known)
        changed = False
        for cell in self.cells[: self.directions]:
            weight = weights[cell.w_ih]
            usable = ~values.isnan() & (weight != 0).any(0)
            # Without a bias, only zeros can be folded.
            if cell.b_ih is None:
                usable &= values == 0
            if not bool(usable.any()):
                continue
            if cell.b_ih is not None:
                shift = weight @ torch.where(usable, values, 0.0)
                weights[cell.b_ih] = weights[cell.b_ih] + shift
            weights[cell.w_ih] = torch.where(usable, 0.0, weight)
            changed = True
        return changed

    def emit(self, writer: Writer) -> Written:
        """Write the stack with the kept units."""
        cell = self.cells[0]
        return writer.recurrent(self.node, self.from_zero, (cell.outputs, cell.units))

    @property
    def cuts(self) -> tuple[str, ...]:
        """The weights of all cells."""
        names = ((cell.w_ih, cell.w_hh, cell.w_hr) for cell in self.cells)
        return tuple(name for three in names for name in three if name is not None)

    @property
    def owned(self) -> tuple[str, ...]:
        """Input weights and input biases of all cells."""
        return tuple(n for cell in self.cells for n in (cell.w_ih, cell.b_ih) if n is not None)

    # -- one cell -----------------------------------------------------------------------------

    def _inputs(self, known: Known) -> Tensor:
        """Return constants among the input features, NaN where unknown, shape (I,)."""
        value = known[self.source]
        for axis in (0, 1):
            value = one_value(value, axis) if value.shape[axis] > 1 else value
        return value.reshape(-1).expand(self.width)

    def _never_leave_zero(self, cell: Cell, inputs: Tensor, weights: Weights) -> Tensor:
        """Return the largest set of units that stay zero, bool (H,)."""
        size, row = len(cell.units), _CANDIDATE[self.node.operator]
        rows = slice(row * size, (row + 1) * size)
        zero = torch.full((size,), self.from_zero)
        taken = (weights[cell.w_ih][rows][:, ~inputs] != 0).any(1)
        if cell.b_ih is not None and cell.b_hh is not None:
            one, two = weights[cell.b_ih][rows], weights[cell.b_hh][rows]
            # A GRU multiplies b_hh by the reset gate before adding b_ih, so the two cannot cancel.
            taken |= (one != 0) | (two != 0) if self.node.operator == "gru" else one + two != 0
        recurrent = weights[cell.w_hh][rows] != 0
        before = -1
        zero &= ~taken
        while int(zero.sum()) != before:
            before = int(zero.sum())
            handed = self._out(cell, {cell.w_hh: zero}, weights)
            zero = zero & ~recurrent[:, ~handed].any(1)
        return zero

    def _out(self, cell: Cell, zero: dict[str, Tensor], weights: Weights) -> Tensor:
        """Return which outputs of a cell are zero, bool (P,)."""
        units = zero[cell.w_hh]
        if cell.w_hr is None:
            return units
        return ~(weights[cell.w_hr][:, ~units] != 0).any(1)

    def _columns(self, weight: Tensor, units: Tensor) -> Tensor:
        """Return which columns the gates of some units read, bool."""
        gates = GATES[self.node.operator]
        return (weight[units.repeat(gates)] != 0).any(0)

    def _read_cell(
        self,
        index: int,
        live: Tensor,
        known: Known,
        weights: Weights,
    ) -> None:
        """Mark, in place, all that one cell's live units read of itself and of the layer below."""
        cell = self.cells[index]
        outputs = live[cell.at_outputs : cell.at_outputs + len(cell.outputs)]
        units = live[cell.at_units : cell.at_units + len(cell.units)]
        unknown = known[self.node].isnan()
        if cell.w_hr is None:
            units |= outputs
        else:
            units |= (weights[cell.w_hr][outputs] != 0).any(0)
        units &= unknown[cell.at_units : cell.at_units + len(cell.units)]
        outputs |= self._columns(weights[cell.w_hh], units)
        outputs &= unknown[cell.at_outputs : cell.at_outputs + len(cell.outputs)]
        if cell.w_hr is None:
            units |= outputs
        layer = index // self.directions
        if layer == 0:
            return
        below = self.cells[(layer - 1) * self.directions : layer * self.directions]
        read = self._columns(weights[cell.w_ih], units)
        start = 0
        for lower in below:
            size = len(lower.outputs)
            place = slice(lower.at_outputs, lower.at_outputs + size)
            live[place] |= read[start : start + size] & unknown[place]
            start += size


@dataclass(frozen=True, eq=False)
class Item(Operator):
    """One result of a recurrent operator: the sequence of outputs, or the last states."""

    node: Node
    source: Node
    positions: Tensor

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the constants of the cells."""
        return known[self.source][self.positions]

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the live positions in the operator's layout."""
        flags = torch.zeros(known[self.source].shape, dtype=torch.bool)
        flags[self.positions[live]] = True
        mark(self.source, flags)

    def emit(self, writer: Writer) -> Written:
        """Write the same item of the written stack."""
        return writer.item(self.node)


def first_states(node: Node) -> tuple[Node, ...]:
    """Return the initial states of a recurrent call."""
    states = node.arguments["hx"]
    return tuple(states) if isinstance(states, (list, tuple)) else (states,)


def is_zeros(state: Node) -> bool:
    """Return whether an initial state is created as zeros."""
    return state.kind == "call" and state.operator == "zeros"


def _picks_row(node: Node) -> bool:
    return node.operator == "select" and node.arguments["dim"] == 0

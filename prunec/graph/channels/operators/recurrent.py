"""LSTM, GRU and RNN: hidden units, input features and projections as channels.

A unit is zero at all times if what it takes in is zero whenever the units that are zero were so
before (induction over time, from a first state of zero): the candidate gate g of an LSTM, the new
gate n of a GRU, the whole sum of an RNN.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.structure import Mark, Rule

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_CANDIDATE = {"lstm": 2, "gru": 2, "rnn_tanh": 0, "rnn_relu": 0}  # the gate that fills a unit


@dataclass(frozen=True)
class Cell:
    """One layer in one direction: names of its tensors, and where its channels stand.

    Attributes:
        w_ih, w_hh: (gates·H, I) and (gates·H, P); P = H where there is no projection.
        b_ih, b_hh: (gates·H,), or None.
        w_hr: the projection (P, H), or None.
        units, outputs: atoms of its H units, and of the P values that it hands on.
        at_units, at_outputs: their first positions in the layout of the operator.
    """

    w_ih: str
    w_hh: str
    b_ih: str | None
    b_hh: str | None
    w_hr: str | None
    units: Tensor
    outputs: Tensor
    at_units: int = 0
    at_outputs: int = 0


@dataclass(frozen=True)
class Recurrent(Rule):
    """A stack of recurrent layers.

    Its layout is flat: the outputs of every cell, then the units of every cell, layer by layer.
    """

    node: Node
    kind: str
    source: Node
    directions: int
    cells: tuple[Cell, ...]
    from_zero: bool
    width: int

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """Zero where a unit never leaves zero."""
        zero: dict[str, Tensor] = {}
        inputs = self._inputs(known)
        for layer in range(len(self.cells) // self.directions):
            cells = self.cells[layer * self.directions : (layer + 1) * self.directions]
            for cell in cells:
                zero[cell.w_hh] = self._never_leave_zero(cell, inputs == 0, weights)
            inputs = torch.cat([torch.where(self._out(c, zero, weights), 0.0, 1.0) for c in cells])
        outputs = torch.cat([self._out(cell, zero, weights) for cell in self.cells])
        units = torch.cat([zero[cell.w_hh] for cell in self.cells])
        return torch.where(torch.cat([outputs, units]), 0.0, float("nan")).to(torch.float64)

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """What is read later, through time and through the layers above."""
        live = live & known[self.node].isnan()
        before = -1
        while int(live.sum()) != before:
            before = int(live.sum())
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

    def fold(self, known: Mapping[Node, Tensor], weights: MutableMapping[str, Tensor]) -> bool:
        """Constant inputs go into the bias."""
        values = self._inputs(known)
        changed = False
        for cell in self.cells[: self.directions]:
            weight = weights[cell.w_ih]
            usable = ~values.isnan() & (weight != 0).any(0)
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

    @property
    def cuts(self) -> tuple[str, ...]:
        """The weights of all cells."""
        names = ((cell.w_ih, cell.w_hh, cell.w_hr) for cell in self.cells)
        return tuple(name for three in names for name in three if name is not None)

    @property
    def owned(self) -> tuple[str, ...]:
        """The input weights and their biases."""
        return tuple(n for cell in self.cells for n in (cell.w_ih, cell.b_ih) if n is not None)

    # -- one cell -----------------------------------------------------------------------------

    def _inputs(self, known: Mapping[Node, Tensor]) -> Tensor:
        """Constants among the input features, NaN where unknown, shape (I,)."""
        value = known[self.source]
        for axis in (0, 1):
            if value.shape[axis] > 1:
                first = value.narrow(axis, 0, 1)
                same = (value == first).all(axis, keepdim=True)
                value = torch.where(same, first, float("nan"))
        return value.reshape(-1).expand(self.width)

    def _never_leave_zero(
        self, cell: Cell, inputs: Tensor, weights: Mapping[str, Tensor]
    ) -> Tensor:
        """Units that stay zero, as the largest set that keeps itself so, shape (H,)."""
        size, row = len(cell.units), _CANDIDATE[self.kind]
        rows = slice(row * size, (row + 1) * size)
        zero = torch.full((size,), self.from_zero)
        taken = (weights[cell.w_ih][rows][:, ~inputs] != 0).any(1)
        if cell.b_ih is not None and cell.b_hh is not None:
            one, two = weights[cell.b_ih][rows], weights[cell.b_hh][rows]
            taken |= (one != 0) | (two != 0) if self.kind == "gru" else one + two != 0
        recurrent = weights[cell.w_hh][rows] != 0
        before = -1
        zero &= ~taken
        while int(zero.sum()) != before:
            before = int(zero.sum())
            handed = self._out(cell, {cell.w_hh: zero}, weights)
            zero = zero & ~recurrent[:, ~handed].any(1)
        return zero

    def _out(self, cell: Cell, zero: dict[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """Which of the values that a cell hands on are zero."""
        units = zero[cell.w_hh]
        if cell.w_hr is None:
            return units
        return ~(weights[cell.w_hr][:, ~units] != 0).any(1)

    def _columns(self, weight: Tensor, units: Tensor) -> Tensor:
        """Columns that the gates of some units read."""
        gates = GATES[self.kind]
        return (weight[units.repeat(gates)] != 0).any(0)

    def _read_cell(
        self,
        index: int,
        live: Tensor,
        known: Mapping[Node, Tensor],
        weights: Mapping[str, Tensor],
    ) -> None:
        """Mark, in place, what one cell's live units read of itself and of the layer below."""
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


@dataclass(frozen=True)
class Item(Rule):
    """What a recurrent operator returns: the sequence of outputs, or the last states."""

    source: Node
    positions: Tensor

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """The constants of the cells."""
        return known[self.source][self.positions]

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """Its positions in the operator's layout."""
        flags = torch.zeros(known[self.source].shape, dtype=torch.bool)
        flags[self.positions[live]] = True
        mark(self.source, flags)


def visit_recurrent(builder: Builder, node: Node) -> None:
    """Record the cells of an operator that was given padded sequences and a list of parameters."""
    named = ops.arguments(node)
    kind = ops.op_name(node)
    source, params = named.get("input"), named.get("params")
    tensors = [n for n in node.all_input_nodes if builder.captured.is_tensor(n)]
    if (
        not isinstance(source, Node)
        or "batch_sizes" in named
        or len(builder.captured.shape(source)) != 3
        or not isinstance(params, (list, tuple))
        or any(n.op != "get_attr" for n in params)
    ):
        builder.refuse(node, tensors, f"{kind} at {node.name} of packed or single sequences")
        return
    directions = 1 + bool(named["bidirectional"])
    cells = _cells(builder, kind, source, named, directions)
    states = named["hx"] if isinstance(named["hx"], (list, tuple)) else [named["hx"]]
    from_zero = all(is_zeros(state) for state in states)
    if not from_zero:
        for state in states:
            builder.pin(builder.layout(state), f"{kind} at {node.name} begins with it")
        for cell in cells:
            builder.pin(
                torch.cat([cell.units, cell.outputs]), f"{kind} at {node.name} is given its state"
            )
    width = builder.captured.shape(source)[-1]
    rule = Recurrent(node, kind, source, directions, cells, from_zero, width)
    layout = torch.cat([*(c.outputs for c in cells), *(c.units for c in cells)])
    builder.rule(node, rule, layout)
    builder.found.even.append(tuple(cell.units for cell in cells))
    builder.found.even.append(tuple(cell.outputs for cell in cells))


def is_zeros(node: object) -> bool:
    """Whether a state is zero at the beginning."""
    return isinstance(node, Node) and node.op == "call_function" and ops.op_name(node) == "zeros"


def _cells(
    builder: Builder, kind: str, source: Node, named: Mapping[str, Any], directions: int
) -> tuple[Cell, ...]:
    names = [str(n.target) for n in named["params"]]
    count = directions * int(named["num_layers"])
    per = len(names) // count
    biased = bool(named["has_biases"])
    inputs = builder.along(source, 2)
    cells: list[Cell] = []
    for index in range(count):
        own = names[index * per : (index + 1) * per]
        if index and index % directions == 0:
            inputs = torch.cat([cell.outputs for cell in cells[-directions:]])
        projected = own[-1] if per in (3, 5) else None
        cells.append(_cell(builder, kind, own, inputs, projected, biased=biased))
    at = 0
    placed = []
    for cell in cells:
        placed.append(replace(cell, at_outputs=at))
        at += len(cell.outputs)
    for index, cell in enumerate(placed):
        placed[index] = replace(cell, at_units=at)
        at += len(cell.units)
    return tuple(placed)


def _cell(
    builder: Builder, kind: str, own: list[str], inputs: Tensor, projected: str | None, *,
    biased: bool,
) -> Cell:  # fmt: skip
    gates = GATES[kind]
    rows, width = builder.captured.tensor(own[1]).shape
    size = rows // gates
    if projected is None:
        units = outputs = builder.slice(own[1], 1, None, size)
    else:
        units = builder.slice(projected, 1, None, size)
        outputs = builder.slice(projected, 0, None, width)
        builder.slice(own[1], 1, outputs, width)
    for name in own[: 4 if biased else 2]:
        builder.slice(name, 0, units.repeat(gates), rows)
    builder.slice(own[0], 1, inputs, len(inputs))
    one, two = (own[2], own[3]) if biased else (None, None)
    return Cell(own[0], own[1], one, two, projected, units, outputs)


def visit_item(builder: Builder, node: Node, source: Node) -> None:
    """An item of what a recurrent operator returns.

    The last states have a row for each cell. Where every reader picks one row, each row keeps
    channels of its own.
    """
    rule = builder.found.rules[source]
    assert isinstance(rule, Recurrent)
    index = node.args[1]
    layout = builder.layout(source)
    if index == 0:
        last = rule.cells[-rule.directions :]
        rows = [torch.arange(c.at_outputs, c.at_outputs + len(c.outputs)) for c in last]
        positions = torch.cat(rows).reshape(1, 1, -1)
    else:
        states = [
            (c.at_outputs, len(c.outputs)) if index == 1 else (c.at_units, len(c.units))
            for c in rule.cells
        ]
        positions = torch.stack([torch.arange(at, at + size) for at, size in states]).unsqueeze(1)
        if all(_picks_row(user) for user in node.users):
            builder.ragged.add(node)
    builder.rule(node, Item(source, positions), layout[positions])


def _picks_row(node: Node) -> bool:
    return ops.op_name(node) == "select" and ops.arguments(node)["dim"] == 0

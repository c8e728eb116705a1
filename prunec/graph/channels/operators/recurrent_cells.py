"""Cells of a recurrent operator: names of their tensors, positions of their channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder

# Row blocks of size H in the weights of a cell.
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Cell:
    """One layer in one direction: names of its tensors, positions of its channels.

    Attributes:
        w_ih, w_hh: (gates·H, I) and (gates·H, P); P = H where there is no projection.
        b_ih, b_hh: (gates·H,), or None.
        w_hr: the projection (P, H), or None.
        units, outputs: atoms of the H units and of the P outputs.
        at_units, at_outputs: first position of each in the layout of the operator.
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


def cells_of(
    builder: Builder, kind: str, source: Node, named: Mapping[str, Any], directions: int
) -> tuple[Cell, ...]:
    """Return the cells of all layers and directions, layer by layer."""
    names = [n.stored for n in named["params"]]
    count = directions * int(named["num_layers"])
    per = len(names) // count
    biased = bool(named["has_biases"])
    inputs = builder.along(source, 2)
    cells: list[Cell] = []
    for index in range(count):
        own = names[index * per : (index + 1) * per]
        if index and index % directions == 0:
            inputs = torch.cat([cell.outputs for cell in cells[-directions:]])
        projected = own[-1] if per in (3, 5) else None  # 2 weights, 2 biases, and W_hr
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
    rows, width = builder.captured.stored[own[1]].shape
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

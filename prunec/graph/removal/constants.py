"""Channels with a value that is the same for every input.

Values are propagated per position of a layout, in float64, with NaN for *unknown*; constants that a
border makes uneven are propagated beside them.

See docs/glossary.md: constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered
from prunec.graph.channels.layouts import NAN, fit
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights


@dataclass
class Constants:
    """Values that are the same for every input.

    Attributes:
        known: node → float64 tensor of its layout's shape, NaN where unknown.
        borders: node → its constants, where a border makes some of them uneven.
    """

    known: dict[Node, Tensor]
    borders: dict[Node, Bordered] = field(default_factory=dict)


def propagate(structure: Structure, weights: Weights) -> Constants:
    """Return the known value at every position of every layout.

    Args:
        structure: structure of the captured network.
        weights: weights of the network, added biases included.
    """
    constants = Constants(
        {
            node: _stored(node, tuple(layout.shape), weights)
            for node, layout in structure.layouts.items()
            if node.kind != "call"
        }
    )
    for node, operator in structure.operators.items():
        if node in structure.layouts:
            shape = tuple(structure.layouts[node].shape)
            value = fit(operator.value(constants.known, weights), shape)
            bordered = operator.bordered(constants.known, constants.borders, weights)
            # An uneven value is a constant where inside and border agree.
            if bordered is not None:
                bordered = bordered.fitted(shape)
                value = torch.where(value.isnan(), bordered.uniform, value)
                if bordered.is_uneven:
                    constants.borders[node] = bordered
            constants.known[node] = value
    return constants


def _stored(node: Node, shape: tuple[int, ...], weights: Weights) -> Tensor:
    """Return the value of a parameter with one layout position per entry; NaN for others."""
    if node.stored in weights:
        value = weights.stored(node.stored)
        if tuple(value.shape) == shape and value.dtype == torch.bool:
            return value.to(torch.float64)
        if tuple(value.shape) == shape and value.is_floating_point():
            return weights[node.stored]
    return torch.full(shape, NAN, dtype=torch.float64)

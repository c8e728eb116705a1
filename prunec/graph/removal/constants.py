"""Channels whose value is known, whatever the input.

A value is propagated per position of a layout, in float64, NaN standing for *unknown*; what a
border makes uneven is propagated beside it.
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
    """What is known of every value, whatever the input.

    Attributes:
        known: node → float64 tensor of its layout's shape, NaN where unknown.
        borders: node → its constants, where a border makes some of them uneven.
    """

    known: dict[Node, Tensor]
    borders: dict[Node, Bordered] = field(default_factory=dict)


def propagate(structure: Structure, weights: Weights) -> Constants:
    """Return the value of every position of every layout.

    Args:
        structure: of the captured network.
        weights: of the network; a kernel's bias may have been added.
    """
    found = Constants(
        {
            node: _stored(node, tuple(layout.shape), weights)
            for node, layout in structure.layouts.items()
            if node.kind != "call"
        }
    )
    for node, operator in structure.operators.items():
        if node in structure.layouts:
            shape = tuple(structure.layouts[node].shape)
            value = fit(operator.value(found.known, weights), shape)
            bordered = operator.bordered(found.known, found.borders, weights)
            if bordered is not None:
                bordered = bordered.fitted(shape)
                value = torch.where(value.isnan(), bordered.uniform, value)
                if bordered.is_uneven:
                    found.borders[node] = bordered
            found.known[node] = value
    return found


def _stored(node: Node, shape: tuple[int, ...], weights: Weights) -> Tensor:
    """The value of a parameter whose every entry has a place in the layout."""
    if node.stored in weights:
        value = weights.stored(node.stored)
        if tuple(value.shape) == shape and value.dtype == torch.bool:
            return value.to(torch.float64)
        if tuple(value.shape) == shape and value.is_floating_point():
            return weights[node.stored]
    return torch.full(shape, NAN, dtype=torch.float64)

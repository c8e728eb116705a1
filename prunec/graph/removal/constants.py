"""Channels whose value is known, whatever the input.

A value is propagated per position of a layout, in float64, NaN standing for *unknown*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.layouts import NAN, fit
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights


def propagate(structure: Structure, weights: Weights) -> dict[Node, Tensor]:
    """Return the value of every position of every layout, NaN where unknown.

    Args:
        structure: of the captured network.
        weights: of the network; a kernel's bias may have been added.

    Returns:
        Node → float64 tensor of its layout's shape.
    """
    known = {
        node: _stored(node, tuple(layout.shape), weights)
        for node, layout in structure.layouts.items()
        if node.kind != "call"
    }
    for node, operator in structure.operators.items():
        if node in structure.layouts:
            shape = tuple(structure.layouts[node].shape)
            known[node] = fit(operator.value(known, weights), shape)
    return known


def _stored(node: Node, shape: tuple[int, ...], weights: Weights) -> Tensor:
    """The value of a parameter whose every entry has a place in the layout."""
    if node.stored in weights:
        value = weights.stored(node.stored)
        if tuple(value.shape) == shape and value.is_floating_point():
            return weights[node.stored]
    return torch.full(shape, NAN, dtype=torch.float64)

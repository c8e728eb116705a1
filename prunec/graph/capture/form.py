"""What is known of a tensor of a traced graph before anything has run: its shape and type.

``torch.export`` tells it by a tensor without values; a recording leaves it as it stands here,
since symbols of torch would take longer to make than the rest of the graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

KEY = "form"
"""Where a node of a recorded graph keeps it."""

DTYPE = "dtype"
"""Where a node that was written into a graph, and of which no more is known, keeps its type."""


class Form(NamedTuple):
    """Shape, type and device of a tensor.

    Attributes:
        shape: its sizes; one that depends on the batch is no ``int``.
        dtype: the type of its elements.
        device: where it lies.
    """

    shape: tuple[object, ...]
    dtype: torch.dtype
    device: torch.device


def form_of(node: object) -> Form | None:
    """What a node of a traced graph returns; None for what is no tensor."""
    if not isinstance(node, Node):
        return None
    kept = node.meta.get(KEY)
    if isinstance(kept, Form):
        return kept
    value = node.meta.get("val")
    return (
        Form(tuple(value.shape), value.dtype, value.device) if isinstance(value, Tensor) else None
    )


def shape_of(node: object) -> tuple[object, ...]:
    """The sizes of the tensor that a node returns."""
    form = form_of(node)
    assert form is not None
    return form.shape

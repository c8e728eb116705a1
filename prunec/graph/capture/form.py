"""Shape and type of a tensor in a traced graph, known before anything runs.

``torch.export`` stores them in a tensor without values; a recording stores them as a :class:`Form`,
because creating torch's symbols would take longer than the rest of the graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

KEY = "form"
"""Key of a recorded node's :class:`Form` in ``node.meta``."""

DTYPE = "dtype"
"""Key in ``node.meta`` of the type of an inserted node for which no form is known."""


class Form(NamedTuple):
    """Shape, type and device of a tensor.

    Attributes:
        shape: sizes; a size that depends on the batch is not an ``int``.
        dtype: type of the elements.
        device: device of the tensor.
    """

    shape: tuple[object, ...]
    dtype: torch.dtype
    device: torch.device


def form_of(node: object) -> Form | None:
    """Return the form of a node's result; None if it is not a tensor."""
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
    """Return the sizes of the tensor that a node returns."""
    form = form_of(node)
    assert form is not None
    return form.shape

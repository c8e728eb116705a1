"""Linear maps of the last axis, and products with a stored matrix."""

from __future__ import annotations

import math

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operators.kernel import Kernel, add_kernel, stored_name
from prunec.graph.channels.operators.mixing import mixes_positions


class Linear(Kernel):
    """A linear map: channels lie along the last axis."""

    names = ("linear",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Create output atoms; refuse a computed weight or a kernel over positions."""
        named = node.arguments
        weight, source = named["weight"], named["input"]
        if weight.kind != "stored":
            why = f"linear at {node.name}: its weight is computed"
            builder.refuse(node, [source, weight], why)
            return
        axis = len(node.shape) - 1
        if mixes_positions(builder, node, source, axis, [axis]):
            return
        add_kernel(
            cls, builder, node, source, weight.stored, stored_name(named["bias"]),
            size=weight.shape[0], axis=axis, positions=math.prod(node.shape[1:-1]),
        )  # fmt: skip


def visit_weight_product(
    builder: Builder, node: Node, source: Node, weight: Node, axis: int, *, transposed: bool
) -> None:
    """Record a product of activations with a stored matrix.

    Args:
        builder: running analysis.
        node: the call.
        source: the activations.
        weight: the matrix, of shape (I, O) where ``transposed``, else (O, I).
        axis: summed axis of the activations, and axis of the result.
        transposed: whether the matrix is stored as (I, O).
    """
    if mixes_positions(builder, node, source, axis, [axis]):
        return
    add_kernel(
        Linear, builder, node, source, weight.stored, None,
        size=weight.shape[int(transposed)],
        axis=axis,
        positions=math.prod(node.shape[1:]) // node.shape[axis],
        transposed=transposed,
        has_room=False,
    )  # fmt: skip

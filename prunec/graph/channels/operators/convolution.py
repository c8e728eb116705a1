"""Convolutions, transposed or not, in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunec.graph.capture.names import CONVOLUTIONS
from prunec.graph.capture.node import Node, per_axis
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operators.kernel import Kernel, add_kernel, stored_name
from prunec.graph.channels.operators.mixing import mixes_positions


class Convolution(Kernel):
    """A convolution: channels lie along axis 1."""

    names = CONVOLUTIONS

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Create output atoms; refuse a computed weight or a kernel over the channel axis."""
        named = node.arguments
        weight, source = named["weight"], named["input"]
        rank = len(source.shape)
        if weight.kind != "stored" or rank != len(weight.shape):
            why = f"{node.operator} at {node.name}: its weight is computed"
            builder.refuse(node, [source, weight], why)
            return
        if mixes_positions(builder, node, source, 1, list(range(1, rank))):
            return
        transposed = "transpose" in node.operator
        groups = int(named["groups"])
        spatial = math.prod((source.shape if transposed else node.shape)[2:])
        taps = weight.shape[2:]
        add_kernel(
            cls, builder, node, source, weight.stored, stored_name(named["bias"]),
            size=weight.shape[1] * groups if transposed else weight.shape[0],
            axis=1,
            positions=spatial * math.prod(taps),
            groups=groups,
            transposed=transposed,
            border=border_taps(named, source.shape[2:], node.shape[2:], taps, transposed),
        )  # fmt: skip


def border_taps(
    named: Mapping[str, Any],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    kernel: tuple[int, ...],
    transposed: bool,
) -> Tensor | None:
    """Return the taps that read beyond the input for some output position, shape (taps,).

    ``padding`` applies to both ends of each axis, or to the beginning only where ``padding_after``
    gives the end.
    """
    border = torch.zeros(kernel, dtype=torch.bool)
    if transposed:
        return ~border.reshape(-1)
    rank, padding = len(kernel), named["padding"]
    stride, dilation = per_axis(named["stride"], rank), per_axis(named["dilation"], rank)
    for axis in range(rank):
        taps = torch.arange(kernel[axis]) * dilation[axis]
        if isinstance(padding, str):
            before = 0 if padding == "valid" else int(taps[-1]) // 2
        else:
            before = per_axis(padding, rank)[axis]
        last = (outputs[axis] - 1) * stride[axis]
        beyond = (taps < before) | (last + taps - before >= inputs[axis])
        if "padding_after" in named:  # an ONNX file may leave the size open, so assume the worst
            beyond |= taps > int(taps[-1]) - named["padding_after"][axis]
        border |= beyond.reshape([-1 if i == axis else 1 for i in range(rank)])
    return border.reshape(-1) if bool(border.any()) else None

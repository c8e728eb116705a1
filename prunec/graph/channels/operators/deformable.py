"""Deformable convolutions: each tap reads at a computed place, the same for all channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.operators.kernel import Kernel, add_kernel, stored_name
from prunec.graph.channels.weights import Weights


class Deformable(Kernel):
    """deform_conv2d (Dai et al., 2017); any tap may read the zeros outside the image.

    With several offset groups, each group keeps the same number of input channels.
    """

    names = ("deform_conv2d",)

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Create output atoms; pin offsets and masks, which are not channels."""
        named = node.arguments
        source, weight, offset, mask, bias = (
            named[key] for key in ("input", "weight", "offset", "mask", "bias")
        )
        groups, offsets = int(named["groups"]), int(named["offset_groups"])
        stored = weight.kind == "stored" and (bias.kind == "stored" or bias.operator == "zeros")
        if min(groups, offsets) > 1 or not stored or set(builder.axes(source)) - {1}:
            builder.refuse(node, node.operands)
            return
        for operand in (offset, mask):
            builder.pin(builder.layout(operand), f"{node.operator} at {node.name} reads places")
        taps = weight.shape[2:]
        add_kernel(
            cls, builder, node, source, weight.stored, stored_name(bias),
            size=weight.shape[0],
            axis=1,
            positions=math.prod(node.shape[2:]) * math.prod(taps),
            groups=groups,
            border=torch.ones(math.prod(taps), dtype=torch.bool),
            has_room=False,
        )  # fmt: skip
        if bias.kind != "stored" and isinstance(builder.structure.operators.get(node), cls):
            builder.join(builder.along(bias, 0), builder.along(node, 1))
        # Each offset group reads its own share of the channels, in order.
        if offsets > 1:
            builder.structure.even.append(builder.along(source, 1).chunk(offsets))

    @property
    def places_differ(self) -> bool:
        """Whether there are several offset groups."""
        return int(self.node.arguments["offset_groups"]) > 1

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark inputs with a weight to a live output, and all offsets and masks."""
        super().read(live, known, weights, mark)
        for key in ("offset", "mask"):
            mark(self.node.arguments[key], torch.ones((), dtype=torch.bool))
        mark(self.node.arguments["bias"], live.reshape(-1))

    def emit(self, writer: Writer) -> Written:
        """Write the call on cut tensors, with the number of groups that remain."""
        return writer.call(self.node, groups=self._groups_left(writer))

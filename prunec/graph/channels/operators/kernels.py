"""The one form in which the analyses look at a kernel: (groups, O/groups, I/groups, taps)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import Captured
from prunec.graph.capture import aten as ops
from prunec.graph.channels.structure import Kernel


def as_matrix(kernel: Kernel, weight: Tensor) -> Tensor:
    """A weight as (groups, O/groups, I/groups, taps), whatever its operator stores.

    A view where the layout allows it, so that writing to it writes to the weight.
    """
    inputs, outputs, groups = len(kernel.inputs), len(kernel.outputs), kernel.groups
    taps = math.prod(weight.shape[2:])  # said outright: a kernel may have no inputs left
    if kernel.transposed:
        shape = (groups, inputs // groups, outputs // groups, taps)
        return weight.reshape(shape).transpose(1, 2)
    return weight.reshape(groups, outputs // groups, inputs // groups, taps)


def bias_name(kernel: Kernel) -> str | None:
    """Name of the kernel's bias, or the name that one would get; None if there can be none."""
    return kernel.room if kernel.bias is None else kernel.bias


def room_for_bias(captured: Captured, node: Node, weight: str) -> str | None:
    """The name of a bias for a kernel that has none, if its module holds nothing but the weight."""
    owner, _, leaf = weight.rpartition(".")
    fits = ops.op_name(node) in ops.CONVOLUTIONS | {"linear"} and leaf == "weight" and owner
    return f"{owner}.bias" if fits and captured.held_by(owner) == {weight} else None

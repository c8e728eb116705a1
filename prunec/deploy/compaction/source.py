"""Origin of a captured graph: the operator of the file for each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from torch import Tensor

from prunec.deploy.compaction.observed import Observed
from prunec.graph.capture.node import Node


@dataclass(frozen=True)
class Place:
    """Place of a stored tensor in the file.

    Attributes:
        name: name of the initialiser, or of the output of a constant node.
        shape: shape in the file.
        turned: whether its two axes are exchanged for the analyses.
    """

    name: str
    shape: tuple[int, ...]
    turned: bool = False

    def back(self, tensor: Tensor) -> Tensor:
        """Return a cut tensor in the layout of the file."""
        if self.turned:
            tensor = tensor.t()
        if tensor.dim() == len(self.shape):
            return tensor.contiguous()
        # The values lie along the one axis that is longer than 1, or else along the last.
        along = next((i for i, size in enumerate(self.shape) if size > 1), len(self.shape) - 1)
        return tensor.reshape([tensor.numel() if i == along else 1 for i in range(len(self.shape))])


@dataclass(frozen=True)
class SourceFile:
    """File with the origin of each node.

    Attributes:
        model: model of the file.
        observed: values of the file.
        numbers: call → number of its operator in the file.
        operands: call → node of each input of its operator; None for inputs without a node.
        named: node → name of its value in the file.
        places: stored tensor → its place in the file.
        read_by_count: numbers of reshapes whose sizes are computed from channel counts.
    """

    model: onnx.ModelProto
    observed: Observed
    numbers: Mapping[Node, int]
    operands: Mapping[Node, Sequence[Node | None]]
    named: Mapping[Node, str]
    places: Mapping[str, Place]
    read_by_count: frozenset[int] = field(default_factory=frozenset)

    def proto(self, node: Node) -> onnx.NodeProto:
        """Return the operator of a call."""
        proto: onnx.NodeProto = self.model.graph.node[self.numbers[node]]
        return proto

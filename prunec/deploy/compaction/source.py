"""The file behind a captured graph: which operator of it each node came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from torch import Tensor

from prunec.deploy.compaction.observed import Observed
from prunec.graph.capture.node import Node


@dataclass(frozen=True)
class Place:
    """Where a stored tensor lies in the file.

    Attributes:
        name: of the initialiser, or of the value of a constant.
        shape: as the file has it.
        turned: whether the analyses see it with its two axes exchanged.
    """

    name: str
    shape: tuple[int, ...]
    turned: bool = False

    def back(self, tensor: Tensor) -> Tensor:
        """Return a cut tensor as the file has it."""
        if self.turned:
            tensor = tensor.t()
        if tensor.dim() == len(self.shape):
            return tensor.contiguous()
        along = next((i for i, size in enumerate(self.shape) if size > 1), len(self.shape) - 1)
        return tensor.reshape([tensor.numel() if i == along else 1 for i in range(len(self.shape))])


@dataclass(frozen=True)
class Source:
    """A file, read.

    Attributes:
        model: the file.
        observed: its values.
        numbers: call → the number of its operator in the file.
        operands: call → for each input of its operator the node that it is; None for what is none.
        named: node → the name of its value in the file.
        places: stored tensor → where it lies.
        read_by_count: numbers of reshapes whose sizes are computed from counts of channels.
    """

    model: onnx.ModelProto
    observed: Observed
    numbers: Mapping[Node, int]
    operands: Mapping[Node, Sequence[Node | None]]
    named: Mapping[Node, str]
    places: Mapping[str, Place]
    read_by_count: frozenset[int] = field(default_factory=frozenset)

    def proto(self, node: Node) -> onnx.NodeProto:
        """Return the operator that a call came from."""
        found: onnx.NodeProto = self.model.graph.node[self.numbers[node]]
        return found

"""What a written file holds, whatever its form: what the checks of a file compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunec.cost import Cost


@dataclass(frozen=True)
class Operation:
    """One operation of a file's graph, as it is compared: what it is called does not count.

    Attributes:
        name: of the node.
        layer: the tensor of the network that it reads, or that the node before it does.
        operator: what it does.
        reads: what it reads: a tensor of the network, an input, a constant by its contents, or the
            place in the graph of the operation that makes it.
        options: its attributes as text.
    """

    name: str
    layer: str
    operator: str
    reads: tuple[str, ...]
    options: Mapping[str, str]


@dataclass(frozen=True)
class Graph:
    """What a file computes.

    Attributes:
        opset: the version of its operators.
        operations: in order; the last one stands for the outputs.
        made_with: versions of the libraries that wrote it.
    """

    opset: int
    operations: tuple[Operation, ...]
    made_with: str


@dataclass(frozen=True)
class Written:
    """A file as it was read back; None stands for what its form does not keep.

    Attributes:
        inputs: name → sizes of each input, in order; a dynamic size is its name.
        outputs: names of the outputs, in order.
        metadata: what the file says of itself.
        weights: tensor name of the network → its values.
        cost: of one sample, counted over the file's own graph; operators whose MACs are not known
            are named in it.
        uncounted: why ``cost`` is None although the form can be counted.
        graph_digest: sha256 of everything that computes but is no weight.
        graph: what it computes, operation by operation.
    """

    inputs: Mapping[str, tuple[str | int, ...]] | None = None
    outputs: tuple[str, ...] | None = None
    metadata: Mapping[str, str] | None = None
    weights: Mapping[str, np.ndarray] | None = None
    cost: Cost | None = None
    uncounted: str = ""
    graph_digest: str | None = None
    graph: Graph | None = None

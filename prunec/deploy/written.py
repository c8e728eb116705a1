"""Content of a written file, in a form common to all exporters, for the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunec.cost import Cost


@dataclass(frozen=True)
class WrittenOperation:
    """One operation of a file's graph in comparable form; its name does not count.

    Attributes:
        name: name of the node.
        layer: tensor of the network that it, or the node before it, reads.
        operator: operator of the node.
        reads: operands: a tensor of the network, an input, a constant by content, or the position
            in the graph of the operation that makes it.
        options: attributes as text.
    """

    name: str
    layer: str
    operator: str
    reads: tuple[str, ...]
    options: Mapping[str, str]


@dataclass(frozen=True)
class WrittenGraph:
    """Operations of a file.

    Attributes:
        opset: version of the operators.
        operations: operations in order; the last one stands for the outputs.
        made_with: versions of the libraries that wrote the file.
    """

    opset: int
    operations: tuple[WrittenOperation, ...]
    made_with: str


@dataclass(frozen=True)
class Written:
    """Content of a file; None for parts that its form does not store.

    Attributes:
        inputs: name → sizes of each input, in order; a dynamic size is given by name.
        outputs: names of the outputs, in order.
        metadata: metadata of the file.
        weights: tensor name of the network → values.
        cost: cost of one sample, counted over the file's own graph; lists operators with unknown
            MACs.
        uncounted: why ``cost`` is None although the form can be counted.
        graph_digest: sha256 of the graph without weights.
        graph: operations of the file.
    """

    inputs: Mapping[str, tuple[str | int, ...]] | None = None
    outputs: tuple[str, ...] | None = None
    metadata: Mapping[str, str] | None = None
    weights: Mapping[str, np.ndarray] | None = None
    cost: Cost | None = None
    uncounted: str = ""
    graph_digest: str | None = None
    graph: WrittenGraph | None = None

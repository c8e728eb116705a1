"""A captured network: nodes in the order of computation, and the tensors that it stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.capture.other_lengths import Fixed


@dataclass(frozen=True)
class Captured:
    """A captured network.

    Attributes:
        nodes: in the order of computation; the last is the output.
        state: name → every parameter and buffer that persists, read or not.
        outputs: what the network returned for the example, flat.
        source: the front end's own graph, for its writer alone.
        lengths: finds the axes of its inputs that have one length only, if the nodes of some names
            are written otherwise.
    """

    nodes: tuple[Node, ...]
    state: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]
    source: Any
    lengths: Callable[[frozenset[str]], tuple[Fixed, ...]] = lambda _written_otherwise: ()

    def readers(self, name: str) -> set[Node]:
        """Return the calls that read a stored tensor."""
        return self._readers.get(name, set())

    def held_by(self, path: str) -> set[str]:
        """Return the names of what is read of a module and of the modules inside it."""
        return self._held.get(path, set())

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        """Every parameter, buffer and constant that a node stands for, by its name."""
        return {node.stored: node.tensor for node in self.nodes if node.tensor is not None}

    @cached_property
    def _held(self) -> dict[str, set[str]]:
        held: dict[str, set[str]] = {}
        for name in self._readers:
            path = name
            while path := path.rpartition(".")[0]:
                held.setdefault(path, set()).add(name)
        return held

    @cached_property
    def _readers(self) -> dict[str, set[Node]]:
        readers: dict[str, set[Node]] = {}
        for node in self.nodes:
            if node.kind == "stored":
                readers.setdefault(node.stored, set()).update(node.users)
        return readers

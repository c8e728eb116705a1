"""Captured network: nodes in the order of computation, and the stored tensors."""

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
    """Captured network.

    Attributes:
        nodes: nodes in the order of computation; the last is the output.
        state: name → every parameter and buffer that persists, read or not.
        outputs: flat outputs for the example.
        source: the front end's graph, used by its writer only.
        lengths: function of the names of nodes that are written otherwise; returns the input axes
            that are fixed at one length.
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
        """Return the names of the read tensors of a module and of the modules inside it."""
        return self._held.get(path, set())

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        """Name → parameter, buffer or constant that a node stands for."""
        return {node.stored: node.tensor for node in self.nodes if node.tensor is not None}

    @cached_property
    def _held(self) -> dict[str, set[str]]:
        held: dict[str, set[str]] = {}
        for name in self._readers:
            path = name
            # A tensor belongs to its module and to all modules around that one.
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

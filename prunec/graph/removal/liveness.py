"""Liveness of channels, from the outputs backwards, and whole values that are constants.

A channel is live if a reader has a non-zero weight for it, or if it reaches the network's output. A
value whose live channels are all constant, and that only enters element-wise arithmetic with
another value, is *frozen*: the constants replace it, and its computation is removed.

See docs/glossary.md: dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.operator import Known
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights


@dataclass
class Liveness:
    """Live positions of every layout (bool, in the layout's shape) and frozen nodes."""

    live: dict[Node, Tensor] = field(default_factory=dict)
    frozen: set[Node] = field(default_factory=set)

    def mark(self, node: Node, live: Tensor) -> None:
        """Mark positions; ``live`` broadcasts against the node's layout."""
        if node not in self.live:
            return
        layout = self.live[node]
        lead = live.dim() - layout.dim()
        if lead > 0:
            live = live.flatten(0, lead - 1).any(0) if layout.dim() else live.any()
        elif lead < 0:
            live = live.reshape([1] * -lead + list(live.shape))
        for axis in range(layout.dim()):
            if layout.shape[axis] == 1 and live.shape[axis] > 1:
                live = live.any(axis, keepdim=True)
        self.live[node] = layout | live

    def filters(self, uses: Sequence[Kernel]) -> Tensor:
        """Return whether each filter of a kernel is read at any of its uses, bool (O,)."""
        if any(kernel.node in self.frozen for kernel in uses):
            return torch.ones(len(uses[0].outputs), dtype=torch.bool)
        return torch.stack([self.live[kernel.node].reshape(-1) for kernel in uses]).any(0)


def find_live(structure: Structure, weights: Weights, known: Known) -> Liveness:
    """Return the liveness of all values, walking from the outputs to the inputs."""
    result = Liveness()
    computed = _computed(structure)
    for node, layout in structure.layouts.items():
        result.live[node] = torch.zeros(layout.shape, dtype=torch.bool)
    for source in structure.captured.nodes[-1].operands:
        result.mark(source, torch.ones((), dtype=torch.bool))
    for node, operator in reversed(structure.operators.items()):
        if node in computed and _is_frozen(structure, node, known, result):
            result.frozen.add(node)
        else:
            live = result.live.get(node, torch.ones((), dtype=torch.bool))
            operator.read(live, known, weights, result.mark)
    return result


def _computed(structure: Structure) -> set[Node]:
    """Return nodes that depend on an input; the others are the network's own parameters."""
    computed: set[Node] = set()
    for node in structure.captured.nodes:
        if node.kind == "input" or any(source in computed for source in node.operands):
            computed.add(node)
    return computed


def _is_frozen(structure: Structure, node: Node, known: Known, result: Liveness) -> bool:
    live = result.live.get(node)
    # Only live channels must be known: the others are removed anyway.
    if live is None or not bool(live.any()) or bool((live & known[node].isnan()).any()):
        return False
    return all(
        user in result.frozen or _takes_constant(structure, user, node, result)
        for user in node.users
    )


def _takes_constant(structure: Structure, user: Node, node: Node, result: Liveness) -> bool:
    operator = structure.operators.get(user)
    if operator is None or not operator.takes_constants:
        return False
    return any(
        other is not node
        and other not in result.frozen
        and other.kind == "call"
        and other.is_tensor
        # Another operand must give the result its shape; a frozen constant may be broadcast.
        and other.shape == user.shape
        for other in user.operands
    )

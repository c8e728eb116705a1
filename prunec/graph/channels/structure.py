"""What the analysis of a captured network finds: layouts, operators, slices, pins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from prunec.graph.capture.captured import Captured
from prunec.graph.capture.node import Node
from prunec.graph.channels.operator import Operator

Some = TypeVar("Some", bound=Operator)


@dataclass(frozen=True)
class Shuffle:
    """A run of moves that, seen from its ends, permutes the channels of ``entry`` on ``axis``."""

    entry: Node
    axis: int
    index: Tensor


@dataclass
class Structure:
    """What :func:`prunec.graph.channels.analyse.analyse` finds.

    Attributes:
        captured: the network.
        layouts: node → atoms.
        operators: call → what it means for channels, in the order of computation.
        slices: (parameter or buffer, axis) → atom of each index along that axis.
        shuffles: node → the permutation it ends; the nodes inside are in ``virtual``.
        even: sets of atoms, one tensor a set, of which equally many must stay, and one at least.
        pins: atom → why it must stay.
        classes: atom → representative of the atoms joined with it.
    """

    captured: Captured
    layouts: dict[Node, Tensor] = field(default_factory=dict)
    operators: dict[Node, Operator] = field(default_factory=dict)
    slices: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    shuffles: dict[Node, Shuffle] = field(default_factory=dict)
    virtual: set[Node] = field(default_factory=set)
    even: list[tuple[Tensor, ...]] = field(default_factory=list)
    pins: dict[int, str] = field(default_factory=dict)
    classes: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))

    def of(self, family: type[Some]) -> dict[Node, Some]:
        """Return the calls of one family, in the order of computation."""
        return {n: op for n, op in self.operators.items() if isinstance(op, family)}

    def class_of(self, atoms: Tensor) -> Tensor:
        """Return the class of each atom."""
        return self.classes[atoms]

    def pinned(self) -> dict[int, str]:
        """Return class → the first reason why it must stay."""
        reasons: dict[int, str] = {}
        for atom in sorted(self.pins):
            reasons.setdefault(int(self.classes[atom]), self.pins[atom])
        return reasons

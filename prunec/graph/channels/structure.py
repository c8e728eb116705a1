"""Result of the analysis of a captured network: layouts, operators, slices, pins.

See docs/glossary.md: atom, pinned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from prunec.graph.capture.captured import Captured
from prunec.graph.capture.node import Node
from prunec.graph.channels.operator import Operator

Some = TypeVar("Some", bound=Operator)


@dataclass(frozen=True)
class Shuffle:
    """A run of moves that, from end to end, permutes the channels of ``entry`` on ``axis``."""

    entry: Node
    axis: int
    index: Tensor


@dataclass
class Structure:
    """Result of :func:`prunec.graph.channels.analyse.analyse`.

    Attributes:
        captured: the network.
        layouts: node → atoms.
        operators: call → its channel semantics, in the order of computation.
        slices: (parameter or buffer, axis) → atom of each index along that axis.
        shuffles: last node of a run of moves → its permutation.
        virtual: nodes inside such runs.
        even: tuples of sets of atoms that must keep equal counts, at least 1 each or none at all.
        projected: (units, outputs) of recurrent cells with a projection: fewer outputs than units
            must stay, at least 1, or the whole cell goes.
        pins: atom → reason why it must stay.
        classes: atom → representative of the atoms joined with it.
    """

    captured: Captured
    layouts: dict[Node, Tensor] = field(default_factory=dict)
    operators: dict[Node, Operator] = field(default_factory=dict)
    slices: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    shuffles: dict[Node, Shuffle] = field(default_factory=dict)
    virtual: set[Node] = field(default_factory=set)
    even: list[tuple[Tensor, ...]] = field(default_factory=list)
    projected: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    pins: dict[int, str] = field(default_factory=dict)
    classes: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))
    _atoms: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), repr=False)

    def of(self, family: type[Some]) -> dict[Node, Some]:
        """Return the calls of one family, in the order of computation."""
        return {n: op for n, op in self.operators.items() if isinstance(op, family)}

    def class_of(self, atoms: Tensor) -> Tensor:
        """Return the class of each atom."""
        return self.classes[atoms]

    def pinned(self) -> dict[int, str]:
        """Return class → the first reason why it must stay."""
        atoms = self._pinned_atoms().flip(0)  # the dict keeps the last entry: the first atom's
        reasons = map(self.pins.__getitem__, atoms.tolist())
        return dict(zip(self.classes[atoms].tolist(), reasons, strict=True))

    def pinned_classes(self) -> Tensor:
        """Return the classes that must stay."""
        classes: Tensor = torch.unique(self.classes[self._pinned_atoms()])
        return classes

    def _pinned_atoms(self) -> Tensor:
        """Return the pinned atoms, ascending.

        Cached by their number: atoms are never unpinned, so an equal number means equal atoms.
        """
        if len(self._atoms) != len(self.pins):
            atoms: Tensor = torch.from_numpy(np.fromiter(self.pins, np.int64))
            self._atoms = torch.sort(atoms).values
        return self._atoms

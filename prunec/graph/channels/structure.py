"""What the analysis of a captured network finds: layouts, operators, slices, pins."""

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
        projected: two sets of atoms, the units and the outputs of a cell that projects: fewer
            outputs than units must stay, and one at least, or it is gone whole.
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
        atoms = self._pinned_atoms().flip(0)  # so that the first of a class is the last word
        reasons = map(self.pins.__getitem__, atoms.tolist())
        return dict(zip(self.classes[atoms].tolist(), reasons, strict=True))

    def pinned_classes(self) -> Tensor:
        """Return the classes that must stay."""
        classes: Tensor = torch.unique(self.classes[self._pinned_atoms()])
        return classes

    def _pinned_atoms(self) -> Tensor:
        """The pinned atoms, ascending; atoms are pinned for good, so that more of them are new."""
        if len(self._atoms) != len(self.pins):
            atoms: Tensor = torch.from_numpy(np.fromiter(self.pins, np.int64))
            self._atoms = torch.sort(atoms).values
        return self._atoms

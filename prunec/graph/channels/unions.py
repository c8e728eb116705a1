"""Union–find over integers: atoms that must be cut together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Unions:
    """Sets of atoms, each named by its smallest; atom 0 is never joined with another."""

    def __init__(self) -> None:
        self._parent: list[int] = [0]

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Tensor:
        """New atoms, shape (count,)."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, atom: int) -> int:
        """The name of an atom's set."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def join(self, left: Tensor, right: Tensor) -> list[int]:
        """Join two tensors of atoms of one shape, position by position.

        Returns:
            The atoms that met atom 0, which were not joined.
        """
        left, right = left.reshape(-1), right.reshape(-1)
        unlike = left != right
        if not bool(unlike.any()):
            return []
        base = len(self._parent)
        pairs = torch.unique(left[unlike] * base + right[unlike])
        alone = []
        for a, b in zip((pairs // base).tolist(), (pairs % base).tolist(), strict=True):
            if a == 0 or b == 0:
                alone.append(a + b)
                continue
            a, b = self.find(a), self.find(b)
            self._parent[max(a, b)] = min(a, b)
        return alone

    def names(self, atoms: Tensor) -> Tensor:
        """The names of the sets of a tensor of atoms, in its shape."""
        found, inverse = torch.unique(atoms, return_inverse=True)
        if len(found) > len(self._parent) // 8:
            return self.classes()[atoms]
        return torch.tensor([self.find(a) for a in found.tolist()])[inverse]

    def classes(self) -> Tensor:
        """The name of every atom's set, by atom."""
        parent = torch.from_numpy(np.array(self._parent))
        while not torch.equal(above := parent[parent], parent):
            parent = above
        return parent

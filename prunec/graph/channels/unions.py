"""Union–find over integers: sets of atoms that must be cut together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Unions:
    """Disjoint sets of atoms, named by their smallest member; atom 0 is never joined."""

    def __init__(self) -> None:
        self._parent: list[int] = [0]

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Tensor:
        """Return new atoms, shape (count,)."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, atom: int) -> int:
        """Return the name of an atom's set, halving the path to it (Tarjan & van Leeuwen, 1984)."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def join(self, left: Tensor, right: Tensor) -> list[int]:
        """Join two tensors of atoms of one shape, position by position.

        Returns:
            The atoms that met atom 0 and were not joined.
        """
        left, right = left.reshape(-1), right.reshape(-1)
        unlike = left != right
        if not bool(unlike.any()):
            return []
        base = len(self._parent)
        # One integer per pair: unique over one axis is much faster than over pairs.
        pairs = torch.unique(left[unlike] * base + right[unlike])
        alone = []
        for a, b in zip((pairs // base).tolist(), (pairs % base).tolist(), strict=True):
            if a == 0 or b == 0:
                alone.append(a + b)
                continue
            a, b = self.find(a), self.find(b)
            # The smallest atom names the set, so names do not depend on the order of joins.
            self._parent[max(a, b)] = min(a, b)
        return alone

    def names(self, atoms: Tensor) -> Tensor:
        """Return the names of the sets of a tensor of atoms, in its shape."""
        distinct, inverse = torch.unique(atoms, return_inverse=True)
        # Above some share of all atoms, resolving every atom as one tensor beats walking them one
        # by one.
        if len(distinct) > len(self._parent) // 8:
            return self.classes()[atoms]
        return torch.tensor([self.find(a) for a in distinct.tolist()])[inverse]

    def classes(self) -> Tensor:
        """Return the name of every atom's set, by atom."""
        parent = torch.from_numpy(np.array(self._parent))
        while not torch.equal(above := parent[parent], parent):
            parent = above
        return parent

"""Groups of grouped kernels with fewer channels than the widest, and channels that serve several.

A channel that two grouped kernels read, as on both sides of a channel shuffle, belongs to a group
of each. If one kernel keeps an additional channel to equalise its groups, a channel that the other
kernel lacks too costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure


class Demands:
    """Every group of every grouped kernel, once for its inputs and once for its outputs.

    Args:
        structure: structure of the captured network.
        kernels: grouped kernels.
    """

    def __init__(self, structure: Structure, kernels: Sequence[Kernel]) -> None:
        self.structure = structure
        blocks = [
            structure.class_of(atoms).reshape(kernel.groups, -1)
            for kernel in kernels
            for atoms in (kernel.inputs, kernel.outputs)
        ]
        sides = torch.tensor([len(block) for block in blocks], dtype=torch.long)
        firsts = sides.cumsum(0) - sides
        self._side = torch.arange(len(blocks)).repeat_interleave(sides)
        places = torch.arange(int(sides.sum()))
        # Sides come in pairs, inputs then outputs, of equally many groups.
        across = torch.where(self._side % 2 == 0, sides[self._side], -sides[self._side])
        self._partner = places + across
        self._classes = torch.cat([b.flatten() for b in blocks]) if blocks else places
        of_blocks = [
            torch.arange(len(block)).repeat_interleave(block.shape[1]) + int(first)
            for block, first in zip(blocks, firsts, strict=True)
        ]
        self._demands = torch.cat(of_blocks) if blocks else places
        self.shared = self._count(torch.ones(len(places), dtype=torch.bool)) > 1

    def unmet(self, keep: Tensor) -> Tensor:
        """Return for each class the number of groups that lack a channel and could take it."""
        widths = torch.zeros(len(self._side), dtype=torch.long)
        widths.index_add_(0, self._demands, keep[self._classes].long())
        widest = torch.zeros(int(self._side[-1]) + 1, dtype=torch.long)
        widest.scatter_reduce_(0, self._side, widths, "amax")
        stays = (widths > 0) | (widths[self._partner] > 0)
        return self._count(stays & (widths < widest[self._side]))

    def _count(self, chosen: Tensor) -> Tensor:
        """Return class → number of the chosen groups that it belongs to."""
        counts = torch.zeros(len(self.structure.classes), dtype=torch.long)
        return counts.index_add_(0, self._classes, chosen[self._demands].long())

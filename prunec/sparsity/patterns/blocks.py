"""R×1: R consecutive output channels share their positions, which are kept or masked together.

    score of a block = Σ_r |w_{R·b + r, i, y, x}|,      r = 0 … R − 1.

Code that computes R output channels at once then reads each input value once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prunec.sparsity.patterns.pattern import Pattern


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of ``unit`` × 1 weights; a block never spans two groups of a convolution."""

    unit: int

    def __str__(self) -> str:
        return f"{self.unit}x1"

    def divides(self, outputs: int, inputs: int) -> bool:
        """See :meth:`Pattern.divides`."""
        return outputs % self.unit == 0

    def restrict(self, scores: Sequence[Tensor], count: int, active: Sequence[Tensor]) -> int:
        """Store the sum of a block's scores at its first weight, and bar its other weights."""
        for kernel in scores:
            block = kernel.view(-1, self.unit, *kernel.shape[1:])
            block[:, 0] = block.sum(1).clamp(min=-1)
            block[:, 1:] = -1
        return count // self.unit

    def complete(self, masks: Sequence[Tensor]) -> None:
        """Copy the mask of the first weight of a block to the others."""
        for mask in masks:
            block = mask.view(-1, self.unit, *mask.shape[1:])
            block[:, 1:] = block[:, :1]

"""N:M: of M neighbours along the input channels, N are kept, at every filter and kernel position.

    level of a weight = rank of its score among its M neighbours + number of active ones.

Weights are chosen level by level; within the last level, by score. So at any count, during a
schedule too, the numbers of kept weights of two groups of M differ by one at most, and at the
final count every group keeps N. A position then takes log2(M) bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.sparsity.patterns.pattern import Pattern

ROUNDED = 1e-6
"""Largest deviation of a density from N/M that counts as rounding: 1 − 2/3 is no exact decimal."""


@dataclass(frozen=True)
class OfGroup(Pattern):
    """``kept`` of every ``size`` neighbours along the input channels."""

    kept: int
    size: int

    @property
    def density(self) -> float:  # type: ignore[override] # derived here, a constant there
        """N/M."""
        return self.kept / self.size

    def __str__(self) -> str:
        return f"{self.kept}:{self.size}"

    def divides(self, outputs: int, inputs: int) -> bool:
        """See :meth:`Pattern.divides`."""
        return inputs % self.size == 0

    def restrict(self, scores: Sequence[Tensor], count: int, active: Sequence[Tensor]) -> int:
        """Make scores of the lower levels the largest, and bar the higher levels.

        The level in which the count ends keeps its scores.
        """
        levels = [self._levels(kernel) for kernel in scores]
        for level, mask in zip(levels, active, strict=False):
            level += self._rows(mask).sum(-1, keepdim=True).to(level.dtype)
        total = sum(kernel.numel() for kernel in scores)
        count = self._to_whole_level(count, total)
        rows = [self._rows(kernel) for kernel in scores]
        # No wait for the device: the number of whole levels stays a tensor.
        sizes = [
            sum(
                (((level == i) & (row >= 0)).sum() for level, row in zip(levels, rows, strict=True))
            )
            for i in range(self.size)
        ]
        whole = (torch.stack([torch.as_tensor(n) for n in sizes]).cumsum(0) <= count).sum()
        for kernel, level in zip(scores, levels, strict=True):
            row = self._rows(kernel)
            top = torch.finfo(kernel.dtype).max
            barred = (row < 0) | (level > whole)
            row.masked_fill_((level < whole) & (row >= 0), top).masked_fill_(barred, -1)
        return count

    def complete(self, masks: Sequence[Tensor]) -> None:
        """Do nothing: weights are chosen one by one."""

    def _rows(self, kernel: Tensor) -> Tensor:
        """Return a view of a kernel, [outputs, groups, …, size]."""
        return kernel.view(len(kernel), -1, self.size, *kernel.shape[2:]).movedim(2, -1)

    def _levels(self, kernel: Tensor) -> Tensor:
        """Return the rank of each score in its row, 0 for the largest; equal scores in order."""
        row = self._rows(kernel)
        ranks = torch.zeros(row.shape, dtype=torch.int16, device=row.device)
        for i in range(self.size):
            one = row[..., i : i + 1]
            ranks += one > row
            ranks[..., i + 1 :] += one == row[..., i + 1 :]
        return ranks

    def _to_whole_level(self, count: int, total: int) -> int:
        """Return the count of whole levels if a count differs from it by rounding only."""
        per_level = total // self.size
        nearest = round(count / per_level) * per_level
        return nearest if abs(count - nearest) <= ROUNDED * total else count

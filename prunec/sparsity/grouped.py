"""Groups of weights of kernels that lie in one memory: a number for each group, sums over groups.

A gate of a channel, or a scale of a filter, is one number for many weights. One operation spreads
the numbers of all groups over their weights, and a few operations sum over every group, whatever
the number of kernels: launches cost a GPU more time than reading the weights twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunec.sparsity.flat import Flat, Values


def filters(flat: Flat) -> Groups:
    """Return the filters of kernels as groups: slices along the first axis, kernel by kernel."""
    counts = [len(weight) for weight in flat.weights]
    numbers = torch.split(torch.arange(sum(counts), device=flat.raw.memory.device), counts)
    shaped = [
        own.view(-1, *[1] * (weight.dim() - 1))
        for own, weight in zip(numbers, flat.weights, strict=True)
    ]
    return Groups(flat, shaped, sum(counts))


class Groups:
    """Groups of the weights of a :class:`Flat`, for the current layout of its kernels.

    Attributes:
        count: number of groups.
        sizes: number of weights of each group.
        spread_out: memory that :meth:`spread` writes.
        moves: number of the layout that the groups are for, see :attr:`Flat.moves`.
    """

    def __init__(self, flat: Flat, numbers: Sequence[Tensor], count: int) -> None:
        """Sort the weights by group; this waits for the device, because it reads values.

        Args:
            flat: kernels in one memory, which must have been settled.
            numbers: for each kernel the group of each weight, broadcasting against the kernel;
                ``count`` for a weight of no group.
            count: number of groups.
        """
        self.flat, self.count, self.moves = flat, count, flat.moves
        device = flat.raw.memory.device
        group = torch.full((flat.length,), count, device=device)
        layout = zip(flat.weights, flat.strides, flat.starts, numbers, strict=True)
        for weight, strides, begin, number in layout:
            group.as_strided(weight.shape, strides, begin).copy_(number.expand(weight.shape))
        order = group.argsort(stable=True)  # weights group by group
        self.sizes = torch.bincount(group, minlength=count + 1)[:count]
        self.ends = self.sizes.cumsum(0)
        self.order = order[: int(self.sizes.sum())].int()
        self.group = group.int()  # half the memory of int64, and half the time to read it
        self.spread_out = flat.room()

    def spread(self, values: Tensor) -> Tensor:
        """Return each weight's number, that of its group, in memory that the next call overwrites.

        Args:
            values: [count]; weights of no group get 1.
        """
        out = self.spread_out.memory
        known = torch.cat([values, values.new_ones(1)]).to(out.dtype)
        return torch.index_select(known, 0, self.group, out=out)

    def sums(self, memory: Tensor) -> Tensor:
        """Return the sum over each group of a memory laid out as the weights, float64 [count].

        The sums are differences of running sums, which float64 holds to 1e-16 of the whole. They
        need no atomic additions, which would write many values to one place.
        """
        running = memory.index_select(0, self.order).double().cumsum(0)
        # An empty group ends where the group before it ends; if it is the first, at 0.
        before = torch.cat([running.new_zeros(1), running])
        return torch.diff(before.index_select(0, self.ends), prepend=running.new_zeros(1))

    def products(self, room: Values, gradients: Sequence[Tensor]) -> Tensor:
        """Return Σ W·∂L/∂W over each group, float64 [count].

        Args:
            room: memory that is overwritten.
            gradients: gradient of each kernel.
        """
        torch._foreach_copy_(room.parts, list(gradients))
        return self.sums(room.memory.mul_(self.flat.raw.memory))

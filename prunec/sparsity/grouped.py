"""Groups of weights of kernels that lie in one memory: a number for each, and sums over each.

Gates of a channel and scales of a filter are one number for many weights. One operation spreads the
numbers of all groups over all weights, and a few sum up what belongs to each group, whatever the
number of kernels: a GPU waits for launches, not for the weights that it reads twice.
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
    """Groups of the weights of a :class:`Flat`, laid out as its kernels lie now.

    Attributes:
        count: number of groups.
        sizes: number of weights of each group.
        spread_out: what :meth:`spread` wrote last.
        moves: layout of the kernels that the groups are of, see :attr:`Flat.moves`.
    """

    def __init__(self, flat: Flat, numbers: Sequence[Tensor], count: int) -> None:
        """Lay the groups out; reads values, so that it waits for the device.

        Args:
            flat: kernels in one memory, which must have been settled.
            numbers: group of each weight of each kernel, broadcasting against the kernel; ``count``
                for a weight of no group.
            count: number of groups.
        """
        self.flat, self.count, self.moves = flat, count, flat.moves
        device = flat.raw.memory.device
        group = torch.full((flat.length,), count, device=device)
        layout = zip(flat.weights, flat.strides, flat.starts, numbers, strict=True)
        for weight, strides, begin, number in layout:
            group.as_strided(weight.shape, strides, begin).copy_(number.expand(weight.shape))
        order = group.argsort(stable=True)  # the weights of a group one after the other
        self.sizes = torch.bincount(group, minlength=count + 1)[:count]
        self.ends = self.sizes.cumsum(0)
        self.order = order[: int(self.sizes.sum())].int()
        self.group = group.int()  # half the memory of int64, and half the time to read it
        self.spread_out = flat.room()

    def spread(self, values: Tensor) -> Tensor:
        """Return its group's number at each weight, in memory that every call writes anew.

        Args:
            values: [count]; 1 holds for weights of no group.
        """
        out = self.spread_out.memory
        known = torch.cat([values, values.new_ones(1)]).to(out.dtype)
        return torch.index_select(known, 0, self.group, out=out)

    def sums(self, memory: Tensor) -> Tensor:
        """Return the sum over each group of a memory of the weights, float64 [count].

        Differences of running sums: float64 leaves them exact to 1e-16 of the whole, and no two
        groups write to one place, as atomic additions would.
        """
        running = memory.index_select(0, self.order).double().cumsum(0)
        # An empty group ends where the one before it does; before the first there is nothing.
        before = torch.cat([running.new_zeros(1), running])
        return torch.diff(before.index_select(0, self.ends), prepend=running.new_zeros(1))

    def products(self, room: Values, gradients: Sequence[Tensor]) -> Tensor:
        """Return Σ W·∂L/∂W over each group, float64 [count].

        Args:
            room: memory whose values are lost.
            gradients: of each kernel.
        """
        torch._foreach_copy_(room.parts, list(gradients))
        return self.sums(room.memory.mul_(self.flat.raw.memory))

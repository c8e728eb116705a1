"""Parameters and buffers of a network, as folding of constants changes them.

Every value reads as float64, in which constants are computed. Where few kernels read constants, the
conversion costs more than the whole search for dead channels, so it is delayed until a value is
read; :meth:`Weights.reads` does without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Protocol

import torch
from torch import Tensor


class HasMatrix(Protocol):
    """A use of a weight that can be viewed as (groups, O/groups, I/groups, taps)."""

    @property
    def weight(self) -> str:
        """Name of the weight."""

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weight in that form."""


class Weights(MutableMapping[str, Tensor]):
    """Parameter or buffer name → value, float64 where floating; assignment replaces a value."""

    def __init__(self, stored: Mapping[str, Tensor]) -> None:
        self._stored = {name: value.detach() for name, value in stored.items()}
        self._reads: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        value = self._stored[name]
        if value.is_floating_point() and value.dtype != torch.float64:
            value = self._stored[name] = value.to(torch.float64)
        return value

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._stored[name] = value
        self._reads.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self._stored[name]
        self._reads.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def stored(self, name: str) -> Tensor:
        """Return a value in its current type: the network's own, or float64."""
        return self._stored[name]

    def all_stored(self) -> dict[str, Tensor]:
        """Return every value in its current type."""
        return dict(self._stored)

    def matrix(self, kernel: HasMatrix) -> Tensor:
        """Return a kernel as (groups, O/groups, I/groups, taps), in its current type."""
        return kernel.matrix(self._stored[kernel.weight])

    def taps(self, kernel: HasMatrix) -> int:
        """Return the number of taps of a kernel: positions read per pair of channels."""
        return math.prod(self._stored[kernel.weight].shape[2:])

    def reads(self, kernel: HasMatrix) -> Tensor:
        """Return whether each output reads each input: bool (groups, O/groups, I/groups)."""
        reads = self._reads.get(kernel.weight)
        if reads is None:
            taps = self.matrix(kernel) != 0
            reads = taps.squeeze(-1) if taps.shape[-1] == 1 else taps.any(-1)
            self._reads[kernel.weight] = reads
        return reads

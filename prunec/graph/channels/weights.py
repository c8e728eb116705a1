"""The parameters and buffers of a network as the constants change them.

Every value reads as float64, in which constants are computed. Conversion costs more than the whole
search for dead channels where most kernels take no constant in, so it waits until a value is asked
for; which channels a kernel reads can be said without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

import torch
from torch import Tensor

from prunec.graph.channels.operators.kernels import as_matrix
from prunec.graph.channels.structure import Kernel


class Weights(MutableMapping[str, Tensor]):
    """Parameter or buffer name → its value, float64 where floating; what is set replaces it."""

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
        """A value in the type it has now: the network's own, or float64."""
        return self._stored[name]

    def all_stored(self) -> dict[str, Tensor]:
        """Every value in the type it has now."""
        return dict(self._stored)

    def matrix(self, kernel: Kernel) -> Tensor:
        """A kernel as (groups, O/groups, I/groups, taps), in the type it has now."""
        return as_matrix(kernel, self._stored[kernel.weight])

    def reads(self, kernel: Kernel) -> Tensor:
        """Whether an output of a kernel reads an input: bool of (groups, O/groups, I/groups)."""
        found = self._reads.get(kernel.weight)
        if found is None:
            found = self._reads[kernel.weight] = (self.matrix(kernel) != 0).any(-1)
        return found

"""Kernels with raw weights for the optimizer and effective weights for the network, without
copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from prunec.sparsity.flat import Flat, Values
from prunec.sparsity.grouped import Groups, filters


class ShownKernels:
    """Raw weights W, and the effective weights that the network computes with.

    A parameter holds W for the optimizer, and another tensor between :meth:`show` and :meth:`hide`:
    forward and backward use that one, and its gradient goes to the parameter.

    Attributes:
        flat: W, as of the last :meth:`fetch`.
        names: names of the parameters.
        weights: parameters.
        room: memory of the effective weights, laid out like W.
    """

    def __init__(self, kernels: Mapping[str, Tensor]) -> None:
        self.flat = Flat(kernels)
        self.names, self.weights = self.flat.names, self.flat.weights
        self.room: Values = self.flat.room()
        self.moves = self.flat.moves
        self.visible = False
        self.groups: Groups | None = None

    @property
    def raw(self) -> list[Tensor]:
        """W of each kernel."""
        return self.flat.raw.parts

    @property
    def shown(self) -> list[Tensor]:
        """Effective weights of each kernel."""
        return self.room.parts

    def fetch(self) -> None:
        """Locate W, which moves if the network's memory format changes."""
        self.hide()
        self.flat.settle()
        if self.moves != self.flat.moves:
            self.room, self.moves = self.flat.room(), self.flat.moves

    def filters(self) -> Groups:
        """Return the filters as groups of weights, laid out as the kernels lie now."""
        if self.groups is None or self.groups.moves != self.flat.moves:
            self.groups = filters(self.flat)
        return self.groups

    def show(self) -> None:
        """Swap the effective weights in."""
        self.visible = True
        self._swap_in(self.shown)

    def hide(self) -> None:
        """Swap the raw weights back in."""
        if self.visible:
            self.visible = False
            self._swap_in(self.raw)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Swap the latest effective weights in for the block."""
        before = self.visible
        self.show()
        try:
            yield
        finally:
            if not before:
                self.hide()

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the kernels."""
        return self.flat.gradients()

    def _swap_in(self, tensors: list[Tensor]) -> None:
        for weight, tensor in zip(self.weights, tensors, strict=True):
            weight.data = tensor

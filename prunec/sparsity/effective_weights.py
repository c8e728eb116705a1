"""Kernels that show the network other values than the optimizer moves; nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from prunec.sparsity.flat import Flat, Values


class ShownKernels:
    """Raw weights W, and what the network computes with in their place.

    A parameter holds W while the optimizer has it, and another tensor from :meth:`show` to
    :meth:`hide`: forward and backward see that one, and leave their gradient to the parameter.

    Attributes:
        flat: W, as of the last :meth:`fetch`.
        names: of the parameters.
        weights: the parameters.
        room: memory of what is shown, laid out as W.
    """

    def __init__(self, kernels: Mapping[str, Tensor]) -> None:
        self.flat = Flat(kernels)
        self.names, self.weights = self.flat.names, self.flat.weights
        self.room: Values = self.flat.room()
        self.moves = self.flat.moves
        self.visible = False

    @property
    def raw(self) -> list[Tensor]:
        """W of each kernel."""
        return self.flat.raw.parts

    @property
    def shown(self) -> list[Tensor]:
        """What is shown of each kernel, or will be."""
        return self.room.parts

    def fetch(self) -> None:
        """Find W where it lies now; it may have moved with the network's memory format."""
        self.hide()
        self.flat.settle()
        if self.moves != self.flat.moves:
            self.room, self.moves = self.flat.room(), self.flat.moves

    def show(self) -> None:
        """Let the parameters be what is shown."""
        self.visible = True
        self._be(self.shown)

    def hide(self) -> None:
        """Let the parameters be W again."""
        if self.visible:
            self.visible = False
            self._be(self.raw)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show what was computed last while the block runs."""
        before = self.visible
        self.show()
        try:
            yield
        finally:
            if not before:
                self.hide()

    def gradients(self) -> list[Tensor]:
        """Return the kernels' gradients."""
        return self.flat.gradients()

    def _be(self, tensors: list[Tensor]) -> None:
        for weight, tensor in zip(self.weights, tensors, strict=True):
            weight.data = tensor

"""Kernels that show the network other values than the optimizer moves; nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class ShownKernels:
    """Raw weights W, and what the network computes with in their place.

    A parameter holds W while the optimizer has it, and another tensor from :meth:`show` to
    :meth:`hide`: forward and backward see that one, and leave their gradient to the parameter.

    Attributes:
        names: of the parameters.
        weights: the parameters.
        raw: W, as of the last :meth:`fetch`.
        shown: memory of what is shown, same shapes.
    """

    def __init__(self, kernels: Mapping[str, Tensor]) -> None:
        self.names = tuple(kernels)
        self.weights = list(kernels.values())
        self.raw: list[Tensor] = []
        self.shown: list[Tensor] = []
        self.visible = False

    def fetch(self) -> None:
        """Find W where it lies now; it may have moved with the network's memory format."""
        self.hide()
        self.raw = [w.data for w in self.weights]
        same = zip(self.raw, self.shown, strict=False)
        if len(self.shown) != len(self.raw) or any(a.stride() != b.stride() for a, b in same):
            self.shown = [torch.empty_like(w) for w in self.raw]

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
        found = [w.grad for w in self.weights]
        return [g if g is not None else torch.zeros_like(w)
                for g, w in zip(found, self.weights, strict=True)]  # fmt: skip

    def _be(self, tensors: list[Tensor]) -> None:
        for weight, tensor in zip(self.weights, tensors, strict=True):
            weight.data = tensor

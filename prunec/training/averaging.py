"""The exponential moving average of the weights, which ships in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """W̄ ← decay·W̄ + (1 − decay)·W after every step, for parameters and floating buffers.

    Without decay it holds nothing. Early steps count more, as if the average had begun with them:
    decay is at most (1 + t)/(10 + t) at step t.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        held = {**dict(model.named_parameters()), **dict(model.named_buffers())} if decay else {}
        floating = {name: x for name, x in held.items() if x.is_floating_point()}
        self.weights: list[Tensor] = list(floating.values())  # themselves: their memory may move
        self.values = {name: x.detach().clone() for name, x in floating.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they stand after ``step``, from 0."""
        if self.values:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.values.values()), self.weights, 1 - decay)

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Let the network hold the average while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def ship(self) -> None:
        """Let the network hold the average for good."""
        if self.values:
            torch._foreach_copy_(self.weights, list(self.values.values()))

    @torch.no_grad()
    def _swap(self) -> None:
        if self.values:
            averages = list(self.values.values())
            kept = torch._foreach_mul(averages, 1)
            torch._foreach_copy_(averages, self.weights)
            torch._foreach_copy_(self.weights, kept)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take back what ``values`` held."""
        for name, value in self.values.items():
            value.copy_(values[name])

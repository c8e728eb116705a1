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
        device = self.weights[0].device if self.weights else None
        self.share = torch.zeros((), device=device)  # 1 − decay, which recorded steps read

    def decay_at(self, step: int) -> float:
        """Return the decay of a step, from 0."""
        return min(self.decay, (1 + step) / (10 + step))

    def prepare(self, step: int) -> None:
        """Let :meth:`take_in` do what :meth:`update` would do after ``step``."""
        if self.values:
            self.share.fill_(1 - self.decay_at(step))

    @torch.no_grad()
    def take_in(self) -> None:
        """Take in the weights as they stand, in operations that can be recorded."""
        if self.values:
            averages = list(self.values.values())
            steps = torch._foreach_sub(self.weights, averages)
            torch._foreach_mul_(steps, self.share)
            torch._foreach_add_(averages, steps)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they stand after ``step``, from 0."""
        if self.values:
            share = 1 - self.decay_at(step)
            torch._foreach_lerp_(list(self.values.values()), self.weights, share)

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

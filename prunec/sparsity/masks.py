"""Masks over kernels: applied to all kernels at once, changed one kernel after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from prunec.sparsity.largest import largest, largest_of_all


class Masks:
    """Kernels W and their masks M ∈ {0, 1}, which W ← M ⊙ W keeps.

    Attributes:
        names: of the parameters.
        weights: the parameters.
        values: the masks, in the weights' dtype: a product of floats is the fastest way to mask.
    """

    def __init__(self, kernels: Mapping[str, Tensor]) -> None:
        self.names = tuple(kernels)
        self.weights = list(kernels.values())
        self.values = [torch.ones_like(w, requires_grad=False) for w in self.weights]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The kernels' shapes."""
        return [tuple(w.shape) for w in self.weights]

    @property
    def total(self) -> int:
        """How many weights there are."""
        return sum(prod(shape) for shape in self.shapes)

    def align(self) -> None:
        """Lay the masks out as the kernels lie, which may have moved: the product needs it."""
        for i, (weight, mask) in enumerate(zip(self.weights, self.values, strict=True)):
            if weight.stride() != mask.stride():
                self.values[i] = torch.empty_like(weight, requires_grad=False).copy_(mask)

    def counts(self) -> list[int]:
        """Return how many weights of each kernel stay; one wait for the device."""
        return _counted(self.values)

    def gradients(self) -> list[Tensor]:
        """Return the kernels' gradients."""
        found = [w.grad for w in self.weights]
        return [g if g is not None else torch.zeros_like(w)
                for g, w in zip(found, self.weights, strict=True)]  # fmt: skip

    @torch.no_grad()
    def apply(self) -> None:
        """W ← M ⊙ W."""
        torch._foreach_mul_(self.weights, self.values)

    @torch.no_grad()
    def apply_to_gradients(self) -> None:
        """∂L/∂W ← M ⊙ ∂L/∂W."""
        pairs = zip(self.weights, self.values, strict=True)
        known = [(w.grad, m) for w, m in pairs if w.grad is not None]
        torch._foreach_mul_([g for g, _ in known], [m for _, m in known])

    @torch.no_grad()
    def keep_largest(self, counts: Sequence[int]) -> None:
        """Let each kernel keep so many of its largest |w|; what is masked may return."""
        for weight, mask, count in zip(self.weights, self.values, counts, strict=True):
            mask.copy_(largest(weight.abs(), count))

    @torch.no_grad()
    def draw(self, counts: Sequence[int], generator: torch.Generator) -> None:
        """Let each kernel keep so many weights, anywhere."""
        for mask, count in zip(self.values, counts, strict=True):
            mask.copy_(largest(torch.rand(mask.shape, generator=generator, device=mask.device),
                               count))  # fmt: skip

    @torch.no_grad()
    def keep_largest_of_all(self, count: int) -> None:
        """Let the kernels keep so many of their largest |w| together."""
        chosen = largest_of_all([weight.abs() for weight in self.weights], count)
        torch._foreach_copy_(self.values, chosen)

    @torch.no_grad()
    def drop_smallest(self, counts: Sequence[int]) -> None:
        """Mask so many more of each kernel's smallest active |w|."""
        left = [max(have - count, 0) for have, count in zip(self.counts(), counts, strict=True)]
        for weight, mask, count in zip(self.weights, self.values, left, strict=True):
            mask.copy_(largest(torch.where(mask > 0, weight.abs(), -1.0), count))

    @torch.no_grad()
    def grow(
        self,
        counts: Sequence[int],
        scores: Sequence[Tensor],
        barred: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Unmask so many inactive weights of each kernel, those of the largest score.

        An inactive weight is 0, where :meth:`apply` was called since it was masked; one that was
        dropped just now comes back as it was.

        Args:
            counts: how many of each kernel; no more than there are.
            scores: at least 0, of the kernels' shapes.
            barred: masks of what may not grow now, beside what is active.

        Returns:
            masks of what has grown.
        """
        taken = self.values
        if barred is not None:
            taken = [torch.maximum(a, b) for a, b in zip(taken, barred, strict=True)]
        free = [mask.numel() - count for mask, count in zip(taken, _counted(taken), strict=True)]
        grown = [
            largest(torch.where(mask > 0, -1.0, score), min(count, room))
            for mask, score, count, room in zip(taken, scores, counts, free, strict=True)
        ]
        torch._foreach_add_(self.values, grown)
        return grown

    def tensors(self) -> dict[str, Tensor]:
        """Return the masks by their kernels' names."""
        return {f"mask.{name}": mask for name, mask in zip(self.names, self.values, strict=True)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        for name, mask in zip(self.names, self.values, strict=True):
            mask.copy_(tensors[f"mask.{name}"])


def _counted(masks: Sequence[Tensor]) -> list[int]:
    """How many of each are not 0; one wait for the device."""
    counts: list[int] = torch.stack([mask.count_nonzero() for mask in masks]).tolist()
    return counts

"""max(a₁x + b₁, a₂x + b₂) with gradients of its own: what DyReLU computes at every place.

A processor keeps a mask for the way back; a GPU, which waits for memory, computes it again, each
way one kernel where torch can compile one. The plain formula is the reference of both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prunec.sparsity.fused import fused


class Larger(torch.autograd.Function):
    """max(a₁x + b₁, a₂x + b₂); where both are equal the second counts, as in ReLU at 0.

    One mask is kept for the way back, and sums over places are taken once: automatic
    differentiation of the formula goes over x some twenty times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
        """Return the larger one; arguments as of :func:`larger_of`."""
        first, second = torch.addcmul(b1, a1, x), torch.addcmul(b2, a2, x)
        ctx.save_for_backward(x, a1, a2, first > second)
        return torch.maximum(first, second)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x and of the four coefficients."""
        x, a1, a2, larger = ctx.saved_tensors
        first = grad * larger
        b_sum, b1_sum = _over_places(grad), _over_places(first)
        a_sum, a1_sum = _over_places(grad * x), _over_places(first * x)
        sums = a1_sum, a_sum - a1_sum, b1_sum, b_sum - b1_sum
        grad_x = grad * torch.where(larger, a1, a2)
        return grad_x, *(value.to(a1.dtype) for value in sums)


class Recomputed(torch.autograd.Function):
    """The same as :class:`Larger`, each way one pass over x: memory is what a GPU waits for.

    Nothing but x and coefficients is kept: which of both is larger is computed again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
        """Return the larger one; arguments as of :func:`larger_of`."""
        ctx.save_for_backward(x, a1, a2, b1, b2)
        result: Tensor = fused(larger_of)(x, a1, a2, b1, b2)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x and of the four coefficients."""
        slopes: tuple[Tensor, ...] = fused(slopes_of)(grad, *ctx.saved_tensors)
        return slopes


def larger_of(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """Return max(a₁x + b₁, a₂x + b₂)."""
    return torch.maximum(torch.addcmul(b1, a1, x), torch.addcmul(b2, a2, x))


def slopes_of(
    grad: Tensor, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of x and of the four coefficients."""
    larger = torch.addcmul(b1, a1, x) > torch.addcmul(b2, a2, x)
    first, second = grad * larger, grad * ~larger
    sums = first * x, second * x, first, second
    grad_x = grad * torch.where(larger, a1, a2)
    return grad_x, *(_over_places(value).to(a1.dtype) for value in sums)


def _over_places(values: Tensor) -> Tensor:
    """Σ over the axes behind [N, C], which stay; of half precision in float32."""
    places = list(range(2, values.dim()))
    dtype = values.dtype if values.dtype == torch.float64 else torch.float32
    return values.sum(places, keepdim=True, dtype=dtype) if places else values.to(dtype)

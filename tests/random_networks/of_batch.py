"""Uses of the batch size in a forward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def _folded(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.avg_pool2d(x.reshape(n * c, 1, h, w), 3, 1, 1).view(n, c, h, w)


def _ramp(x: Tensor) -> Tensor:
    ramp = torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)
    return x + ramp.expand(x.shape[0], 1, x.shape[2], -1)


OF_BATCH: dict[str, Callable[[Tensor], Tensor]] = {
    "ones": lambda x: x * torch.ones(x.shape[0], 1, 1, 1, dtype=x.dtype),
    "zeros": lambda x: x + x.new_zeros(x.shape[0], x.shape[1], 1, 1),
    "filled": lambda x: x * torch.full((x.size(0), 1, 1, 1), 0.5),
    "filled with its size": lambda x: x * torch.full((len(x), 1, 1, 1), len(x)),
    "less than its size": lambda x: torch.where(x < len(x), x, 0.5 * x.shape[0]),
    "at most its size": lambda x: x.clamp(max=len(x)) + len(x),
    "numbered": lambda x: x + 0.1 * torch.arange(len(x))[:, None, None, None],
    "its size as a factor": lambda x: x * x.shape[0],
    "its root as a divisor": lambda x: x / x.shape[0] ** 0.5,
    "without its mean": lambda x: x - x.mean(0, keepdim=True),
    "without the first": lambda x: x - x[:1],
    "the first as well": lambda x: x + x[0],
    "rolled": lambda x: x.roll(1, 0),
    "turned": lambda x: x.flip(0),
    "folded": _folded,
    "a ramp for each": _ramp,
    "a state for each": lambda x: x + torch.zeros(len(x), x.shape[1], 1, 1, dtype=x.dtype),
    "all as one row": lambda x: x.flatten(0, 1).relu().unflatten(0, (x.shape[0], x.shape[1])),
    "a mask of samples": lambda x: x * (torch.arange(len(x)) < len(x) - 1)[:, None, None, None],
}  # fmt: skip

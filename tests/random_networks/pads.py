"""Constant pads: what is before a convolution, and a border of one pixel in several spellings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

PADS: dict[str, dict[str, object]] = {
    "zeros": {},
    "ones": {"value": 1.0},
    "reflect": {"mode": "reflect"},
    "replicate": {"mode": "replicate"},
}


def _joined(x: Tensor) -> Tensor:
    row = x.new_zeros(x.shape[0], x.shape[1], 1, x.shape[3])
    x = torch.cat([row, x, row], 2)
    return torch.cat([torch.zeros_like(x[..., :1]), x, torch.full_like(x[..., :1], 0.5)], 3)


def _written(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    canvas = torch.full((n, c, h + 2, w + 2), 0.25, dtype=x.dtype)
    canvas[:, :, 1:-1, 1:-1] = x
    return canvas


BORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda x: F.pad(x, (1, 1, 1, 1)),
    "a number": lambda x: F.pad(x, (1, 1, 1, 1), value=0.4),
    "lopsided": lambda x: F.pad(x, (2, 0, 0, 2)),
    "two numbers": lambda x: F.pad(F.pad(x, (1, 1)), (0, 0, 1, 1), value=0.3),
    "a constant and its repetition": lambda x: F.pad(
        F.pad(x, (1, 1)), (0, 0, 1, 1), mode="replicate"
    ),
    "then cropped": lambda x: F.pad(x, (2, 1, 1, 1), value=-0.2)[..., 1:],
    "below every number": lambda x: F.max_pool2d(
        F.pad(x, (2, 2, 2, 2), value=float("-inf")), 3, stride=1
    ),
    "channels too": lambda x: F.pad(x, (1, 1, 1, 1, 1, 0))[:, 1:],
    "joined": _joined,
    "written": _written,
}

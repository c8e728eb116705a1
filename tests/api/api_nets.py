"""Small networks with channels that may go."""

from __future__ import annotations

import torch
from masks import channel_masks, masked
from torch import Tensor, nn
from zoo import ZOO
from zoo.parts import block, head

import prunec

SHARED = ["two-inputs", "two-heads", "dict-output", "grouped"]


def small(width: int = 8) -> nn.Module:
    return nn.Sequential(block(3, width), block(width, 12), head(12, 4)).eval()


EXAMPLE = torch.zeros(2, 3, 8, 8)


def zeroed(name: str, seed: int = 1) -> tuple[nn.Module, tuple[Tensor, ...]]:
    module, example = ZOO[name]()
    masks = channel_masks(module, prunec.groups(module, example), 0.5, "both", seed)
    return masked(module, masks), example

"""Transforms of images together with their masks, with the same random geometry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from prunec.tasks.segmentation import VOID


class WithMask(nn.Module):
    """A torchvision transform for uint8 images [..., C, H, W] and their masks [..., H, W].

    Geometry applies to both, to masks by nearest neighbour; colour applies only to images. Padding
    is unlabelled: torchvision pads with 0, so classes are shifted by 1 inside, and `VOID` is 0.
    """

    def __init__(self, transform: v2.Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return image and mask, transformed."""
        shifted = tv_tensors.Mask(mask - VOID)  # uint8 wraps around: 255 becomes 0, 0 becomes 1
        moved: Any = self.transform(tv_tensors.Image(image), shifted)
        image, mask = (value.as_subclass(torch.Tensor) for value in moved)
        return image, mask + VOID

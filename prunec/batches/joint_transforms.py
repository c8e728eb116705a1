"""Images and their masks through the same random geometry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from prunec.tasks.segmentation import VOID


class WithMask(nn.Module):
    """A transform of torchvision's for uint8 images [..., C, H, W] and their masks [..., H, W].

    What moves pixels moves both, the mask by its nearest neighbour; what changes colours leaves the
    mask alone. Pixels that come from outside have no label: torchvision fills with 0, so classes
    are counted from 1 in here, and `VOID` is 0.
    """

    def __init__(self, transform: v2.Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, transformed."""
        shifted = tv_tensors.Mask(mask - VOID)  # a byte wraps round: 255 becomes 0, 0 becomes 1
        moved: Any = self.transform(tv_tensors.Image(image), shifted)
        image, mask = (value.as_subclass(torch.Tensor) for value in moved)
        return image, mask + VOID

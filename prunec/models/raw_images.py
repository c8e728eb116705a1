"""A network that takes images as cameras and decoders give them: bytes, in either layout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LAYOUTS = ("nhwc", "nchw")


class RawImages(nn.Module):
    """A network behind its own normalisation: (x − 255·mean) / (255·std), channel by channel.

    A difference and a quotient: quantisers leave both in float, and so the image whole.

    Args:
        network: takes float32 [N, C, H, W], normalised.
        mean: of each channel.
        std: of each channel.
        layout: of the bytes that it takes: ``nhwc`` or ``nchw``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], layout: str
    ) -> None:
        super().__init__()
        self.network = network
        self.axes = (0, 3, 1, 2) if layout == "nhwc" else (0, 1, 2, 3)
        kind = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        for name, values in (("mean", mean), ("std", std)):
            in_bytes = 255 * torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)
            self.register_buffer(name, in_bytes.to(kind))
        self.train(network.training)

    def forward(self, images: Tensor) -> object:
        """Return what the network answers to uint8 images of the layout."""
        numbers = images.permute(self.axes).to(self.mean.dtype)
        return self.network((numbers - self.mean) / self.std)


class AsBytes(nn.Module):
    """In place of a normalisation: images [..., C, H, W] as they are, in a layout.

    Args:
        layout: ``nhwc`` or ``nchw``.
    """

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        """Return the same bytes.

        Raises:
            TypeError: they are no bytes any more.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images are {images.dtype} behind their transforms")
        if self.layout == "nchw":
            return images
        moved = images.movedim(-3, -1)
        return moved.flatten().view(moved.shape)  # strides of its own, where an axis has size 1


def bytes_of(images: Tensor, mean: Sequence[float], std: Sequence[float], layout: str) -> Tensor:
    """Return normalised images [N, C, H, W] as the nearest bytes, in a layout."""
    m, s = (torch.tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (mean, std))
    found = ((images.double() * s + m) * 255).round().clamp(0, 255).to(torch.uint8)
    return AsBytes(layout)(found)  # type: ignore[no-any-return]

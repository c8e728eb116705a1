"""Networks that take uint8 images, as cameras and decoders produce them, in either layout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LAYOUTS = ("nhwc", "nchw")


class RawImages(nn.Module):
    """A network with its normalisation inside: (x − 255·mean) / (255·std), per channel.

    Subtraction and division, not a scale and a shift: quantisers leave these two in float, so that
    the image is not quantised.

    Args:
        network: network of normalised images, float32 [N, C, H, W].
        mean: mean per channel, of images from 0 to 1.
        std: standard deviation per channel, likewise.
        layout: layout of the uint8 images: ``nhwc`` or ``nchw``.
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
            # 255: bytes are 255 times the numbers of training; in float64, so that it is rounded
            # once.
            in_bytes = 255 * torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)
            self.register_buffer(name, in_bytes.to(kind))
        self.train(network.training)

    def forward(self, images: Tensor) -> object:
        """Return the network's outputs for uint8 images of the layout."""
        numbers = images.permute(self.axes).to(self.mean.dtype)
        return self.network((numbers - self.mean) / self.std)


class AsBytes(nn.Module):
    """Transform in place of a normalisation: uint8 images [..., C, H, W] in a layout, unchanged.

    Args:
        layout: ``nhwc`` or ``nchw``.
    """

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        """Return the images in the layout.

        Raises:
            TypeError: they are not uint8, because a transform converted them.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images are {images.dtype} after their transforms")
        if self.layout == "nchw":
            return images
        moved = images.movedim(-3, -1)
        return moved.flatten().view(moved.shape)  # canonical strides even for axes of size 1


def bytes_of(images: Tensor, mean: Sequence[float], std: Sequence[float], layout: str) -> Tensor:
    """Undo a normalisation: return images [N, C, H, W] as the nearest uint8, in a layout."""
    m, s = (torch.tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (mean, std))
    rounded = ((images.double() * s + m) * 255).round().clamp(0, 255).to(torch.uint8)
    return AsBytes(layout)(rounded)  # type: ignore[no-any-return]

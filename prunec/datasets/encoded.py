"""JPEGs as they are in their files, for decoders that stand on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prunec.datasets.decoding import JPEG, decode, opened, orientation
from prunec.datasets.pixels import turned
from prunec.datasets.sources import Label

MODES = ("RGB", "L")  # Pillow's: colours and greys that every decoder of JPEGs knows, CMYK is not


@dataclass(frozen=True)
class Encoded:
    """A JPEG whose header was read.

    Attributes:
        content: bytes of the file: between processes each tensor would hold a file open.
        orientation: EXIF's, 1 to 8.
    """

    content: bytes
    orientation: int

    @property
    def buffer(self) -> Tensor:
        """The content as a tensor, uint8 [n]."""
        return torch.frombuffer(bytearray(self.content), dtype=torch.uint8)

    def turned(self, pixels: Tensor) -> Tensor:
        """Return its decoded pixels [3, H, W] as a viewer shows them."""
        return turned(pixels, self.orientation)


class EncodedImages(Protocol):
    """Images that can be read without being decoded."""

    def encoded(self, index: int, /) -> tuple[Encoded | Tensor, Label]:
        """Return an image, as its file has it or decoded, and its label.

        Raises:
            DamagedData: it cannot be read.
        """


def encoded(content: bytes, name: str, most: int) -> Encoded | Tensor:
    """Return a JPEG undecoded, and the pixels [3, H, W] of every other image.

    Args:
        content: bytes of the file.
        name: path of the file, for errors.
        most: largest number of pixels; an image that declares more is refused undecoded.

    Raises:
        DamagedData: as :func:`prunec.datasets.decoding.decode`, but for damage behind the header.
    """
    with opened(content, name, most) as image:
        if image.format in JPEG and image.mode in MODES:
            return Encoded(content, orientation(image))
    return decode(content, name, most)

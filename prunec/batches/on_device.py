"""Decoding and augmentation on the device: workers read bytes, nvJPEG makes them pixels.

A processor's core decodes some six hundred photographs a second, and a GPU learns thousands. The
pixels are nvJPEG's: they differ from libjpeg's by a few units of 255, so that a training by them is
another one. Random numbers are those of the workers' way, each image's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torchvision
from torch import Tensor, nn

from prunec.batches.loading import AUGMENT, Batch, Item, Items, Key, collate, transformed
from prunec.datasets.decoding import decode
from prunec.datasets.encoded import Encoded, EncodedImages
from prunec.datasets.sources import Images, Label
from prunec.errors import DataError, RecipeError
from prunec.recipe.network_and_data import PILLOWS_PIXELS
from prunec.seeding import seeded

Decode = Callable[[list[Tensor]], list[Tensor]]
"""JPEGs, uint8 [n] on the CPU → pixels uint8 [3, H, W] on the device, of all or of none."""
WORKERS = 'data.decode = "workers"'


@dataclass(frozen=True)
class Unread:
    """An image as a worker hands it on, not augmented yet."""

    key: Key
    image: Encoded | Tensor
    label: Label
    name: str


def decodes_there(device: torch.device) -> bool:
    """Return whether a device has a decoder of its own; the CPU's are the workers."""
    return device.type == "cuda"


@dataclass(frozen=True)
class Undecoded(Items):
    """Images in their files' bytes."""

    def __getitem__(self, key: Key) -> Unread | DataError:  # type: ignore[override]
        """Return the image, or the error that reading it raises."""
        _, index = key
        images = readable(self.images)
        try:
            image, label = images.encoded(index)
        except DataError as error:
            return error
        return Unread(key, image, label, self.images.name(index))


def readable(images: Images) -> EncodedImages:
    """Return images that can be read without being decoded.

    Raises:
        RecipeError: these cannot.
    """
    if not hasattr(images, "encoded"):
        raise RecipeError(
            'data.decode = "device" is for classified images in folders and shards',
            remedy=f"Set {WORKERS}.",
        )
    return cast(EncodedImages, images)


def gathered(items: Sequence[Unread | DataError]) -> list[Unread] | DataError:
    """Return the images of a batch, or the first error among them."""
    wrong = next((item for item in items if isinstance(item, DataError)), None)
    return wrong or [item for item in items if isinstance(item, Unread)]


class Decoder:
    """Makes batches of images that workers have read.

    Attributes:
        decode: of the device.
    """

    def __init__(
        self, device: torch.device, transform: nn.Module, seed: int, decode: Decode | None = None
    ) -> None:
        """Look for the device's decoder.

        Raises:
            RecipeError: there is none.
        """
        self.device, self.transform, self.seed = device, transform, seed
        self.decode = decode or jpegs_to(device)

    def __call__(self, read: Sequence[Unread]) -> Batch | DataError:
        """Return a batch, or the error of an image that cannot be decoded or augmented."""
        try:
            images = self._pixels(read)
            return collate([self._item(*pair) for pair in zip(read, images, strict=True)])
        except DataError as error:
            return error

    def _item(self, one: Unread, image: Tensor) -> Item:
        with seeded(self.seed, AUGMENT, *one.key, device=self.device):
            return *transformed(self.transform, image, one.label, one.name), one.name

    def _pixels(self, read: Sequence[Unread]) -> list[Tensor]:
        encoded = [one.image for one in read if isinstance(one.image, Encoded)]
        try:
            decoded = iter(self.decode([image.buffer for image in encoded]) if encoded else [])
        except RuntimeError:  # one of them is damaged, and which is not said
            return [self._by_cpu(one) for one in read]
        return [
            one.image.turned(next(decoded))
            if isinstance(one.image, Encoded)
            else one.image.to(self.device)
            for one in read
        ]

    def _by_cpu(self, one: Unread) -> Tensor:
        """Return an image's pixels as workers decode them; names it if it is damaged."""
        if isinstance(one.image, Tensor):
            return one.image.to(self.device)
        # The header declared few enough pixels when it was read.
        return decode(one.image.content, one.name, PILLOWS_PIXELS).to(self.device)


def jpegs_to(device: torch.device) -> Decode:
    """Return torchvision's decoder on a device: nvJPEG on CUDA.

    Raises:
        RecipeError: this torchvision has none.
    """

    def decoded(contents: list[Tensor]) -> list[Tensor]:
        mode = torchvision.io.ImageReadMode.RGB
        pixels: list[Tensor] = torchvision.io.decode_jpeg(contents, mode, device=device)
        return pixels

    try:
        dot = torchvision.io.encode_jpeg(torch.zeros(3, 8, 8, dtype=torch.uint8))
        decoded([dot])
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        raise RecipeError(
            f'data.decode = "device": torchvision {torchvision.__version__} decodes no JPEG on '
            f"{device.type} ({str(error).partition(chr(10))[0]})",
            remedy=f"Install torchvision's build for CUDA, which has nvJPEG, or set {WORKERS}.",
        ) from error
    return decoded

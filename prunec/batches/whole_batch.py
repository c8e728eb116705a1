"""Augmentation of a whole batch at once, each image with random numbers of its own.

A GPU takes as long to launch an operation on four small images as on a batch of them, so chunks
(`prunec.batches.batches.CHUNK`) leave it waiting. Random numbers are drawn on the CPU from the
batch's seed, for all images in their order: the same on every device, and on every process that
takes a part of the batch. What each transform does to an image is what torchvision v2's does with
the same parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.seeding import derived_seed

TRIES = 10  # rectangles that RandomErasing draws before it gives an image up: torchvision's
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey: torchvision's

Change = Callable[[Tensor, int, slice, torch.Generator], Tensor]
"""Takes the images [n, C, H, W] that are a slice of a batch of so many; draws for all of it."""
Maker = Callable[[Any], Change | None]


@dataclass(frozen=True)
class WholeBatch:
    """Transforms in a row."""

    changes: tuple[Change, ...]

    def __call__(self, images: Tensor, count: int, own: slice, *seed: int) -> Tensor:
        """Return the images of ``own``, a slice of a batch of ``count``, changed.

        Args:
            images: uint8 or float [n, C, H, W].
            count: how many the batch has.
            own: which of them these are.
            seed: of the batch.
        """
        for place, change in enumerate(self.changes):
            generator = torch.Generator().manual_seed(derived_seed(*seed, place))
            images = change(images, count, own, generator)
        return images


def whole_batch(transform: nn.Module) -> WholeBatch | None:
    """Return the same transforms for whole batches; None where one of them is not known here."""
    parts = list(transform.transforms) if isinstance(transform, v2.Compose) else [transform]
    known = tuple(_KNOWN.get(type(part), _unknown)(part) for part in parts)
    changes = tuple(change for change in known if change is not None)
    return WholeBatch(changes) if len(changes) == len(known) else None


def _unknown(part: Any) -> None:
    return None


def _flip(axis: int) -> Maker:
    def made(part: Any) -> Change:
        p = float(part.p)

        def change(images: Tensor, count: int, own: slice, generator: torch.Generator) -> Tensor:
            chosen = _drawn(count, generator)[own] < p
            return torch.where(_of_image(chosen, images), images.flip(axis), images)

        return change

    return made


def _crop(part: Any) -> Change | None:
    """RandomCrop with constant padding by 0."""
    if part.padding_mode != "constant" or part.pad_if_needed or any(_fills(part)):
        return None
    sides = part.padding or [0, 0, 0, 0]  # left, right, top, bottom: v2 has put them in order
    height, width = part.size

    def change(images: Tensor, count: int, own: slice, generator: torch.Generator) -> Tensor:
        padded = F.pad(images, sides)
        rows = _starts(padded.shape[-2] - height, count, generator)[own]
        columns = _starts(padded.shape[-1] - width, count, generator)[own]
        return _windows(padded, rows, columns, height, width)

    return change


def _windows(images: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Return the window of each image that begins at its own row and column."""
    device = images.device
    down = _there(rows, device)[:, None] + torch.arange(height, device=device)
    along = _there(columns, device)[:, None] + torch.arange(width, device=device)
    which = torch.arange(len(images), device=device)[:, None, None]
    # Indices apart from each other put the axis of channels last.
    return images[which, :, down[:, :, None], along[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _erase(part: Any) -> Change | None:
    """RandomErasing by a constant, as Cutout is written with it."""
    if part.value is None or (isinstance(part.value, str)):
        return None
    values = part.value if isinstance(part.value, (list, tuple)) else [part.value]

    def change(images: Tensor, count: int, own: slice, generator: torch.Generator) -> Tensor:
        height, width = images.shape[-2:]
        box = _there(_boxes(part, height, width, count, generator)[:, own], images.device)
        chosen = _there(_drawn(count, generator)[own], images.device) < part.p
        top, left, tall, wide = box
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        down = (rows >= top[:, None]) & (rows < (top + tall)[:, None]) & chosen[:, None]
        along = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        inside = (down[:, :, None] & along[:, None, :])[:, None]
        value = _there(torch.tensor(values, dtype=images.dtype), images.device)
        return torch.where(inside, value.view(1, -1, 1, 1), images)

    return change


def _boxes(
    part: v2.RandomErasing, height: int, width: int, count: int, generator: torch.Generator
) -> Tensor:
    """Rectangles (top, left, height, width), int64 [4, count]; the first that fits of ten, or 0."""
    low, high = (math.log(ratio) for ratio in part.ratio)
    scale = _between(part.scale[0], part.scale[1], (TRIES, count), generator) * height * width
    aspect = torch.exp(_between(low, high, (TRIES, count), generator))
    tall = (scale * aspect).sqrt().round().long()
    wide = (scale / aspect).sqrt().round().long()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(0, keepdim=True)
    some = fits.any(0)
    tall, wide = (size.gather(0, first)[0] * some for size in (tall, wide))
    top = (_drawn(count, generator) * (height - tall + 1)).long()
    left = (_drawn(count, generator) * (width - wide + 1)).long()
    return torch.stack([top, left, tall, wide])


def _colour(part: Any) -> Change | None:
    """ColorJitter without hue; its three parts in an order that the batch draws."""
    if part.hue is not None:
        return None
    parts = [
        (blend, bounds)
        for blend, bounds in (
            (_black, part.brightness), (_mean, part.contrast), (_grey, part.saturation)
        )
        if bounds is not None
    ]  # fmt: skip

    def change(images: Tensor, count: int, own: slice, generator: torch.Generator) -> Tensor:
        for index in torch.randperm(len(parts), generator=generator).tolist():
            blend, (low, high) = parts[index]
            factor = _between(low, high, (count,), generator)[own].float()
            if blend is _grey and images.shape[1] != 3:
                continue  # grey has no saturation
            images = _blended(images, blend(images), factor)
        return images

    return change


def _black(images: Tensor) -> Tensor:
    return torch.zeros((), device=images.device)


def _mean(images: Tensor) -> Tensor:
    grey = _grey(images) if images.shape[1] == 3 else images.float()
    return grey.mean((1, 2, 3), keepdim=True)


def _grey(images: Tensor) -> Tensor:
    weights = _there(torch.tensor(LUMA), images.device).view(1, 3, 1, 1)
    grey = (images.float() * weights).sum(1, keepdim=True)
    return grey if images.is_floating_point() else grey.floor()


def _blended(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor·images + (1 − factor)·other, within what the images' dtype holds."""
    most = 1.0 if images.is_floating_point() else 255.0
    share = _of_image(factor, images)
    mixed = share * images.float() + (1 - share) * other
    return mixed.clamp(0, most).to(images.dtype)


def _drawn(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _starts(most: int, count: int, generator: torch.Generator) -> Tensor:
    """Whole numbers from 0 to ``most``."""
    return torch.randint(0, most + 1, (count,), generator=generator)


def _of_image(values: Tensor, images: Tensor) -> Tensor:
    """Values [n], one per image, where the images are."""
    return _there(values, images.device).view(-1, 1, 1, 1)


def _there(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device, without a wait for the steps that it still has to do."""
    return values.to(device, non_blocking=True)


def _fills(part: v2.RandomCrop) -> Iterator[object]:
    fill = part.fill
    yield from fill.values() if isinstance(fill, dict) else [fill]


_KNOWN: dict[type[nn.Module], Maker] = {
    v2.RandomHorizontalFlip: _flip(-1),
    v2.RandomVerticalFlip: _flip(-2),
    v2.RandomCrop: _crop,
    v2.RandomErasing: _erase,
    v2.ColorJitter: _colour,
}

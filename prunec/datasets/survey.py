"""Survey of an image folder: classes, and size, mean and deviation of a sample of its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunec.datasets.folders import read_imagefolder
from prunec.errors import DataError
from prunec.recipe import DataSpec

MOST = 256
"""Training images that are decoded: mean and deviation are then exact to about two digits."""


@dataclass(frozen=True)
class Survey:
    """Contents of an image folder.

    Attributes:
        labels: names of the classes.
        train: number of training images.
        test: number of test images.
        looked: number of training images in the sample; what follows is of the sample.
        sizes: (H, W) of the smallest, the median and the largest image, by the shorter side.
        mean: mean per channel, of values scaled to 0…1.
        std: standard deviation per channel.
    """

    labels: tuple[str, ...]
    train: int
    test: int
    looked: int
    sizes: tuple[tuple[int, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def same(self) -> bool:
        """Whether all images of the sample have the same size."""
        return len(set(self.sizes)) == 1


def survey(root: str) -> Survey:
    """Survey a folder by an evenly spaced sample of its training images.

    Raises:
        DataError: it has no images, or none of the sample can be read.
    """
    images = read_imagefolder(DataSpec(name="imagefolder", root=root))
    total = len(images.train)
    places = sorted({k * total // MOST for k in range(MOST)} if total > MOST else range(total))
    sizes: list[tuple[int, int]] = []
    sums = torch.zeros(2, 3, dtype=torch.float64)
    pixels, damage = 0, None
    for place in places:
        try:
            image, _ = images.train[place]
        except DataError as error:  # `prunec data check` lists them all
            damage = error
            continue
        values = image.double().flatten(1) / 255
        sums += torch.stack([values.sum(1), values.square().sum(1)])
        pixels += values.shape[1]
        sizes.append((image.shape[1], image.shape[2]))
    if not sizes:
        raise damage or DataError(f"{root} has no image")
    mean = sums[0] / pixels
    # E[x²] − E[x]², in float64; 1e-4: images of one colour would divide by zero.
    std = (sums[1] / pixels - mean.square()).clamp_min(1e-4).sqrt()
    ordered = sorted(sizes, key=lambda size: (min(size), size))
    return Survey(
        labels=images.labels,
        train=total,
        test=len(images.test),
        looked=len(sizes),
        sizes=(ordered[0], ordered[len(ordered) // 2], ordered[-1]),
        mean=tuple(round(x, 3) for x in mean.tolist()),
        std=tuple(round(x, 3) for x in std.tolist()),
    )

"""A look at an image folder: how many classes and images, how large, how bright; of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunec.datasets.folders import read_imagefolder
from prunec.errors import DataError
from prunec.recipe import DataSpec

MOST = 256
"""How many training images are decoded for a look."""


@dataclass(frozen=True)
class Survey:
    """What an image folder holds.

    Attributes:
        labels: names of the classes.
        train: number of training images.
        test: number of test images.
        looked: how many training images were decoded; the rest is of these.
        sizes: (H, W) of the smallest, the middle and the largest, by their shorter side.
        mean: of each channel, of values scaled to 0…1.
        std: the standard deviation of each channel.
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
        """Return whether the images looked at have one size."""
        return len(set(self.sizes)) == 1


def survey(root: str) -> Survey:
    """Look at the training images of a folder, evenly spread ones.

    Raises:
        DataError: it holds none, or none of those looked at can be read.
    """
    found = read_imagefolder(DataSpec(name="imagefolder", root=root))
    total = len(found.train)
    places = sorted({k * total // MOST for k in range(MOST)} if total > MOST else range(total))
    sizes: list[tuple[int, int]] = []
    sums = torch.zeros(2, 3, dtype=torch.float64)
    pixels, damage = 0, None
    for place in places:
        try:
            image, _ = found.train[place]
        except DataError as error:  # `prunec data check` lists them all
            damage = error
            continue
        values = image.double().flatten(1) / 255
        sums += torch.stack([values.sum(1), values.square().sum(1)])
        pixels += values.shape[1]
        sizes.append((image.shape[1], image.shape[2]))
    if not sizes:
        raise damage or DataError(f"{root} holds no image")
    mean = sums[0] / pixels
    std = (sums[1] / pixels - mean.square()).clamp_min(1e-4).sqrt()
    ordered = sorted(sizes, key=lambda size: (min(size), size))
    return Survey(
        labels=found.labels,
        train=total,
        test=len(found.test),
        looked=len(sizes),
        sizes=(ordered[0], ordered[len(ordered) // 2], ordered[-1]),
        mean=tuple(round(x, 3) for x in mean.tolist()),
        std=tuple(round(x, 3) for x in std.tolist()),
    )

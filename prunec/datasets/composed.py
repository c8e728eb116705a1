"""embedded-segmentation: synthetic scenes of garments of the embedded images, labelled per pixel.

Each canvas of 48×48 has a grey gradient, noise, and two garments of 28×28 at random places; the
second covers the first. A pixel has the class of its visible garment, 1 + the label, or background,
0. Dim pixels of garments are unlabelled, like object borders in PASCAL VOC. The set is the same for
every recipe and seed, so that runs can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunec.datasets.embedded import LABELS, load_embedded
from prunec.datasets.sources import InMemory, Split
from prunec.tasks.segmentation import VOID, Segmentation

SIDE, GARMENTS = 48, 2  # two garments of 28×28 overlap now and then, and leave some background
SIZES = {"train": 3000, "test": 500}
SEEDS = {"train": 20, "test": 21}  # arbitrary, but fixed: the set must not change
# Grey levels: from DIM on, a pixel belongs to the garment; from SEEN on, it is labelled.
SEEN, DIM = 48, 12


def read_composed() -> InMemory:
    """Return the set: 3,000 canvases of training images, 500 of test images."""
    tensors = load_embedded()

    def split(name: str) -> Split:
        generator = torch.Generator().manual_seed(SEEDS[name])
        images, labels = tensors[f"{name}_images"], tensors[f"{name}_labels"]
        return _composed(images, labels, SIZES[name], generator)

    return InMemory(split("train"), split("test"), ("background", *LABELS), Segmentation)


def _composed(images: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> Split:
    canvas, mask = _background(count, generator), torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
    side = images.shape[-1]
    within = torch.arange(side)
    every = torch.arange(count).view(-1, 1, 1)
    for _ in range(GARMENTS):
        chosen = torch.randint(len(images), (count,), generator=generator)
        corners = torch.randint(SIDE - side + 1, (count, 2), generator=generator)
        rows = corners[:, 0].view(-1, 1, 1) + within.view(1, -1, 1)
        place = every, rows, corners[:, 1].view(-1, 1, 1) + within
        garment, label = images[chosen], labels[chosen].view(-1, 1, 1) + 1
        seen = torch.where(garment >= SEEN, label, VOID).to(torch.uint8)
        there = garment >= DIM
        canvas[place] = torch.where(there, garment, canvas[place])
        mask[place] = torch.where(there, seen, mask[place])
    return Split(canvas.unsqueeze(1), mask)


def _background(count: int, generator: torch.Generator) -> Tensor:
    """Return a horizontal gradient between two greys, with noise, uint8 [count, SIDE, SIDE]."""
    # Greys up to 80, noise of up to 20: darker than most garments, but not black.
    ends = 80 * torch.rand(count, 2, 1, generator=generator)
    along = torch.linspace(0, 1, SIDE)
    slope = ends[:, 0] * (1 - along) + ends[:, 1] * along
    noise = 20 * torch.rand(count, SIDE, SIDE, generator=generator)
    return (slope.unsqueeze(1) + noise).to(torch.uint8)

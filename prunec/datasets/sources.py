"""What a data set is before it is batched: tensors in memory, or images read as they are needed.

A label is the class of an image, or a mask: the class of every pixel, uint8, `VOID` for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from prunec.datasets.sequences import Standard
from prunec.tasks.task import Classification, Task

Label = int | Tensor


@dataclass(frozen=True)
class Split:
    """Half of a set held in memory: images [N, C, H, W], labels [N] or masks [N, H, W].

    Images are uint8; sequences are float32 [N, features, 1, steps].
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class InMemory:
    """A small set, held in memory; sequences are standardised."""

    train: Split
    test: Split
    labels: tuple[str, ...]
    kind: type[Task] = Classification
    standard: Standard | None = None


class Images(Protocol):
    """Labelled images of any size, each read when it is asked for, also by other processes."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Label]:
        """Return an image, uint8 [3, H, W], or a sequence, float32 [features, 1, steps].

        And its label; or raise DamagedData.
        """

    def name(self, index: int, /) -> str:
        """Return where an image lies, for errors."""

    def kind(self, index: int, /) -> str:
        """Return what kind of file it is read from, in words; or raise DamagedData."""

    def order(self, generator: torch.Generator, /) -> Tensor:
        """Return every index once, int64, shuffled as it suits the way the images are stored."""


@dataclass(frozen=True)
class OnDisk:
    """A large set, read as it is needed; sequences are standardised.

    ``left_out`` counts files that lie among the images and are not taken for such.
    """

    train: Images
    test: Images
    labels: tuple[str, ...]
    kind: type[Task] = Classification
    standard: Standard | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

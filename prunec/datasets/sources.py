"""Types of data sets before batching: tensors in memory, or samples read on demand.

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
    """A split in memory: images [N, C, H, W], labels [N] or masks [N, H, W].

    Images are uint8; sequences are float32 [N, features, 1, steps].
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class InMemory:
    """A small data set in memory; sequences are standardised."""

    train: Split
    test: Split
    labels: tuple[str, ...]
    kind: type[Task] = Classification
    standard: Standard | None = None


class Images(Protocol):
    """Labelled images of any size, each read on demand, also by worker processes."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Label]:
        """Return an image, uint8 [3, H, W], or a sequence, float32 [features, 1, steps]; and label.

        Raises:
            DamagedData: it cannot be read or decoded.
        """

    def name(self, index: int, /) -> str:
        """Return the path of an image, for errors."""

    def kind(self, index: int, /) -> str:
        """Return the kind of an image's file in words; raise DamagedData if it is not readable."""

    def order(self, generator: torch.Generator, /) -> Tensor:
        """Return a random permutation of the indices, int64, suited to how images are stored."""


@dataclass(frozen=True)
class OnDisk:
    """A large data set, read on demand; sequences are standardised.

    ``left_out`` counts other files among the images, kind → number.
    """

    train: Images
    test: Images
    labels: tuple[str, ...]
    kind: type[Task] = Classification
    standard: Standard | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

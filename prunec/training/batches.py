"""Batches of images for training and test.

Their order and augmentation depend only on (seed, epoch), so a resumed run sees the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from prunec.training.datasets import Images
from prunec.training.seeding import derived_seed, seeded

ORDER, AUGMENT = 1, 2  # what a seed is derived for
CHUNK = 4
"""Images that share the random parameters of an augmentation.

One v2 call an image costs 2.8 s for 12,000 images of 28×28 on one core, one for four 0.7 s. As the
order is shuffled anew in every epoch, every image still meets its own companions and parameters.
"""


@dataclass(frozen=True)
class Data(ABC):
    """A labelled set of images in two splits.

    Attributes:
        classes: number of classes.
        labels: their names.
        shape: (C, H, W) of an image that the network sees.
        train_size: number of training images.
        test_size: number of test images.
        seed: what order and augmentation derive from.
        device: where batches are delivered.
    """

    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    seed: int
    device: torch.device

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @abstractmethod
    def train_batches(self, epoch: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float32 images [N, C, H, W], normalised, and int64 labels [N], in random order.

        An incomplete last batch is dropped unless it is the only one. The same seed, epoch and
        batch size give the same values.
        """

    @abstractmethod
    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all test images in their order, as :meth:`train_batches` does."""

    def to(self, device: torch.device) -> Self:
        """Return the same data, delivering on ``device``."""
        return replace(self, device=device)

    def steps(self, batch_size: int) -> int:
        """Return how many batches :meth:`train_batches` yields."""
        return max(1, self.train_size // batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the permutation of the training images in ``epoch``, int64 on the CPU."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, ORDER, epoch))
        return torch.randperm(self.train_size, generator=generator)

    def batch_order(self, epoch: int, batch_size: int) -> tuple[Tensor, ...]:
        """Return the positions of the images of every training batch of ``epoch``."""
        batches = torch.split(self.order(epoch), batch_size)
        return batches[: self.steps(batch_size)]


@dataclass(frozen=True)
class MemoryData(Data):
    """Images held as uint8 tensors [N, C, H, W] on the device that computes."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    augment: v2.Transform
    prepare: v2.Transform
    normalise: v2.Transform

    def to(self, device: torch.device) -> Self:
        """Return the same data with its images on ``device``."""
        return replace(
            self,
            device=device,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )

    def train_batches(self, epoch: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`Data.train_batches`."""
        for step, places in enumerate(self.batch_order(epoch, batch_size)):
            index = places.to(self.device)
            # The block holds no yield: whoever takes the batch must find its own generator.
            with seeded(self.seed, AUGMENT, epoch, step, device=self.device):
                images = in_chunks(self.augment, self.train_images[index], CHUNK)
            yield self.normalise(images), self.train_labels[index]

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`Data.test_batches`."""
        batches = zip(
            torch.split(self.test_images, batch_size),
            torch.split(self.test_labels, batch_size),
            strict=True,
        )
        for images, labels in batches:
            with seeded(self.seed, AUGMENT, device=self.device):
                prepared = self.prepare(images)
            yield self.normalise(prepared), labels


@dataclass(frozen=True)
class FolderData(Data):
    """Images read from files as they are needed, by worker processes."""

    train_set: Images
    test_set: Images
    augment: v2.Transform
    prepare: v2.Transform
    normalise: v2.Transform
    workers: int

    def train_batches(self, epoch: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`Data.train_batches`."""
        items = _Items(self.train_set, self.augment, (self.seed, AUGMENT, epoch))
        batches = [places.tolist() for places in self.batch_order(epoch, batch_size)]
        return self._batches(items, batches)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`Data.test_batches`."""
        items = _Items(self.test_set, self.prepare, (self.seed, AUGMENT))
        places = torch.split(torch.arange(self.test_size), batch_size)
        return self._batches(items, [batch.tolist() for batch in places])

    def _batches(self, items: _Items, batches: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        on_cuda = self.device.type == "cuda"
        loader = DataLoader(
            items,
            batch_sampler=batches,
            num_workers=self.workers,
            pin_memory=on_cuda,
            generator=torch.Generator().manual_seed(derived_seed(self.seed, ORDER)),
        )
        for images, labels in loader:
            moved = images.to(self.device, non_blocking=on_cuda)
            yield self.normalise(moved), labels.to(self.device, non_blocking=on_cuda)


@dataclass(frozen=True)
class _Items(Dataset[tuple[Tensor, int]]):
    """Transformed images; every image has its own seed, so the workers' number changes nothing."""

    images: Images
    transform: v2.Transform
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        with seeded(*self.seed, index):
            return self.transform(image), label


def in_chunks(transform: v2.Transform, images: Tensor, size: int) -> Tensor:
    """Return ``transform`` of ``images`` [N, C, H, W], its parameters drawn anew every ``size``."""
    if isinstance(transform, v2.Identity):
        return images
    return torch.cat([transform(chunk) for chunk in torch.split(images, size)])

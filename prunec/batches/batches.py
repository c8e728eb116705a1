"""Batches of images for training and test.

What is in them depends only on (seed, epoch, step, place in the batch): a resumed run sees the same
ones from any step on, and so do several processes that share each batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.batches.loading import AUGMENT, ORDER, Batch, Items, Loader
from prunec.batches.whole_batch import whole_batch
from prunec.datasets.sources import Images
from prunec.processes import ALONE, Processes
from prunec.seeding import derived_seed, seed_torch, seeded, seeds
from prunec.tasks.task import Classification, Task

CHUNK = 4
"""Images that share the random parameters of an augmentation.

One v2 call an image costs 2.8 s for 12,000 images of 28×28 on one core, one for four 0.7 s. As the
order is shuffled anew in every epoch, every image still meets its own companions and parameters.
On a GPU the whole batch is augmented at once, with parameters for each image
(`prunec.batches.whole_batch`), where it knows the transforms.
"""


@dataclass(frozen=True, kw_only=True)
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
        processes: the processes that share every batch, and which of them this is.
        kind: of answer that is asked for.
    """

    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    seed: int
    device: torch.device
    processes: Processes = ALONE
    kind: type[Task] = Classification

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def task(self) -> Task:
        """What is asked of a network."""
        return self.kind(self.classes)

    @abstractmethod
    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """Yield float32 images [N, C, H, W], normalised, and int64 labels, in random order.

        A label for an image [N], or for every pixel of it [N, H, W], as the task has it.

        An incomplete last batch is dropped unless it is the only one. The same seed, epoch and
        batch size give the same values, from whichever step on.

        Args:
            epoch: from 0.
            batch_size: of all processes together; this rank's part of each batch is what comes.
            first: the step to begin with.
        """

    @abstractmethod
    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the test images in their order, as :meth:`train_batches` does.

        Several processes take turns: together they yield every image once.
        """

    def to(self, device: torch.device, processes: Processes = ALONE) -> Self:
        """Return the same data, delivering this rank's part on ``device``."""
        return replace(self, device=device, processes=processes)

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return max(1, self.train_size // batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the permutation of the training images in ``epoch``, int64 on the CPU."""
        return torch.randperm(self.train_size, generator=self._generator(epoch))

    def batch_order(self, epoch: int, batch_size: int) -> tuple[Tensor, ...]:
        """Return the positions of the images of every training batch of ``epoch``."""
        batches = torch.split(self.order(epoch), batch_size)
        return batches[: self.steps(batch_size)]

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, ORDER, epoch))


@dataclass(frozen=True, kw_only=True)
class MemoryData(Data):
    """Images or sequences held as tensors [N, C, H, W] on the device that computes.

    Labels are int64 [N], or uint8 [N, H, W]: transforms are given both.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    augment: nn.Module
    prepare: nn.Module
    normalise: v2.Transform

    def to(self, device: torch.device, processes: Processes = ALONE) -> Self:
        """Return the same data with its images on ``device``."""
        return replace(
            self,
            device=device,
            processes=processes,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )

    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """See :meth:`Data.train_batches`."""
        for step, places in list(enumerate(self.batch_order(epoch, batch_size)))[first:]:
            images, labels = self._augmented(places, epoch, step)
            yield self.normalise(images), labels.long()

    def _augmented(self, places: Tensor, epoch: int, step: int) -> Batch:
        """This rank's part of a batch; a chunk's seed is the same whoever augments it."""
        own = self.processes.part(len(places))
        if isinstance(self.augment, v2.Identity):
            there = places[own].to(self.device)
            return self.train_images[there], self.train_labels[there]
        whole = whole_batch(self.augment) if self.device.type == "cuda" else None
        if whole and self.train_labels.ndim == 1:
            there = places[own].to(self.device)
            seed = (self.seed, AUGMENT, epoch, step)
            images = whole(self.train_images[there], len(places), own, *seed)
            return images, self.train_labels[there]
        chunks = range(own.start // CHUNK, -(-own.stop // CHUNK))
        start = chunks.start * CHUNK
        there = places[start : chunks.stop * CHUNK].to(self.device)
        parts = zip(
            torch.split(self.train_images[there], CHUNK),
            torch.split(self.train_labels[there], CHUNK),
            strict=True,
        )
        chunk_seeds = seeds(-(-len(places) // CHUNK), self.seed, AUGMENT, epoch, step)
        augmented = []
        # The block holds no yield: whoever takes the batch must find its own generator.
        with seeded(self.seed, device=self.device):
            for chunk, (images, labels) in zip(chunks, parts, strict=True):
                seed_torch(chunk_seeds[chunk], self.device)
                augmented.append(self.augment(images, labels))
        wanted = slice(own.start - start, own.stop - start)
        images, labels = (torch.cat(some)[wanted] for some in zip(*augmented, strict=True))
        return images, labels

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """See :meth:`Data.test_batches`."""
        batches = zip(
            torch.split(self.test_images, batch_size),
            torch.split(self.test_labels, batch_size),
            strict=True,
        )
        for images, labels in list(batches)[self.processes.rank :: self.processes.count]:
            with seeded(self.seed, AUGMENT, device=self.device):
                images, labels = self.prepare(images, labels)
            yield self.normalise(images), labels.long()


@dataclass(frozen=True, kw_only=True)
class FolderData(Data):
    """Images read from files or shards as they are needed, by worker processes that live on."""

    train_set: Images
    test_set: Images
    augment: nn.Module
    prepare: nn.Module
    normalise: v2.Transform
    workers: int
    loaders: dict[str, Loader] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device, processes: Processes = ALONE) -> Self:
        """See :meth:`Data.to`; the workers are its own."""
        return replace(self, device=device, processes=processes, loaders={})

    def order(self, epoch: int) -> Tensor:
        """See :meth:`Data.order`; the images know which order suits their disk."""
        return self.train_set.order(self._generator(epoch))

    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """See :meth:`Data.train_batches`."""
        batches = [
            [(epoch, place) for place in places[self.processes.part(len(places))].tolist()]
            for places in self.batch_order(epoch, batch_size)[first:]
        ]
        return self._loader("train", self.train_set, self.augment).read(batches)

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """See :meth:`Data.test_batches`."""
        places = torch.split(torch.arange(self.test_size), batch_size)
        own = places[self.processes.rank :: self.processes.count]
        batches = [[(0, place) for place in batch.tolist()] for batch in own]
        return self._loader("test", self.test_set, self.prepare).read(batches)

    def _loader(self, name: str, images: Images, transform: nn.Module) -> Loader:
        if name not in self.loaders:
            items = Items(images, transform, self.seed)
            self.loaders[name] = Loader(items, self.workers, self.device, self.normalise)
        return self.loaders[name]

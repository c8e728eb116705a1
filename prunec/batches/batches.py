"""Batches of images for training and test.

Their contents depend only on (seed, epoch, step, position in the batch): a run that is resumed at
any step gets the same batches, and so do several processes that share each batch.
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
from prunec.batches.on_device import Decoder, Undecoded, decodes_there, gathered
from prunec.batches.whole_batch import whole_batch
from prunec.datasets.sources import Images
from prunec.processes import ALONE, Processes
from prunec.seeding import derived_seed, seed_torch, seeded, seeds
from prunec.tasks.task import Classification, Task

CHUNK = 4
"""Images that share the random parameters of an augmentation.

One call of a v2 transform per image takes 2.8 s for 12,000 images of 28×28 on one core, one call
per four images 0.7 s. The order is shuffled in every epoch, so the images of a chunk change.
On a GPU the whole batch is augmented at once, with parameters for each image
(`prunec.batches.whole_batch`), where the transforms are known there.
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
        seed: seed of order and augmentation.
        device: device of the batches.
        processes: this process among those that share every batch.
        kind: class of the task.
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
        """The task: its loss, and the quality of predictions."""
        return self.kind(self.classes)

    @abstractmethod
    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """Yield float32 images [N, C, H, W], normalised, and int64 labels, in random order.

        Labels are one per image [N], or one per pixel [N, H, W], by the task. An incomplete last
        batch is dropped unless it is the only one. The same seed, epoch and batch size give the
        same batches, whatever the first step.

        Args:
            epoch: number of the epoch, from 0.
            batch_size: batch size over all processes; this rank's part of each batch is yielded.
            first: first step to yield.
        """

    @abstractmethod
    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the test images in their order, in the format of :meth:`train_batches`.

        Several processes take turns by batches: together they yield every image once.
        """

    def to(self, device: torch.device, processes: Processes = ALONE) -> Self:
        """Return the same data, with batches of this rank on ``device``."""
        return replace(self, device=device, processes=processes)

    def steps(self, batch_size: int) -> int:
        """Return the number of batches per epoch."""
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
    """Images or sequences as tensors [N, C, H, W] on the computing device.

    Labels are int64 [N], or masks uint8 [N, H, W]; transforms take images and labels.
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
        """Return this rank's part of a batch; the seed of a chunk does not depend on the rank."""
        own = self.processes.part(len(places))
        if isinstance(self.augment, v2.Identity):
            there = self._there(places[own])
            return self.train_images[there], self.train_labels[there]
        whole = whole_batch(self.augment) if self.device.type == "cuda" else None
        if whole and self.train_labels.ndim == 1:
            there = self._there(places[own])
            seed = (self.seed, AUGMENT, epoch, step)
            images = whole(self.train_images[there], len(places), own, *seed)
            return images, self.train_labels[there]
        chunks = range(own.start // CHUNK, -(-own.stop // CHUNK))
        start = chunks.start * CHUNK
        there = self._there(places[start : chunks.stop * CHUNK])
        parts = zip(
            torch.split(self.train_images[there], CHUNK),
            torch.split(self.train_labels[there], CHUNK),
            strict=True,
        )
        chunk_seeds = seeds(-(-len(places) // CHUNK), self.seed, AUGMENT, epoch, step)
        augmented = []
        # No yield inside this block: the consumer of the batch must not see the seeded generator.
        with seeded(self.seed, device=self.device):
            for chunk, (images, labels) in zip(chunks, parts, strict=True):
                seed_torch(chunk_seeds[chunk], self.device)
                augmented.append(self.augment(images, labels))
        wanted = slice(own.start - start, own.stop - start)
        images, labels = (torch.cat(some)[wanted] for some in zip(*augmented, strict=True))
        return images, labels

    def _there(self, places: Tensor) -> Tensor:
        """Return places on the device, without a wait for the step that it still computes."""
        return places.to(self.device, non_blocking=True)

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
    """Images read from files or shards on demand, by persistent worker processes."""

    train_set: Images
    test_set: Images
    augment: nn.Module
    prepare: nn.Module
    normalise: v2.Transform
    workers: int
    decode: str = "workers"
    loaders: dict[str, Loader] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device, processes: Processes = ALONE) -> Self:
        """See :meth:`Data.to`; the copy gets its own workers."""
        return replace(self, device=device, processes=processes, loaders={})

    def order(self, epoch: int) -> Tensor:
        """See :meth:`Data.order`; the order suits how the images are stored."""
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
            self.loaders[name] = self._new_loader(images, transform)
        return self.loaders[name]

    def _new_loader(self, images: Images, transform: nn.Module) -> Loader:
        if self.decode == "workers" or not decodes_there(self.device):
            items = Items(images, transform, self.seed)
            return Loader(items, self.workers, self.device, self.normalise)
        unread = Undecoded(images, transform, self.seed)
        decoder = Decoder(self.device, transform, self.seed)
        return Loader(
            unread, self.workers, self.device, self.normalise, gather=gathered, finish=decoder
        )

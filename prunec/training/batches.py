"""Batches of images for training and test.

What is in them depends only on (seed, epoch, step, place in the batch): a resumed run sees the same
ones from any step on, and so do several processes that share each batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from prunec.training.datasets import Images
from prunec.training.ranks import ALONE, Ranks
from prunec.training.seeding import derived_seed, seeded, seeds

ORDER, AUGMENT = 1, 2  # what a seed is derived for
CHUNK = 4
"""Images that share the random parameters of an augmentation.

One v2 call an image costs 2.8 s for 12,000 images of 28×28 on one core, one for four 0.7 s. As the
order is shuffled anew in every epoch, every image still meets its own companions and parameters.
"""
PREFETCH = 4  # batches that each worker holds ready

Batch = tuple[Tensor, Tensor]


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
        ranks: the processes that share every batch, and which of them this is.
    """

    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    seed: int
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @abstractmethod
    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """Yield float32 images [N, C, H, W], normalised, and int64 labels [N], in random order.

        An incomplete last batch is dropped unless it is the only one. The same seed, epoch and
        batch size give the same values, from whichever step on.

        Args:
            epoch: from 0.
            batch_size: of all ranks together; this rank's part of each batch is what comes.
            first: the step to begin with.
        """

    @abstractmethod
    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the test images in their order, as :meth:`train_batches` does.

        Several ranks take turns: together they yield every image once.
        """

    def to(self, device: torch.device, ranks: Ranks = ALONE) -> Self:
        """Return the same data, delivering this rank's part on ``device``."""
        return replace(self, device=device, ranks=ranks)

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return max(1, self.train_size // batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the permutation of the training images in ``epoch``, int64 on the CPU."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, ORDER, epoch))
        return torch.randperm(self.train_size, generator=generator)

    def batch_order(self, epoch: int, batch_size: int) -> tuple[Tensor, ...]:
        """Return the positions of the images of every training batch of ``epoch``."""
        batches = torch.split(self.order(epoch), batch_size)
        return batches[: self.steps(batch_size)]


@dataclass(frozen=True, kw_only=True)
class MemoryData(Data):
    """Images held as uint8 tensors [N, C, H, W] on the device that computes."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    augment: v2.Transform
    prepare: v2.Transform
    normalise: v2.Transform

    def to(self, device: torch.device, ranks: Ranks = ALONE) -> Self:
        """Return the same data with its images on ``device``."""
        return replace(
            self,
            device=device,
            ranks=ranks,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )

    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """See :meth:`Data.train_batches`."""
        for step, places in list(enumerate(self.batch_order(epoch, batch_size)))[first:]:
            images = self._augmented(places, epoch, step)
            own = places[self.ranks.part(len(places))].to(self.device)
            yield self.normalise(images), self.train_labels[own]

    def _augmented(self, places: Tensor, epoch: int, step: int) -> Tensor:
        """This rank's images of a batch; a chunk's seed is the same whoever augments it."""
        own = self.ranks.part(len(places))
        if isinstance(self.augment, v2.Identity):
            return self.train_images[places[own].to(self.device)]
        chunks = range(own.start // CHUNK, -(-own.stop // CHUNK))
        start = chunks.start * CHUNK
        images = self.train_images[places[start : chunks.stop * CHUNK].to(self.device)]
        chunk_seeds = seeds(-(-len(places) // CHUNK), self.seed, AUGMENT, epoch, step)
        augmented = []
        # The block holds no yield: whoever takes the batch must find its own generator.
        with seeded(self.seed, device=self.device):
            for chunk, some in zip(chunks, torch.split(images, CHUNK), strict=True):
                torch.manual_seed(chunk_seeds[chunk])
                augmented.append(self.augment(some))
        return torch.cat(augmented)[own.start - start :][: own.stop - own.start]

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """See :meth:`Data.test_batches`."""
        batches = zip(
            torch.split(self.test_images, batch_size),
            torch.split(self.test_labels, batch_size),
            strict=True,
        )
        for images, labels in list(batches)[self.ranks.rank :: self.ranks.count]:
            with seeded(self.seed, AUGMENT, device=self.device):
                prepared = self.prepare(images)
            yield self.normalise(prepared), labels


@dataclass(frozen=True, kw_only=True)
class FolderData(Data):
    """Images read from files as they are needed, by worker processes that live on."""

    train_set: Images
    test_set: Images
    augment: v2.Transform
    prepare: v2.Transform
    normalise: v2.Transform
    workers: int
    loaders: dict[str, _Loader] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device, ranks: Ranks = ALONE) -> Self:
        """See :meth:`Data.to`; the workers are its own."""
        return replace(self, device=device, ranks=ranks, loaders={})

    def train_batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """See :meth:`Data.train_batches`."""
        batches = [
            [(epoch, place) for place in places[self.ranks.part(len(places))].tolist()]
            for places in self.batch_order(epoch, batch_size)[first:]
        ]
        return self._loader("train", self.train_set, self.augment).read(batches)

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """See :meth:`Data.test_batches`."""
        places = torch.split(torch.arange(self.test_size), batch_size)
        own = places[self.ranks.rank :: self.ranks.count]
        batches = [[(0, place) for place in batch.tolist()] for batch in own]
        return self._loader("test", self.test_set, self.prepare).read(batches)

    def _loader(self, name: str, images: Images, transform: v2.Transform) -> _Loader:
        if name not in self.loaders:
            items = _Items(images, transform, self.seed)
            self.loaders[name] = _Loader(items, self.workers, self.device, self.normalise)
        return self.loaders[name]


Key = tuple[int, int]  # epoch, image


class _Loader:
    """A DataLoader whose workers outlive an epoch; the next batch is on its way to the device."""

    def __init__(
        self, items: _Items, workers: int, device: torch.device, normalise: v2.Transform
    ) -> None:
        self.device = device
        self.normalise = normalise
        self.batches = _Batches()
        on_cuda = device.type == "cuda"
        self.loader: DataLoader[Any] = DataLoader(
            items,
            batch_sampler=self.batches,
            num_workers=workers,
            pin_memory=on_cuda,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            generator=torch.Generator().manual_seed(derived_seed(items.seed, ORDER)),
        )

    def read(self, batches: list[list[Key]]) -> Iterator[Batch]:
        """Yield these batches, each moved while the one before is used."""
        self.batches.keys = batches
        waiting: list[Batch] = []
        for images, labels in self.loader:
            moved = (self._moved(images), self._moved(labels))
            yield from waiting
            waiting = [(self.normalise(moved[0]), moved[1])]
        yield from waiting

    def _moved(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=values.is_pinned())


class _Batches(Sequence[list[Key]]):
    """The keys of the batches to come; it stays in the process that trains."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.keys[index]


@dataclass(frozen=True)
class _Items(Dataset[tuple[Tensor, int]]):
    """Transformed images; every image has its own seed, so the workers' number changes nothing."""

    images: Images
    transform: v2.Transform
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        epoch, index = key
        image, label = self.images[index]
        with seeded(self.seed, AUGMENT, epoch, index):
            return self.transform(image), label

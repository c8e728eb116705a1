"""Loading of images by worker processes that read, decode and augment while the device computes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from prunec.datasets.sources import Images, Label
from prunec.errors import DataError
from prunec.seeding import derived_seed, seeded

ORDER, AUGMENT = 1, 2  # parts of seeds, so that order and augmentation draw unrelated numbers
PREFETCH = 4  # batches that each worker prepares ahead: a slow image then stalls no step

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  # epoch, image


class Loader:
    """DataLoader with persistent workers, and copies to the device that overlap with computing.

    Attributes:
        finish: makes a batch of what workers delivered, where they do not.
    """

    def __init__(
        self,
        items: Items,
        workers: int,
        device: torch.device,
        normalise: v2.Transform,
        *,
        gather: Callable[..., Any] | None = None,
        finish: Callable[[Any], Batch | DataError] | None = None,
    ) -> None:
        self.device = device
        self.normalise = normalise
        self.batches = _Batches()
        self.finish = finish
        on_cuda = device.type == "cuda"
        self.loader: DataLoader[Any] = DataLoader(
            items,
            batch_sampler=self.batches,
            collate_fn=gather or collate,
            num_workers=workers,
            worker_init_fn=_begin_worker,
            pin_memory=on_cuda and finish is None,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            generator=torch.Generator().manual_seed(derived_seed(items.seed, ORDER)),
        )

    def read(self, batches: list[list[Key]]) -> Iterator[Batch]:
        """Yield these batches, each copied to the device while the one before is in use.

        Raises:
            DataError: an image cannot be read or augmented, or a worker died.
        """
        self.batches.keys = batches
        waiting: list[Batch] = []
        for delivery in delivered(self.loader):
            batch = self._finished(delivery)
            if isinstance(batch, DataError):
                # A copy: an exception whose frames refer to it is a reference cycle, which keeps
                # the workers alive; torch then waits five seconds for each.
                raise copy(batch)
            images, labels = map(self._moved, batch)
            yield from waiting
            waiting = [(self.normalise(images), labels.long())]
        yield from waiting

    def _finished(self, delivery: Any) -> Batch | DataError:
        if self.finish is not None and not isinstance(delivery, DataError):
            return self.finish(delivery)
        batch: Batch | DataError = delivery
        return batch

    def _moved(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)


def _begin_worker(_: int) -> None:
    """Ignore Ctrl-C in a worker, which the trainer handles, and discard its standard error.

    libjpeg writes warnings there without the name of the file; `prunec data check` collects them
    per image. Errors of a worker are returned as values.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the current step still needs its batch
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


class _Batches(Sequence[list[Key]]):
    """Keys of the batches to read; this object stays in the training process."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.keys[index]


Item = tuple[Tensor, Label, str]  # image, label, name


@dataclass(frozen=True)
class Items(Dataset[Item | DataError]):
    """Transformed images; each has its own seed, so results do not depend on the workers.

    An error is returned as a value: raised in a worker, it would arrive as a traceback.
    """

    images: Images
    transform: nn.Module
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Item | DataError:
        epoch, index = key
        name = self.images.name(index)
        try:
            image, label = self.images[index]
            with seeded(self.seed, AUGMENT, epoch, index):
                return *transformed(self.transform, image, label, name), name
        except DataError as error:
            return error


def transformed(
    transform: nn.Module, image: Tensor, label: Label, name: str
) -> tuple[Tensor, Label]:
    """Return ``transform(image, label)``.

    Raises:
        DataError: the transform fails on this image; names the image.
    """
    try:
        result: tuple[Tensor, Label] = transform(image, label)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = "×".join(map(str, image.shape))
        raise DataError(
            f"{name}, an image of {shape} (C×H×W), does not fit the transforms: {error}",
            remedy="Let data.augment and data.prepare take images of any size (Resize, "
            "RandomResizedCrop, or pad_if_needed = true), or remove the image.",
        ) from error
    return result


def collate(items: Sequence[Item | DataError]) -> Batch | DataError:
    """Return a batch, or the first error among its images."""
    good: list[Item] = []
    for item in items:
        if isinstance(item, DataError):
            return item
        good.append(item)
    first = good[0]
    other = next((item for item in good if item[0].shape != first[0].shape), None)
    if other is not None:
        return _of_two_sizes(first, other)
    images, labels = default_collate([item[:2] for item in good])
    return images, labels


def _of_two_sizes(first: Item, other: Item) -> DataError:
    one, two = ("×".join(map(str, item[0].shape)) for item in (first, other))
    return DataError(
        f"images of a batch have different sizes: {first[2]} comes out as {one} (C×H×W), "
        f"{other[2]} as {two}",
        remedy="Let data.augment and data.prepare end at one size: with CenterCrop, RandomCrop, "
        "RandomResizedCrop or a Resize to two sides, size = [224, 224].",
    )


def delivered(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield from ``loader``; the death of a worker raises DataError here, and nowhere else.

    Raises:
        DataError: a worker process died, or memory that it shares ran out.
    """
    with _workers_explained(), _quiet_deaths():
        batches = iter(loader)
    while True:
        with _workers_explained():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _quiet_deaths() -> Iterator[None]:
    """Keep torch from installing its SIGCHLD handler.

    That handler raises at any point of the program, even in the middle of a step. Waiting for the
    batch of a dead worker raises within five seconds in any case.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def _workers_explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise DataError(
            f"a process that loads images died ({_brief(error)})",
            remedy="Usually memory ran out: lower data.workers, or give the container more shared "
            "memory (docker run --shm-size=8g). `dmesg` names processes that the system killed. "
            "Continue a run with: prunec train --resume",
        ) from error


_SIGNS = (
    "exited unexpectedly",
    "killed by signal",
    "shared memory",
    "(shm)",
    "Too many open files",
)


def _brief(error: Exception) -> str:
    """Return the line with the cause: the last of a worker's traceback, else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else lines[0]

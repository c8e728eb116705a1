"""The data sets by name: the embedded one, and torchvision's own loaders."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.transforms import v2

from prunec.data import LABELS, load_embedded
from prunec.errors import DataError
from prunec.recipe import DataSpec


@dataclass(frozen=True)
class Split:
    """One half of a set held in memory: uint8 images [N, C, H, W], int64 labels [N]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class InMemory:
    """A small set, held in memory."""

    train: Split
    test: Split
    labels: tuple[str, ...]


class Images(Protocol):
    """Labelled images of any size, as torchvision's folder sets give them."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        """Return one uint8 image [C, H, W] and its label."""


@dataclass(frozen=True)
class OnDisk:
    """A large set, read as it is needed."""

    train: Images
    test: Images
    labels: tuple[str, ...]


def read_source(spec: DataSpec) -> InMemory | OnDisk:
    """Return the set that ``spec`` names, fetched first where that is allowed and possible.

    Raises:
        DataError: files are missing or damaged and cannot be fetched; says which and where to.
    """
    return _SOURCES[spec.name](spec)


def _embedded(_: DataSpec) -> InMemory:
    tensors = load_embedded()

    def split(name: str) -> Split:
        images = tensors[f"{name}_images"].unsqueeze(1)
        return Split(images, tensors[f"{name}_labels"].to(torch.int64))

    return InMemory(split("train"), split("test"), LABELS)


def _fashion_mnist(spec: DataSpec) -> InMemory:
    kind = torchvision.datasets.FashionMNIST
    archives = [name for name, _ in kind.resources]
    folder = Path(spec.root) / "FashionMNIST" / "raw"
    fetch = Fetch("Fashion-MNIST", folder, archives, kind.mirrors[-1])
    train, test = _both(spec, fetch, kind)
    return InMemory(
        Split(train.data.unsqueeze(1), train.targets),
        Split(test.data.unsqueeze(1), test.targets),
        tuple(train.classes),
    )


def _cifar(kind: Any, title: str, spec: DataSpec) -> InMemory:
    fetch = Fetch(title, Path(spec.root), [kind.filename], kind.url)
    train, test = _both(spec, fetch, kind)
    return InMemory(_channels_first(train), _channels_first(test), tuple(train.classes))


def _cifar10(spec: DataSpec) -> InMemory:
    return _cifar(torchvision.datasets.CIFAR10, "CIFAR-10", spec)


def _cifar100(spec: DataSpec) -> InMemory:
    return _cifar(torchvision.datasets.CIFAR100, "CIFAR-100", spec)


def _channels_first(dataset: Any) -> Split:
    pixels = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(pixels), torch.tensor(dataset.targets))


@dataclass(frozen=True)
class Fetch:
    """What to fetch for a set, from where, and where to put it."""

    title: str
    folder: Path
    archives: list[str]
    url: str

    def there(self) -> bool:
        """Say whether every archive lies in its place."""
        return all((self.folder / name).is_file() for name in self.archives)

    def error(self, cause: Exception, download: bool) -> DataError:
        """Return the error that says what was looked for and what to do."""
        tried = "could not be fetched" if download else "is missing (data.download = false)"
        return DataError(
            f"{self.title} {tried}: looked for {', '.join(self.archives)} in {self.folder} "
            f"({_first_line(cause)})",
            remedy=f"Fetch {'it' if len(self.archives) == 1 else 'them'} from {self.url} and put "
            f"{'it' if len(self.archives) == 1 else 'them'} into {self.folder}, or set data.root; "
            'data.name = "embedded" needs no file.',
        )


def _both(spec: DataSpec, fetch: Fetch, kind: Any) -> tuple[Any, Any]:
    # With the archives in place torchvision's "download" only checks and unpacks them.
    download = spec.download or fetch.there()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            train, test = (kind(spec.root, train=half, download=download) for half in (True, False))
    except (OSError, RuntimeError, EOFError) as error:
        raise fetch.error(error, download) from error
    return train, test


def _imagenet(spec: DataSpec) -> OnDisk:
    try:
        train, test = (
            torchvision.datasets.ImageNet(spec.root, split, transform=v2.PILToTensor())
            for split in ("train", "val")
        )
    except (ImportError, OSError, RuntimeError) as error:
        scipy = " Run pip install scipy: it reads the development kit."
        raise DataError(
            f"ImageNet was not found in {spec.root} ({_first_line(error)})",
            remedy="Its licence forbids fetching it for you: register at https://image-net.org, "
            "fetch ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar and put them into {spec.root} (they are unpacked there once, "
            "150 GB), or set data.root. Where train/ and val/ hold the images in folders already, "
            f'say data.name = "imagefolder".{scipy if isinstance(error, ImportError) else ""}',
        ) from error
    return OnDisk(train, test, tuple(names[0] for names in train.classes))


def _imagefolder(spec: DataSpec) -> OnDisk:
    root = Path(spec.root)
    held_out = root / "val" if (root / "val").is_dir() else root / "test"
    train, test = (_one_folder(folder) for folder in (root / "train", held_out))
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"{root / 'train'} and {held_out} hold different classes: {_some(differing)} "
            f"{'is' if len(differing) == 1 else 'are'} only in one of them",
            remedy="Give both the same sub-folders, one a class.",
        )
    return OnDisk(train, test, tuple(train.classes))


def _one_folder(folder: Path) -> Any:
    try:
        return torchvision.datasets.ImageFolder(str(folder), transform=v2.PILToTensor())
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"no images were found in {folder} ({_first_line(error)})",
            remedy=f"Put images into {folder.parent}/train/CLASS/ and {folder.parent}/val/CLASS/ "
            "(or test/CLASS/), or set data.root.",
        ) from error


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_SOURCES: dict[str, Callable[[DataSpec], InMemory | OnDisk]] = {
    "embedded": _embedded,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagenet": _imagenet,
    "imagefolder": _imagefolder,
}

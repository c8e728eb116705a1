"""Data sets by name: the embedded one, torchvision's, folders, shards, sequences."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from prunec.datasets.composed import read_composed
from prunec.datasets.embedded import LABELS, load_embedded
from prunec.datasets.folders import read_imagefolder, read_imagenet
from prunec.datasets.har import read_har
from prunec.datasets.shards import read_webdataset
from prunec.datasets.sources import InMemory, OnDisk, Split
from prunec.datasets.speech import read_twelve, read_words
from prunec.datasets.voc import read_voc
from prunec.errors import DataError
from prunec.recipe import DataSpec
from prunec.wording import first_line


def read_source(spec: DataSpec) -> InMemory | OnDisk:
    """Open the data set that ``spec`` names; download it first if allowed and necessary.

    Raises:
        DataError: files are missing or damaged and cannot be downloaded; names them and their
            place.
    """
    if spec.name == "none":
        raise DataError("data.name = 'none': the recipe has no images", remedy="Name a data set.")
    if "\0" in spec.root:
        raise DataError("data.root has the character 0, which no path has", remedy="Remove it.")
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
    """Archives of a data set: names, URL, and the folder that they are downloaded to."""

    title: str
    folder: Path
    archives: list[str]
    url: str

    def there(self) -> bool:
        """Return whether every archive is in the folder."""
        return all((self.folder / name).is_file() for name in self.archives)

    def error(self, cause: Exception, download: bool) -> DataError:
        """Return the error that names the missing archives and the steps to get them."""
        tried = "cannot be downloaded" if download else "is missing (data.download = false)"
        return DataError(
            f"{self.title} {tried}: looked for {', '.join(self.archives)} in {self.folder} "
            f"({first_line(cause)})",
            remedy=f"Download {'it' if len(self.archives) == 1 else 'them'} from {self.url}, put "
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


_SOURCES: dict[str, Callable[[DataSpec], InMemory | OnDisk]] = {
    "embedded": _embedded,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagenet": read_imagenet,
    "imagefolder": read_imagefolder,
    "webdataset": read_webdataset,
    "har": read_har,
    "speech-commands": read_words,
    "speech-commands-12": read_twelve,
    "voc-segmentation": read_voc,
    "embedded-segmentation": lambda _: read_composed(),
}

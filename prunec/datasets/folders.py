"""Images in folders, one a class: your own, and ImageNet as it is unpacked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from prunec.datasets.decoding import damaged, decode
from prunec.datasets.sources import OnDisk
from prunec.errors import DataError
from prunec.recipe import DataSpec
from prunec.wording import first_line, some_of


class FileImages:
    """One file an image.

    The names stand in one array: a list of a million texts would be copied into every worker, page
    by page, as its reference counts change.
    """

    def __init__(self, folder: Path, samples: Sequence[tuple[str, int]]) -> None:
        """Take paths below ``folder``, each with its label."""
        self.folder = folder
        prefix = f"{folder}{os.sep}"
        self.paths = np.array([os.fsencode(path.removeprefix(prefix)) for path, _ in samples])
        self.labels = torch.tensor([label for _, label in samples])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self._path(index)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise damaged(str(path), (error.strerror or str(error)).lower()) from error
        return decode(content, str(path)), int(self.labels[index])

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self._path(index))

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation."""
        return torch.randperm(len(self), generator=generator)

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.paths[index])


def read_imagenet(spec: DataSpec) -> OnDisk:
    """Return ImageNet, unpacked first where only its archives lie in ``spec.root``.

    Raises:
        DataError: it is not there.
    """
    try:
        train, test = (
            torchvision.datasets.ImageNet(spec.root, split) for split in ("train", "val")
        )
    except (ImportError, OSError, RuntimeError) as error:
        scipy = " Run pip install scipy: it reads the development kit."
        raise DataError(
            f"ImageNet was not found in {spec.root} ({first_line(error)})",
            remedy="Its licence forbids fetching it for you: register at https://image-net.org, "
            "fetch ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar and put them into {spec.root} (they are unpacked there once, "
            "150 GB), or set data.root. Where train/ and val/ hold the images in folders already, "
            f'say data.name = "imagefolder".{scipy if isinstance(error, ImportError) else ""}',
        ) from error
    return OnDisk(_files(train), _files(test), tuple(names[0] for names in train.classes))


def read_imagefolder(spec: DataSpec) -> OnDisk:
    """Return the images in ``train/CLASS/`` and ``val/CLASS/`` (or ``test/CLASS/``).

    Raises:
        DataError: there are none, or the halves have different classes.
    """
    root = Path(spec.root)
    held_out = root / "val" if (root / "val").is_dir() else root / "test"
    train, test = (_one_folder(folder) for folder in (root / "train", held_out))
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"{root / 'train'} and {held_out} hold different classes: {some_of(differing)} "
            f"{'is' if len(differing) == 1 else 'are'} only in one of them",
            remedy="Give both the same sub-folders, one a class.",
        )
    return OnDisk(_files(train), _files(test), tuple(train.classes))


def _one_folder(folder: Path) -> Any:
    try:
        return torchvision.datasets.ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"no images were found in {folder} ({first_line(error)})",
            remedy=f"Put images into {folder.parent}/train/CLASS/ and {folder.parent}/val/CLASS/ "
            "(or test/CLASS/), or set data.root.",
        ) from error


def _files(dataset: Any) -> FileImages:
    return FileImages(Path(dataset.root), dataset.samples)

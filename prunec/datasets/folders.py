"""Images in folders, one folder per class: the user's own, and unpacked ImageNet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from prunec.datasets.decoding import damaged, decode, kind
from prunec.datasets.encoded import Encoded, encoded
from prunec.datasets.sources import OnDisk
from prunec.errors import DataError
from prunec.recipe import DataSpec
from prunec.recipe.network_and_data import MOST_PIXELS
from prunec.wording import first_line, some_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
"""Suffixes of image files, in upper or lower case."""


class FileImages:
    """Images of one file each.

    Names are kept in one array: a list of a million strings would be copied into every worker
    process, page by page, because reading a string changes its reference count.
    """

    def __init__(
        self, folder: Path, samples: Sequence[tuple[str, int]], most: int = MOST_PIXELS
    ) -> None:
        """Store ``samples``, (path below ``folder``, label), and the limit of pixels per image."""
        self.folder, self.most = folder, most
        prefix = f"{folder}{os.sep}"
        self.paths = np.array([os.fsencode(path.removeprefix(prefix)) for path, _ in samples])
        self.labels = torch.tensor([label for _, label in samples])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self._path(index)
        return decode(read_file(path), str(path), self.most), int(self.labels[index])

    def encoded(self, index: int) -> tuple[Encoded | Tensor, int]:
        """See :meth:`EncodedImages.encoded`."""
        path = self._path(index)
        return encoded(read_file(path), str(path), self.most), int(self.labels[index])

    def kind(self, index: int) -> str:
        """Return the kind of an image."""
        path = self._path(index)
        return kind(read_file(path), str(path), self.most)

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self._path(index))

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation."""
        return torch.randperm(len(self), generator=generator)

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.paths[index])


def read_imagenet(spec: DataSpec) -> OnDisk:
    """Open ImageNet in ``spec.root``; unpack its archives first if necessary.

    Raises:
        DataError: neither images nor archives are there.
    """
    try:
        train, test = (
            torchvision.datasets.ImageNet(spec.root, split) for split in ("train", "val")
        )
    except (ImportError, OSError, RuntimeError) as error:
        scipy = " Run pip install scipy: it reads the development kit."
        raise DataError(
            f"ImageNet was not found in {spec.root} ({first_line(error)})",
            remedy="Its licence forbids an automatic download: register at https://image-net.org, "
            "download ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar and put them into {spec.root} (they are unpacked there once, "
            "150 GB), or set data.root. If train/ and val/ already hold the images in folders, "
            f'set data.name = "imagefolder".{scipy if isinstance(error, ImportError) else ""}',
        ) from error
    names = tuple(names[0] for names in train.classes)
    return OnDisk(_files(train, spec), _files(test, spec), names)


def read_imagefolder(spec: DataSpec) -> OnDisk:
    """Open the images in ``train/CLASS/`` and ``val/CLASS/`` (or ``test/CLASS/``).

    In a folder that has only class folders, every fifth image of a class is a test image.

    Raises:
        DataError: there are no images, or the splits have different classes.
    """
    root = Path(spec.root)
    if root.is_dir() and not (root / "train").is_dir() and _holds_classes(root):
        return _divided(_one_folder(root), spec)
    if not (root / "train").is_dir():
        what = "it has neither train/ nor one folder of images per class"
        raise _no_images(root, root, what if root.is_dir() else "there is no such folder")
    held_out = root / "val" if (root / "val").is_dir() else root / "test"
    train, test = (_one_folder(folder) for folder in (root / "train", held_out))
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"{root / 'train'} and {held_out} have different classes: {some_of(differing)} "
            f"{'is' if len(differing) == 1 else 'are'} only in one of them",
            remedy="Give both the same sub-folders, one per class.",
        )
    return OnDisk(
        _files(train, spec),
        _files(test, spec),
        tuple(train.classes),
        left_out=dict(sorted((train.left_out + test.left_out).items())),
    )


HELD_OUT = 5
"""One of so many images of a class is held out for testing, in a folder without splits."""


def _holds_classes(root: Path) -> bool:
    """Return whether the folder has class folders with images, none called ``val`` or ``test``."""
    classes = [Path(entry) for entry in os.scandir(root) if _is_class(entry)]
    named = {folder.name.lower() for folder in classes} & {"val", "test"}
    return not named and any(
        file.suffix.lower() in SUFFIXES for folder in classes for file in folder.iterdir()
    )


def _divided(folder: _Folder, spec: DataSpec) -> OnDisk:
    """Split a folder without splits into training and test images, class by class."""
    test, seen = [], Counter[int]()
    for _, label in folder.samples:
        seen[label] += 1
        test.append(seen[label] % HELD_OUT == 0)
    alone = [folder.classes[label] for label, count in seen.items() if count < HELD_OUT]
    if alone:
        raise DataError(
            f"{spec.root} has fewer than {HELD_OUT} images of {some_of(alone)}: too few to hold "
            "one out for testing",
            remedy="Add images, or divide them yourself: train/CLASS/ and val/CLASS/.",
        )
    halves = [
        [sample for sample, held in zip(folder.samples, test, strict=True) if held is wanted]
        for wanted in (False, True)
    ]
    train, held_out = (FileImages(Path(folder.root), half, spec.max_pixels) for half in halves)
    left_out = dict(sorted(folder.left_out.items()))
    return OnDisk(train, held_out, tuple(folder.classes), left_out=left_out)


class _Folder(torchvision.datasets.ImageFolder):  # type: ignore[misc] # it has no types
    """A folder of class folders, without hidden files of systems, editors and browsers."""

    def __init__(self, root: Path) -> None:
        self.left_out: Counter[str] = Counter()
        super().__init__(str(root), is_valid_file=self._is_image)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the names of the classes, and name → label."""
        names = sorted(entry.name for entry in os.scandir(directory) if _is_class(entry))
        if not names:
            raise FileNotFoundError("it has no folder of a class")
        return names, {name: label for label, name in enumerate(names)}

    def _is_image(self, path: str) -> bool:
        name = os.path.basename(path)
        hidden, suffix = name.startswith("."), os.path.splitext(name)[1].lower()
        if not hidden and suffix in SUFFIXES:
            return True
        self.left_out["hidden files" if hidden else f"*{suffix}" if suffix else "no suffix"] += 1
        return False


def _is_class(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _one_folder(folder: Path) -> _Folder:
    try:
        return _Folder(folder)
    except (OSError, RuntimeError) as error:
        raise _no_images(folder, folder.parent, first_line(error).rstrip(" .")) from error


def _no_images(folder: Path, root: Path, why: str) -> DataError:
    return DataError(
        f"no images were found in {folder}: {why}",
        remedy=f"Put images into {root}/train/CLASS/ and {root}/val/CLASS/ (or test/CLASS/), or "
        f"all into {root}/CLASS/; in every class at least one of {', '.join(SUFFIXES)}; or set "
        "data.root.",
    )


def _files(dataset: Any, spec: DataSpec) -> FileImages:
    return FileImages(Path(dataset.root), dataset.samples, spec.max_pixels)


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        DamagedData: it cannot be read; names the reason.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(str(path), (error.strerror or str(error)).lower()) from error

"""PASCAL VOC 2012 for segmentation, as torchvision's VOCSegmentation has it on disk.

ROOT/VOCdevkit/VOC2012/
├── JPEGImages/NAME.jpg
├── SegmentationClass/NAME.png          a class number a pixel (a palette, or grey), 255 for none
├── SegmentationClassAug/NAME.png       the same of SBD's images, for data.images = "trainaug"
└── ImageSets/Segmentation/{train,val,trainaug}.txt
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from prunec.datasets.decoding import damaged, decode, reason
from prunec.datasets.sources import OnDisk
from prunec.errors import DamagedData, DataError
from prunec.recipe import DataSpec
from prunec.tasks.segmentation import VOID, Segmentation
from prunec.wording import first_line

FOLDER = Path("VOCdevkit") / "VOC2012"
ARCHIVE = "VOCtrainval_11-May-2012.tar"
URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
MODES = ("P", "L")  # of Pillow: one byte a pixel, which is the class
KINDS = {
    "1": "one bit a pixel",
    "I;16": "16-bit grey",
    "I": "16-bit grey",  # of Pillow's earlier versions
    "LA": "grey with transparency",
}
"""Other modes of a PNG that are no colours."""


class MaskedImages:
    """A photograph and its mask each."""

    def __init__(self, folder: Path, names: Sequence[str], masks: Sequence[str]) -> None:
        """Take names of photographs without their suffix, and the folders of their masks."""
        self.folder = folder
        self.names, self.masks = np.array(names), np.array(masks)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = Path(self.name(index))
        image = decode(_read(path), str(path))
        path = self.folder / str(self.masks[index]) / f"{self.names[index]}.png"
        mask = _mask(_read(path), str(path))
        if mask.shape != image.shape[1:]:
            sizes = ("×".join(map(str, value.shape[-2:])) for value in (mask, image))
            raise _unusable(str(path), "is of {} pixels, its image of {} (H×W)".format(*sizes))
        return image, mask

    def name(self, index: int) -> str:
        """Return the photograph's path."""
        return str(self.folder / "JPEGImages" / f"{self.names[index]}.jpg")

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation."""
        return torch.randperm(len(self), generator=generator)


def read_voc(spec: DataSpec) -> OnDisk:
    """Return PASCAL VOC 2012, fetched or unpacked first where that is allowed and needed.

    Raises:
        DataError: it is not there, or a list is missing or empty.
    """
    folder = Path(spec.root) / FOLDER
    if not folder.is_dir():
        _fetch(spec)
    train, test = (_listed(folder, name) for name in (spec.images, "val"))
    return OnDisk(train, test, CLASSES, Segmentation)


def _fetch(spec: DataSpec) -> None:
    there = (Path(spec.root) / ARCHIVE).is_file()
    try:
        if not (spec.download or there):
            raise DataError("data.download = false")
        with contextlib.redirect_stdout(sys.stderr):
            torchvision.datasets.VOCSegmentation(spec.root, download=True)
    except (OSError, RuntimeError, EOFError, DataError) as error:
        raise DataError(
            f"PASCAL VOC 2012 was not found in {Path(spec.root) / FOLDER} ({first_line(error)})",
            remedy=f"Fetch {ARCHIVE} (2 GB) from {URL} and put it into {spec.root}, or set "
            "data.root. Its photographs are under the terms of use of Flickr; the page says what "
            'they may be used for. data.name = "embedded-segmentation" needs no file.',
        ) from error


def _listed(folder: Path, name: str) -> MaskedImages:
    path = folder / "ImageSets" / "Segmentation" / f"{name}.txt"
    try:
        names = path.read_text("utf-8").split()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {first_line(error)}", remedy=_list(name)
        ) from error
    if not names:
        raise DataError(f"{path} names no image", remedy=_list(name))
    more = folder / "SegmentationClassAug"
    there = {entry.stem for entry in more.glob("*.png")} if name == "trainaug" else set()
    masks = [more.name if stem in there else "SegmentationClass" for stem in names]
    return MaskedImages(folder, names, masks)


def _list(name: str) -> str:
    if name != "trainaug":
        return f"It comes with {ARCHIVE}, from {URL}: unpack it again."
    return (
        "VOC does not bring this list: it is the usual one of the 10,582 images that VOC's and "
        "those of SBD (Hariharan et al., ICCV 2011) make, its masks in SegmentationClassAug/. "
        'data.images = "train" takes VOC\'s own 1,464.'
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(str(path), (error.strerror or str(error)).lower()) from error


def _mask(content: bytes, name: str) -> Tensor:
    """The class numbers in a PNG: a palette's colours are for the eye."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, values = image.mode, torch.from_numpy(np.array(image))
    except Exception as error:  # Pillow raises what its formats happen to raise
        raise damaged(name, reason(content, error)) from error
    if mode not in MODES:
        kind = KINDS.get(mode, "colours")
        raise _unusable(name, f"holds {kind} (Pillow's mode {mode}), not one byte a pixel: a class")
    outside = values[(values >= len(CLASSES)) & (values != VOID)]
    if len(outside):
        raise _unusable(
            name, f"holds class {int(outside[0])}; there are 0…{len(CLASSES) - 1}, and {VOID}"
        )
    return values


def _unusable(name: str, why: str) -> DamagedData:
    return DamagedData(
        f"{name} cannot be a mask: it {why}",
        remedy="Mend or remove it; `prunec data check RECIPE` lists every such file.",
    )

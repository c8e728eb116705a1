"""PASCAL VOC 2012 for segmentation, as torchvision's VOCSegmentation has it on disk.

ROOT/VOCdevkit/VOC2012/
├── JPEGImages/NAME.jpg
├── SegmentationClass/NAME.png          a class number a pixel (a palette, or grey), 255 for none
├── SegmentationClassAug/NAME.png       the same of SBD's images, for data.images = "trainaug"
└── ImageSets/Segmentation/{train,val,trainaug}.txt
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from prunec.datasets.decoding import decode, kind, opened, orientation
from prunec.datasets.folders import read_file
from prunec.datasets.pixels import turned
from prunec.datasets.sources import OnDisk
from prunec.errors import DamagedData, DataError
from prunec.recipe import DataSpec
from prunec.recipe.network_and_data import MOST_PIXELS
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
DEPTH = 24  # where a PNG says how many bits a sample has
KINDS = {
    "1": "one bit a pixel",
    "I;16": "16-bit grey",
    "I": "16-bit grey",  # of Pillow's earlier versions
    "LA": "grey with transparency",
}
"""Other modes of a PNG that are no colours."""


class MaskedImages:
    """A photograph and its mask each."""

    def __init__(
        self, folder: Path, names: Sequence[str], masks: Sequence[str], most: int = MOST_PIXELS
    ) -> None:
        """Take names of photographs without suffix, folders of masks, the most pixels of each."""
        self.folder, self.most = folder, most
        self.names, self.masks = np.array(names), np.array(masks)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = Path(self.name(index))
        image = decode(read_file(path), str(path), self.most)
        path = self.folder / str(self.masks[index]) / f"{self.names[index]}.png"
        mask = _mask(read_file(path), str(path), self.most)
        if mask.shape != image.shape[1:]:
            sizes = ("×".join(map(str, value.shape[-2:])) for value in (mask, image))
            raise _unusable(str(path), "is of {} pixels, its image of {} (H×W)".format(*sizes))
        return image, mask

    def name(self, index: int) -> str:
        """Return the photograph's path."""
        return str(self.folder / "JPEGImages" / f"{self.names[index]}.jpg")

    def kind(self, index: int) -> str:
        """Return what kind of photograph it is."""
        path = Path(self.name(index))
        return kind(read_file(path), str(path), self.most)

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
    train, test = (_listed(folder, name, spec.max_pixels) for name in (spec.images, "val"))
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


def _listed(folder: Path, name: str, most: int) -> MaskedImages:
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
    return MaskedImages(folder, names, masks, most)


def _list(name: str) -> str:
    if name != "trainaug":
        return f"It comes with {ARCHIVE}, from {URL}: unpack it again."
    return (
        "VOC does not bring this list: it is the usual one of the 10,582 images that VOC's and "
        "those of SBD (Hariharan et al., ICCV 2011) make, its masks in SegmentationClassAug/. "
        'data.images = "train" takes VOC\'s own 1,464.'
    )


def _mask(content: bytes, name: str, most: int) -> Tensor:
    """The class numbers in a PNG: a palette's colours are for the eye."""
    with opened(content, name, most, ("PNG",)) as image:
        flaw = _no_classes(image, content)
        if flaw:
            raise _unusable(name, flaw)
        values = turned(torch.from_numpy(np.array(image))[None], orientation(image))[0]
    outside = values[(values >= len(CLASSES)) & (values != VOID)]
    if len(outside):
        raise _unusable(
            name, f"holds class {int(outside[0])}; there are 0…{len(CLASSES) - 1}, and {VOID}"
        )
    return values


def _no_classes(image: Image.Image, content: bytes) -> str:
    """What a PNG holds instead of one byte a pixel, the class; nothing where it holds that."""
    if image.mode not in MODES:
        kind = KINDS.get(image.mode, "colours")
        return f"holds {kind} (Pillow's mode {image.mode}), not one byte a pixel: a class"
    bits = content[DEPTH] if len(content) > DEPTH else 8
    if image.mode == "L" and bits < 8:
        return f"holds {bits}-bit grey, which is stretched to 0…255, not one byte a pixel: a class"
    return ""


def _unusable(name: str, why: str) -> DamagedData:
    return DamagedData(
        f"{name} cannot be a mask: it {why}",
        remedy="Mend or remove it; `prunec data check RECIPE` lists every such file.",
    )

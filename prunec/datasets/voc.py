"""PASCAL VOC 2012 for segmentation, in the layout of torchvision's VOCSegmentation.

ROOT/VOCdevkit/VOC2012/
├── JPEGImages/NAME.jpg
├── SegmentationClass/NAME.png          class number per pixel (palette or grey), 255 for none
├── SegmentationClassAug/NAME.png       the same for SBD's images, for data.images = "trainaug"
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
MODES = ("P", "L")  # Pillow's modes of one byte per pixel: the class
DEPTH = 24  # offset of the bit depth in a PNG: in the IHDR chunk
KINDS = {
    "1": "one bit per pixel",
    "I;16": "16-bit grey",
    "I": "16-bit grey",  # in earlier versions of Pillow
    "LA": "grey with transparency",
}
"""Other colourless modes of a PNG → words."""


class MaskedImages:
    """Photographs with their masks."""

    def __init__(
        self, folder: Path, names: Sequence[str], masks: Sequence[str], most: int = MOST_PIXELS
    ) -> None:
        """Store names of photographs without suffix, folders of their masks, limit of pixels."""
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
        """Return the kind of a photograph."""
        path = Path(self.name(index))
        return kind(read_file(path), str(path), self.most)

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation."""
        return torch.randperm(len(self), generator=generator)


def read_voc(spec: DataSpec) -> OnDisk:
    """Open PASCAL VOC 2012; download or unpack it first if allowed and necessary.

    Raises:
        DataError: the files are missing, or a list is missing or empty.
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
            remedy=f"Download {ARCHIVE} (2 GB) from {URL} and put it into {spec.root}, or set "
            "data.root. Its photographs are under the terms of use of Flickr; the page states "
            'them. data.name = "embedded-segmentation" needs no file.',
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
        "VOC does not contain this list: it is the usual one of 10,582 images of VOC and SBD "
        "(Hariharan et al., ICCV 2011), with masks in SegmentationClassAug/. "
        'data.images = "train" takes VOC\'s own 1,464.'
    )


def _mask(content: bytes, name: str, most: int) -> Tensor:
    """Return the class numbers in a PNG, ignoring the colours of its palette."""
    with opened(content, name, most, ("PNG",)) as image:
        flaw = _no_classes(image, content)
        if flaw:
            raise _unusable(name, flaw)
        values = turned(torch.from_numpy(np.array(image))[None], orientation(image))[0]
    outside = values[(values >= len(CLASSES)) & (values != VOID)]
    if len(outside):
        raise _unusable(
            name, f"has class {int(outside[0])}; there are 0…{len(CLASSES) - 1}, and {VOID}"
        )
    return values


def _no_classes(image: Image.Image, content: bytes) -> str:
    """Return what a PNG has instead of one byte per pixel, the class; empty for a valid mask."""
    if image.mode not in MODES:
        kind = KINDS.get(image.mode, "colours")
        return f"has {kind} (Pillow's mode {image.mode}) instead of one byte per pixel, a class"
    bits = content[DEPTH] if len(content) > DEPTH else 8
    if image.mode == "L" and bits < 8:
        return f"has {bits}-bit grey, scaled to 0…255, instead of one byte per pixel, a class"
    return ""


def _unusable(name: str, why: str) -> DamagedData:
    return DamagedData(
        f"{name} cannot be a mask: it {why}",
        remedy="Repair or remove it; `prunec data check RECIPE` lists every such file.",
    )

"""PASCAL VOC 2012 as it lies on disk, in miniature: palette PNGs, photographs of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((37, 50), (50, 40), (45, 45))  # height, width
VOID = 255


def write_voc(
    root: Path, train: int = 4, val: int = 3, more: Sequence[str] = (), classes: int = 21
) -> Path:
    """Write the set below ``root``; ``more`` are names of SBD's images. Return its folder.

    Every photograph shows a rectangle of a class before the background, bordered without label;
    its brightness tells the class.
    """
    folder = root / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    for place in (lists, *(folder / n for n in ("JPEGImages", "SegmentationClass"))):
        place.mkdir(parents=True, exist_ok=True)
    names = {
        "train": [f"2007_{i:06d}" for i in range(train)],
        "val": [f"2008_{i:06d}" for i in range(val)],
    }
    if more:
        (folder / "SegmentationClassAug").mkdir(exist_ok=True)
        names["trainaug"] = [*names["train"], *more]
    for split, stems in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for number, stem in enumerate([*names["train"], *names["val"], *more]):
        image, mask = scene(number, classes)
        Image.fromarray(image).save(folder / "JPEGImages" / f"{stem}.jpg", quality=95)
        place = "SegmentationClassAug" if stem in more else "SegmentationClass"
        save_mask(folder / place / f"{stem}.png", mask, palette=stem not in more)
    return folder


def scene(number: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = SIZES[number % len(SIZES)]
    label = 1 + number % (classes - 1)
    mask = np.zeros((height, width), np.uint8)
    mask[8:32, 6:34] = VOID
    mask[10:30, 8:32] = label
    image = np.full((height, width, 3), 20, np.uint8)
    image[8:32, 6:34] = 40 + 10 * label
    return image, mask


def save_mask(path: Path, mask: np.ndarray, *, palette: bool = True) -> None:
    image = Image.fromarray(mask)
    if palette:
        image = image.convert("P")
        image.putdata(mask.flatten().tolist())  # convert() may have chosen its own numbers
        image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path)

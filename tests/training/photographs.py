"""Small photographs with a name in their pixels, as files in folders and as WebDataset shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prunec.recipe import DataSpec

CLASSES = 3
Entry = tuple[str, bytes]


def photograph(
    number: int, label: int, kind: str = "png", size: tuple[int, int] = (20, 24)
) -> bytes:
    """An image whose red says the label, whose green and blue the number."""
    colour = (80 * label, number % 256, number // 256)
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def noise(size: tuple[int, int] = (40, 32), kind: str = "jpeg", mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, entries: Iterable[Entry]) -> Path:
    """A tar file as webdataset's ShardWriter writes it: USTAR, files of a sample in a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(number: int, kind: str = "png") -> list[Entry]:
    label = number % CLASSES
    key = f"{number:06d}"
    return [(f"{key}.cls", str(label).encode()), (f"{key}.{kind}", photograph(number, label, kind))]


def write_shards(root: Path, counts: dict[str, list[int]]) -> Path:
    """Shards of so many samples each, numbered through in every split."""
    for split, sizes in counts.items():
        first = 0
        for shard, size in enumerate(sizes):
            numbers = range(first, first + size)
            entries = [entry for number in numbers for entry in sample(number)]
            write_tar(root / f"{split}-{shard:06d}.tar", entries)
            first += size
    return root


def write_folders(root: Path, train: int = 6, val: int = 3) -> Path:
    for split, count in (("train", train), ("val", val)):
        for number in range(count * CLASSES):
            label = number % CLASSES
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06d}.png").write_bytes(photograph(number, label))
    return root


def spec_of(root: Path, name: Any = "webdataset", **more: Any) -> DataSpec:
    prepare = ({"name": "Resize", "size": 18}, {"name": "CenterCrop", "size": 16})
    augment = ({"name": "RandomCrop", "size": 16}, {"name": "RandomHorizontalFlip"})
    given = {"prepare": prepare, "augment": augment, **more}
    return DataSpec(name=name, root=str(root), **given)


def all_of(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def numbers(images: Tensor) -> list[int]:
    """The number of each image of a batch, read back from its pixels."""
    levels = ((images[:, :, 8, 8] * 0.5 + 0.5) * 255).round().long()
    return (levels[:, 1] + 256 * levels[:, 2]).tolist()

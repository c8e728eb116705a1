"""Images a second that training is given, from folders and from tar shards, by number of workers.

    python tests/bench/data_throughput.py --images 4000 --workers 0 4 8 16

The images are synthetic JPEGs of 500×400, some 60 kB each, written to a temporary folder (--folder
keeps them elsewhere, on the disk in question). They are decoded, cropped at random to 224×224,
flipped and delivered in batches of 64, as in training; normalisation is the device's work and left
out. With --cold the files are dropped from the system's cache before each measurement. The first
batches, while workers start, are not counted.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torchvision.transforms import v2

from prunec.batches.data import load_data
from prunec.recipe import DataSpec
from prunec.tables import table

SIZE = (500, 400)
CLASSES = 10
BATCH = 64
AUGMENT = ({"name": "RandomResizedCrop", "size": 224}, {"name": "RandomHorizontalFlip"})
PREPARE = ({"name": "Resize", "size": 256}, {"name": "CenterCrop", "size": 224})
STORES = {"folders": "imagefolder", "shards": "webdataset"}


@dataclass(frozen=True)
class Row:
    store: str
    workers: int
    images: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.images / self.seconds


def photographs(count: int) -> Iterator[bytes]:
    """Smooth colours and some grain: as costly to decode as a photograph of this size."""
    random = np.random.default_rng(0)
    for _ in range(count):
        coarse = random.integers(0, 256, (10, 13, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
        pixels = smooth + random.integers(-12, 13, smooth.shape)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
        yield file.getvalue()


def write(root: Path, images: int, shard: int) -> None:
    """The same images twice: one file each, and ``shard`` of them in a tar file."""
    distinct = list(photographs(min(images, 200)))  # the rest are copies: writing takes long
    for split, count in (("train", images), ("val", BATCH)):
        for first in range(0, count, shard):
            path = root / f"{split}-{first // shard:06d}.tar"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                for number in range(first, min(first + shard, count)):
                    content, label = distinct[number % len(distinct)], number % CLASSES
                    folder = root / split / f"{label:04d}"
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{number:08d}.jpg").write_bytes(content)
                    _add(tar, f"{number:08d}.cls", str(label).encode())
                    _add(tar, f"{number:08d}.jpg", content)
    os.sync()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def forget(root: Path) -> None:
    """Drop the files' pages from the system's cache."""
    for path in root.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def measure(root: Path, store: str, workers: int, device: torch.device, cold: bool) -> Row:
    name: Any = STORES[store]
    spec = DataSpec(name=name, root=str(root), augment=AUGMENT, prepare=PREPARE, workers=workers)
    data = replace(load_data(spec, seed=0).to(device), normalise=v2.Identity())
    if cold:
        forget(root)
    batches = data.train_batches(0, BATCH)
    for _ in range(1 + workers):
        next(batches)
    begin, images = time.perf_counter(), 0
    for batch, _ in batches:
        images += len(batch)
    return Row(store, workers, images, time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shard", type=int, default=250, help="images of a shard")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=1, help="the best of them is shown")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cpu", help="where batches are delivered")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    made = table(f"Images per second, {os.cpu_count()} cores", "workers", *STORES, numbers=STORES)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write(Path(folder), options.images, options.shard)
        for workers in options.workers:
            cells = [
                max(
                    measure(Path(folder), store, workers, device, options.cold).rate
                    for _ in range(options.rounds)
                )
                for store in STORES
            ]
            made.add_row(str(workers), *(f"{cell:,.0f}" for cell in cells))
    Console().print(made)


if __name__ == "__main__":
    main()

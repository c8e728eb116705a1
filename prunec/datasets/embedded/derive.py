"""Derivation of the embedded images from Fashion-MNIST; every run writes the same bytes.

``python -m prunec.datasets.embedded.derive --source FOLDER``,
where FOLDER holds the four original ``.gz`` files
(https://github.com/zalandoresearch/fashion-mnist, or Debian's package dataset-fashion-mnist).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from prunec.datasets.embedded import FILE
from prunec.errors import DataError
from prunec.files import write_bytes_atomic

SEED = 20170828  # the day Fashion-MNIST was published; any fixed number would do
PER_CLASS = {"train": 1200, "test": 200}
PREFIX = {"train": "train", "test": "t10k"}
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049

# Of raw, left, up, Paeth and median-predicted pixels under zlib, bz2 and lzma, and of lossless
# WebP, raw pixels under lzma with four literal context bits were the smallest.
XZ_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "lc": 4,
        "lp": 0,
        "pb": 0,
        "nice_len": 273,
    }
]


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """Return the array of a gzipped IDX file of bytes.

    Raises:
        DataError: the file is missing, damaged, or has another magic number than ``magic``.
    """
    remedy = "Download the four .gz files of https://github.com/zalandoresearch/fashion-mnist."
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy=remedy) from error
    axes = magic & 0xFF
    header = np.frombuffer(content[: 4 + 4 * axes], dtype=">u4")
    if len(header) != 1 + axes or header[0] != magic:
        raise DataError(f"{path} is not an IDX file of kind {magic}", remedy=remedy)
    shape = tuple(int(size) for size in header[1:])
    body = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes)
    if body.size != np.prod(shape):
        raise DataError(f"{path} has {body.size} bytes, {shape} are needed", remedy=remedy)
    return body.reshape(shape)


def choose(labels: NDArray[np.uint8], per_class: int, seed: int) -> NDArray[np.int64]:
    """Return sorted positions of ``per_class`` seeded random items of every class."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        if len(places) < per_class:
            raise DataError(f"class {label} has {len(places)} images, {per_class} are needed")
        chosen.append(generator.permutation(places)[:per_class])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def derive(source: Path, per_class: dict[str, int], seed: int) -> dict[str, Tensor]:
    """Return images and labels of both splits, chosen from the original files in ``source``."""
    tensors = {}
    for split, count in per_class.items():
        labels = read_idx(source / f"{PREFIX[split]}-labels-idx1-ubyte.gz", LABELS_MAGIC)
        images = read_idx(source / f"{PREFIX[split]}-images-idx3-ubyte.gz", IMAGES_MAGIC)
        places = choose(labels, count, seed)
        tensors[f"{split}_images"] = torch.from_numpy(images[places])
        tensors[f"{split}_labels"] = torch.from_numpy(labels[places])
    return tensors


def main() -> None:
    """Write the packaged file and print the digest of its contents."""
    parser = argparse.ArgumentParser(
        prog="python -m prunec.datasets.embedded.derive", description=__doc__
    )
    parser.add_argument("--source", type=Path, required=True, help="folder of the four .gz files")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(FILE))
    arguments = parser.parse_args()
    content = save(derive(arguments.source, PER_CLASS, SEED))
    write_bytes_atomic(arguments.output, lzma.compress(content, lzma.FORMAT_XZ, filters=XZ_FILTERS))
    print(f"{arguments.output}: sha256 of the content {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()

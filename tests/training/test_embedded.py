"""The embedded images: what they are, and that deriving is deterministic and refuses nonsense."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import struct
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.datasets.embedded import FILE, LABELS, load_embedded
from prunec.datasets.embedded.derive import PREFIX, choose, derive, read_idx
from prunec.errors import DataError


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 30)):
        labels = np.tile(np.arange(3, dtype=np.uint8), count // 3)
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        images[:, 0, 1] = np.arange(count)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def test_the_embedded_set_is_the_one_that_was_derived() -> None:
    content = lzma.decompress(files("prunec.datasets.embedded").joinpath(FILE).read_bytes())
    assert hashlib.sha256(content).hexdigest() == (
        "8905d96d1a9f44c4b4567b95978eae5a0414cc7a87d65de0c8cf0104654def69"
    )


def test_every_class_has_its_share() -> None:
    tensors = load_embedded()
    for split, count in (("train", 1200), ("test", 200)):
        assert tensors[f"{split}_images"].shape == (10 * count, 28, 28)
        assert tensors[f"{split}_images"].dtype == torch.uint8
        assert tensors[f"{split}_labels"].bincount().tolist() == [count] * len(LABELS)
        assert len(tensors[f"{split}_labels"][:100].unique()) == 10  # mixed, not class by class


def test_the_package_carries_the_licence() -> None:
    text = files("prunec.datasets.embedded").joinpath("LICENSE-fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text


def test_images_keep_their_labels_and_order(source: Path) -> None:
    tensors = derive(source, {"train": 5, "test": 2}, seed=3)
    for split, count in (("train", 5), ("test", 2)):
        images, labels = tensors[f"{split}_images"], tensors[f"{split}_labels"]
        assert labels.bincount().tolist() == [count] * 3
        assert torch.equal(images[:, 0, 0], labels)
        assert (images[:, 0, 1].int().diff() > 0).all()
    again = derive(source, {"train": 5, "test": 2}, seed=3)
    other = derive(source, {"train": 5, "test": 2}, seed=4)
    assert all(torch.equal(tensors[key], again[key]) for key in tensors)
    assert not torch.equal(tensors["train_images"], other["train_images"])


def test_too_few_images_are_reported() -> None:
    with pytest.raises(DataError, match="class 1 has 1 images, 2 are needed"):
        choose(np.array([0, 0, 1], dtype=np.uint8), 2, 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"\0\0\x08\x01\0\0\0\x05ab")],
    ids=["empty", "not-gzip", "short"],
)
def test_damaged_sources_are_reported(source: Path, content: bytes) -> None:
    path = source / f"{PREFIX['train']}-labels-idx1-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-labels"):
        read_idx(path, 2049)

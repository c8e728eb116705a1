"""Images in tar shards of the WebDataset format, in a random order that suits disks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunec.datasets.decoding import damaged, decode, kind
from prunec.datasets.encoded import Encoded, encoded
from prunec.datasets.shard_index import Shard, indexed, labels_of
from prunec.datasets.sources import OnDisk
from prunec.errors import DataError
from prunec.recipe import DataSpec
from prunec.recipe.network_and_data import MOST_PIXELS

SPREAD = 16_384
"""Width of the shuffle, in images: about two gigabytes of photographs, read from few shards."""
OPEN = 64  # shards that a process keeps open: far below usual limits of open files


class ShardImages:
    """Samples of tar files, each read at its offset."""

    def __init__(
        self, paths: Sequence[Path], shards: Sequence[Shard], most: int = MOST_PIXELS
    ) -> None:
        """Store the shards at ``paths``, and the limit of pixels per image."""
        self.most = most
        self.files = OpenFiles([str(path) for path in paths])
        self.counts = torch.tensor([len(shard.members) for shard in shards])
        self.shards = torch.repeat_interleave(self.counts)
        self.offsets = _joined(shard.offsets for shard in shards)
        self.sizes = _joined(shard.sizes for shard in shards)
        self.labels = _joined(shard.labels for shard in shards)
        self.members = np.array([os.fsencode(name) for shard in shards for name in shard.members])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        content = self._content(index)
        return decode(content, self.name(index), self.most), int(self.labels[index])

    def encoded(self, index: int) -> tuple[Encoded | Tensor, int]:
        """See :meth:`EncodedImages.encoded`."""
        content = self._content(index)
        return encoded(content, self.name(index), self.most), int(self.labels[index])

    def kind(self, index: int) -> str:
        """Return the kind of an image."""
        return kind(self._content(index), self.name(index), self.most)

    def _content(self, index: int) -> bytes:
        shard, size = int(self.shards[index]), int(self.sizes[index])
        try:
            content = self.files.read(shard, int(self.offsets[index]), size)
        except OSError as error:
            raise damaged(self.name(index), (error.strerror or str(error)).lower()) from error
        if len(content) < size:
            raise damaged(self.name(index), "the shard ends early")
        return content

    def name(self, index: int) -> str:
        """Return the shard's path and the image's name in it."""
        return f"{self.files.paths[self.shards[index]]}: {os.fsdecode(self.members[index])}"

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random order that reads from few shards at a time; see :func:`spread_order`."""
        return spread_order(self.counts, generator)


def spread_order(counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random permutation, int64, that reads every shard in one part of an epoch.

    Shards are shuffled; the sample at position p of the shuffled shards is then drawn at time
    p + SPREAD·u, with u uniform in [0, 1). A batch is thus drawn from shards of about SPREAD
    images, and a small data set is shuffled completely.

    Args:
        counts: number of samples per shard.
        generator: source of random numbers.
    """
    ends = counts.cumsum(0)
    places = [
        torch.arange(int(ends[shard] - counts[shard]), int(ends[shard]))
        for shard in torch.randperm(len(counts), generator=generator)
    ]
    times = torch.rand(int(ends[-1]), generator=generator, dtype=torch.float64) * SPREAD
    times += torch.arange(len(times))
    return torch.cat(places)[times.argsort(stable=True)]


class OpenFiles:
    """Cache of open files; the file opened first is closed first."""

    def __init__(self, paths: list[str]) -> None:
        """Store the paths; :meth:`read` takes indices of them."""
        self.paths = paths
        self.handles: dict[int, int] = {}

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[list[str]]]:
        return OpenFiles, (self.paths,)

    def __del__(self) -> None:
        while self.handles:
            os.close(self.handles.popitem()[1])

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; forked processes do not share a position."""
        if file not in self.handles:
            if len(self.handles) >= OPEN:
                os.close(self.handles.pop(next(iter(self.handles))))
            self.handles[file] = os.open(self.paths[file], os.O_RDONLY)
        return os.pread(self.handles[file], size, offset)


def read_webdataset(spec: DataSpec) -> OnDisk:
    """Open the samples of ``train-*.tar`` and ``val-*.tar`` (or ``test-*.tar``) in ``root``.

    Raises:
        DataError: there are no shards, or samples are incomplete.
        DamagedData: a shard is not a tar file, or is truncated.
    """
    root = Path(spec.root)
    train, test = _paths(root, ("train",)), _paths(root, ("val", "validation", "test"))
    train_shards = indexed(train, root / "train.prunec-index.json")
    test_shards = indexed(test, root / "test.prunec-index.json")
    names = _class_names(root, [*zip([*train, *test], [*train_shards, *test_shards], strict=True)])
    first, second = (
        _images(paths, shards, spec.max_pixels)
        for paths, shards in ((train, train_shards), (test, test_shards))
    )
    return OnDisk(first, second, names)


def _images(paths: Sequence[Path], shards: Sequence[Shard], most: int) -> ShardImages:
    images = ShardImages(paths, shards, most)
    if not len(images):
        raise DataError(
            f"{paths[0].parent}: {paths[0].name} and the other shards of its split have no sample",
            remedy="Write samples KEY.jpg and KEY.cls into them.",
        )
    return images


def _paths(root: Path, words: Sequence[str]) -> list[Path]:
    """Return the shards of a split: those named by the first of ``words`` that occurs."""
    files = sorted(root.glob("*.tar"))
    for word in words:
        shards = [path for path in files if re.match(rf"(.*[-_])?{word}[-_]", path.name)]
        if shards:
            return shards
    packed = any(root.glob("*.tar.*"))
    raise DataError(
        f"no shards {' or '.join(f'{word}-*.tar' for word in words)} were found in {root}",
        remedy="Decompress the shards (gunzip): a compressed one cannot be read at an offset."
        if packed
        else "Put them there, or set data.root.",
    )


def _class_names(root: Path, shards: Sequence[tuple[Path, Shard]]) -> tuple[str, ...]:
    """Return the names of the classes in ``classes.txt``; their numbers without it.

    Raises:
        DataError: a class has no name; or, without ``classes.txt``, most classes up to the largest
            number have no sample: a single damaged label would build a head of a million classes.
    """
    path = root / "classes.txt"
    labels = labels_of(shard for _, shard in shards)
    largest = max(labels, default=0)
    if not path.is_file():
        if largest >= 2 * max(len(labels), 1):
            raise DataError(
                f"{_place_of(largest, shards)} is of class {largest}, but the samples in {root} "
                f"have only {len(labels)} classes",
                remedy=f"Correct that label; if there are that many classes, write one name per "
                f"line into {path}, that of class 0 first.",
            )
        return tuple(map(str, range(largest + 1)))
    names = tuple(path.read_text("utf-8", "replace").splitlines())
    if labels and largest >= len(names):
        raise DataError(
            f"the shards in {root} have the class {largest}, but {path.name} names {len(names)}: "
            f"{_place_of(largest, shards)}",
            remedy=f"Correct that label, or write one name per line into {path}, that of class 0 "
            "first.",
        )
    return names


def _place_of(label: int, shards: Sequence[tuple[Path, Shard]]) -> str:
    """Return shard and name of the first sample of a class."""
    for path, shard in shards:
        if label in shard.labels:
            return f"{path}: {shard.members[shard.labels.index(label)]}"
    raise ValueError(f"no sample is of class {label}")


def _joined(parts: Iterable[list[int]]) -> Tensor:
    return torch.tensor([value for part in parts for value in part])

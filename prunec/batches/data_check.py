"""Check of a data set: read every image as training would read it."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from prunec.batches.batches import Data
from prunec.batches.data import built_transforms, for_labels, load_data
from prunec.batches.data_findings import DataFindings, Finding, Size, SplitFindings
from prunec.batches.loading import AUGMENT, delivered, transformed
from prunec.datasets.named import read_source
from prunec.datasets.sources import Images, InMemory, Label, OnDisk
from prunec.errors import DamagedData, DataError
from prunec.processes import workers_here
from prunec.recipe import DataSpec
from prunec.seeding import seeded
from prunec.tasks.segmentation import VOID

AT_ONCE = 64  # images per message of a worker: few messages, but progress that moves
IN_MEMORY = 256  # batch size for timing a data set in memory

Progress = Callable[[str, int, int], None]
"""Callback for progress: split, images read, images in total."""


def check_data(spec: DataSpec, *, seed: int, report: Progress) -> DataFindings:
    """Read both splits of a data set and report their contents.

    Args:
        spec: the data set, its transforms, and the number of worker processes (at least one is
            used).
        seed: seed of the augmentation.
        report: callback for progress.

    Raises:
        DataError: the data set is missing or has another layout, or a worker died.
        RecipeError: a transform is unknown.
    """
    plain = built_transforms(spec)
    root = "" if spec.name == "embedded" else spec.root
    try:
        source = read_source(spec)
    except DamagedData as error:  # a list or an index is damaged: nothing can be read
        return DataFindings(spec.name, root, problems=(Finding("", "", error.message),))
    if isinstance(source, InMemory):
        splits = _held(load_data(spec, seed=seed), source, report)
        return DataFindings(spec.name, root, source.labels, splits=splits, standard=source.standard)
    workers = max(1, workers_here(spec.workers))
    transforms = dict(zip(("train", "test"), (for_labels(t, source) for t in plain), strict=True))
    tallies = tuple(_read(source, transforms, seed, workers, report))
    return DataFindings(
        data=spec.name,
        root=root,
        labels=source.labels,
        workers=workers,
        splits=tuple(tally.findings(len(source.labels), workers) for tally in tallies),
        problems=tuple(problem for tally in tallies for problem in tally.problems)
        + _unequal(tallies),
        doubts=tuple(doubt for tally in tallies for doubt in tally.doubts),
        standard=source.standard,
        left_out=dict(source.left_out),
    )


def _read(
    source: OnDisk, transforms: dict[str, nn.Module], seed: int, workers: int, report: Progress
) -> Iterator[_Tally]:
    for name, images in (("train", source.train), ("test", source.test)):
        tally = _Tally(name)
        begin = time.perf_counter()
        loader: DataLoader[Any] = DataLoader(
            _Probes(images, transforms[name], seed),
            batch_size=AT_ONCE,
            num_workers=workers,
            collate_fn=list,
        )
        for records in delivered(loader):
            for record in records:
                tally.add(record)
            report(name, tally.images, len(images))
        tally.seconds = time.perf_counter() - begin
        yield tally


@dataclass(frozen=True)
class _Record:
    """Observations on one image; it cannot be trained on if ``problem`` is not empty."""

    image: str
    classes: tuple[int, ...] = ()
    size: Size = (0, 0)
    kind: str = ""
    output: tuple[int, ...] = ()
    decoding: float = 0.0
    transforming: float = 0.0
    problem: str = ""
    doubt: str = ""


class _Probes(Dataset[_Record]):
    """Dataset of records, which worker processes take of the images."""

    def __init__(self, images: Images, transform: nn.Module, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self.complaints: _Complaints | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _Record:
        self.complaints = self.complaints or _Complaints()
        name = self.images.name(index)
        try:
            return self._record(index, name, self.complaints)
        except DataError as error:
            return _Record(name, problem=error.message.removeprefix(name).strip(" ,"))

    def _record(self, index: int, name: str, complaints: _Complaints) -> _Record:
        complaints.new()
        begin = time.perf_counter()
        image, label = self.images[index]
        middle = time.perf_counter()
        with seeded(self.seed, AUGMENT, 0, index):
            output, _ = transformed(self.transform, image, label, name)
        end = time.perf_counter()
        return _Record(
            image=name,
            classes=classes_in(label),
            size=(image.shape[-2], image.shape[-1]),
            output=tuple(output.shape),
            decoding=middle - begin,
            transforming=end - middle,
            kind=self.images.kind(index),
            doubt=complaints.new(),
        )


def classes_in(label: Label) -> tuple[int, ...]:
    """Return the classes of an image: its label, or all classes in its mask."""
    if not isinstance(label, Tensor):
        return (label,)
    counts = label.flatten().long().bincount()[: VOID if label.ndim else None]
    return tuple(counts.nonzero().flatten().tolist())


class _Complaints:
    """Messages of C libraries on this process's standard error: libjpeg has no other channel."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  open for the life of the worker
        self.read = 0  # bytes already returned
        os.dup2(self.file.fileno(), 2)

    def new(self) -> str:
        """Return the messages since the last call, in one line."""
        size = os.fstat(self.file.fileno()).st_size
        text = os.pread(self.file.fileno(), size - self.read, self.read)
        self.read = size
        return " ".join(text.decode(errors="replace").split())


@dataclass
class _Tally:
    """Sums over the records of a split, instead of a list of a million records."""

    name: str
    images: int = 0
    seconds: float = 0.0
    decoding: float = 0.0
    transforming: float = 0.0
    good: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    sizes: Counter[Size] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    outputs: dict[tuple[int, ...], str] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    doubts: list[Finding] = field(default_factory=list)

    def add(self, record: _Record) -> None:
        self.images += 1
        if record.problem:
            self.problems.append(Finding(self.name, record.image, record.problem))
            return
        if record.doubt:
            self.doubts.append(Finding(self.name, record.image, record.doubt))
        self.good += 1
        self.labels.update(record.classes)
        self.sizes[record.size] += 1
        self.kinds[record.kind] += 1
        self.outputs.setdefault(record.output, record.image)
        self.decoding += record.decoding
        self.transforming += record.transforming

    def findings(self, classes: int, workers: int) -> SplitFindings:
        good = self.good * workers
        return SplitFindings(
            name=self.name,
            images=self.images,
            per_class=tuple(self.labels[label] for label in range(classes)),
            sizes=_three(self.sizes),
            kinds=dict(self.kinds.most_common()),
            outputs=tuple(sorted(self.outputs)),
            seconds=self.seconds,
            decoded_a_second=good / self.decoding if good else 0.0,
            prepared_a_second=good / (self.decoding + self.transforming) if good else 0.0,
        )


def _three(sizes: Counter[Size]) -> tuple[Size, ...]:
    """Return the smallest, the median and the largest size by pixels."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    seen = 0
    for size in ordered:
        seen += sizes[size]
        if 2 * seen >= sizes.total():
            return ordered[0], size, ordered[-1]
    return ()


def _unequal(tallies: tuple[_Tally, ...]) -> tuple[Finding, ...]:
    """Return a problem if images have several sizes after the transforms."""
    outputs = {size: image for tally in tallies for size, image in tally.outputs.items()}
    if len(outputs) < 2:
        return ()
    shown = ", ".join(
        f"{'×'.join(map(str, size))} ({image})" for size, image in sorted(outputs.items())[:3]
    )
    reason = (
        f"images have {len(outputs)} sizes after the transforms, a batch needs one: {shown}; "
        "end data.augment and data.prepare with a crop or a Resize to two sides"
    )
    return (Finding("", "", reason),)


def _held(data: Data, source: InMemory, report: Progress) -> tuple[SplitFindings, ...]:
    """Report on a data set in memory: nothing is decoded, batches are timed as in training."""
    splits = []
    epochs = {"train": data.train_batches(0, IN_MEMORY), "test": data.test_batches(IN_MEMORY)}
    for split, (name, batches) in zip((source.train, source.test), epochs.items(), strict=True):
        begin = time.perf_counter()
        read = 0
        for images, _ in batches:
            read += len(images)
            report(name, read, len(split.labels))
        seconds = time.perf_counter() - begin
        counts: Counter[int] = Counter()
        for label in split.labels:
            counts.update(classes_in(label))
        size: Size = (split.images.shape[-2], split.images.shape[-1])
        splits.append(
            SplitFindings(
                name=name,
                images=len(split.labels),
                per_class=tuple(counts[label] for label in range(len(source.labels))),
                sizes=(size, size, size),
                outputs=(data.shape,),
                seconds=seconds,
                decoded_a_second=None,
                prepared_a_second=read / seconds,
            )
        )
    return tuple(splits)

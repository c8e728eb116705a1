"""Findings of a check of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from prunec.datasets.sequences import Standard

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Finding:
    """A remark on one image, or, where ``image`` is empty, on a split or the whole data set."""

    split: str
    image: str
    reason: str


@dataclass(frozen=True)
class SplitFindings:
    """Contents and reading speed of a split.

    Attributes:
        name: ``train`` or ``test``.
        images: number of images, damaged ones included.
        per_class: readable images per class; for masks, those in which the class occurs.
        sizes: (H, W) of the smallest, the median and the largest image by pixels; none where no
            image can be read.
        outputs: all (C, H, W) that occur after the transforms.
        seconds: time to read all images.
        decoded_a_second: images per second that the workers together read and decode; None for a
            data set in memory, where nothing is decoded.
        prepared_a_second: images per second that they read, decode and transform.
        kinds: file format → number of readable images, the most frequent first.
    """

    name: str
    images: int
    per_class: tuple[int, ...]
    sizes: tuple[Size, ...]
    outputs: tuple[tuple[int, ...], ...]
    seconds: float
    decoded_a_second: float | None
    prepared_a_second: float
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFindings:
    """Result of a check.

    Attributes:
        data: name of the data set.
        root: its folder; empty for the embedded one.
        labels: names of the classes.
        workers: processes that read; 0 for a data set in memory.
        splits: training images, then test images; none where a shard cannot be opened.
        problems: images that cannot be trained on.
        doubts: images that were decoded with warnings of the decoder.
        left_out: kind of other files among the images → their number.
        standard: mean and deviation of the features of sequences; None for images.
    """

    data: str
    root: str
    labels: tuple[str, ...] = ()
    workers: int = 0
    splits: tuple[SplitFindings, ...] = ()
    problems: tuple[Finding, ...] = ()
    doubts: tuple[Finding, ...] = ()
    standard: Standard | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Return whether every image can be trained on."""
        return not self.problems

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=2)

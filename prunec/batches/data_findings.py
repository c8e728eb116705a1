"""What a check of a data set found, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from prunec.datasets.sequences import Standard

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Finding:
    """Something about one image (or, where ``image`` is empty, about all of a split)."""

    split: str
    image: str
    reason: str


@dataclass(frozen=True)
class SplitFindings:
    """What one half of a data set holds.

    Attributes:
        name: ``train`` or ``test``.
        images: how many there are, damaged ones included.
        per_class: readable images of every class; those in which it occurs, where pixels have one.
        sizes: of the smallest, the middle and the largest image by pixels; none where no image
            can be read.
        outputs: (C, H, W) in which images come out of the transforms, all that occur.
        seconds: that reading through took.
        decoded_a_second: images that the workers together read and decode; None where the set is
            held in memory and nothing is decoded.
        prepared_a_second: images that they read, decode and transform.
        kinds: how many readable images there are of every kind of file, the most first.
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
    """What a check found.

    Attributes:
        data: the data set's name.
        root: its folder; empty for the embedded one.
        labels: names of the classes.
        workers: processes that read; 0 where the set is held in memory.
        splits: the training images, then the test images; none where a shard cannot be opened.
        problems: what cannot be trained on.
        doubts: images that are decoded, but of which the decoder complains.
        left_out: files among the images that are not taken for such, by suffix.
        standard: what was taken out of the features of sequences; None for images.
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

"""Answers of both engines per class, and the samples that they answer differently."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MOST = 12
"""Number of samples that are kept, the first ones."""
_SIDE = 96  # largest side of a picture in pixels


@dataclass(frozen=True)
class Flip:
    """Test sample that a file answers differently from the network.

    Attributes:
        index: index of the sample in the test split.
        label: class of the sample.
        network: answer of the network.
        file: answer of the file.
        image: input of the network; None once it is replaced by a picture.
        png: picture in base64; empty if the sample is not an image.
    """

    index: int
    label: int
    network: int
    file: int
    image: Tensor | None = None
    png: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the flip as JSON values."""
        of = {"index": self.index, "label": self.label, "network": self.network}
        return {**of, "file": self.file, "png": self.png}


class Tally:
    """Counter of right answers per class, for labels of whole samples.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        self._counts = torch.zeros(classes, 3, dtype=torch.int64)
        self._seen = 0
        self._flips: list[Flip] = []

    def add(self, images: Tensor, labels: Tensor, ours: Tensor, theirs: Tensor) -> None:
        """Count a batch; ``ours`` are the network's answers, ``theirs`` the file's."""
        if labels.dim() != 1:
            return
        known = labels[(labels >= 0) & (labels < len(self._counts))]
        sides = (known, labels[ours == labels], labels[theirs == labels])
        counted = [torch.bincount(side, minlength=len(self._counts)) for side in sides]
        self._counts += torch.stack(counted, 1)
        for place in (ours != theirs).nonzero().flatten().tolist()[: MOST - len(self._flips)]:
            label, network, file = (int(values[place]) for values in (labels, ours, theirs))
            image = images[place].clone()
            self._flips.append(Flip(self._seen + place, label, network, file, image))
        self._seen += len(labels)

    @property
    def classes(self) -> tuple[tuple[int, int, int], ...]:
        """Per class (samples, right answers of the network, of the file); empty if none were
        counted.
        """
        if not self._seen:
            return ()
        return tuple((int(n), int(a), int(b)) for n, a, b in self._counts.tolist())

    @property
    def flips(self) -> tuple[Flip, ...]:
        """First samples that are answered differently."""
        return tuple(self._flips)


def pictured(
    flips: Sequence[Flip], mean: Sequence[float], std: Sequence[float]
) -> tuple[Flip, ...]:
    """Return flips with pictures in place of the network's inputs.

    Args:
        flips: flips with normalised images [1 or 3, H, W] or byte images in either layout; others
            get no picture.
        mean: mean per channel, of values from 0 to 1.
        std: standard deviation per channel.
    """
    return tuple(replace(flip, image=None, png=_png(flip.image, mean, std)) for flip in flips)


def _png(image: Tensor | None, mean: Sequence[float], std: Sequence[float]) -> str:
    if image is None or image.dim() != 3:
        return ""
    if image.dtype == torch.uint8:
        return _encoded(image.movedim(-1, 0) if image.shape[-1] == len(mean) else image)
    if not len(image) == len(mean) == len(std):
        return ""
    scale, shift = (torch.tensor(x).reshape(-1, 1, 1) for x in (std, mean))
    return _encoded(((image.float() * scale + shift).clamp(0, 1) * 255).round().to(torch.uint8))


def _encoded(pixels: Tensor) -> str:
    """Return bytes [1 or 3, H, W] as a small PNG in base64; other shapes as an empty text."""
    if len(pixels) not in (1, 3):
        return ""
    from PIL import Image

    values = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    made = Image.fromarray(values)
    made.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    made.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()

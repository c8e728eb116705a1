"""What both engines answered, class by class, and the samples that they answer otherwise."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MOST = 12
"""How many samples are kept, the first ones."""
_SIDE = 96  # pixels of a picture, at most


@dataclass(frozen=True)
class Flip:
    """A test sample that a file answers otherwise than the network.

    Attributes:
        index: of the sample in the test split.
        label: its class.
        network: what the network answers.
        file: what the file answers.
        image: as the network takes it; None where a picture stands for it.
        png: the picture, in base64; empty where the sample is none.
    """

    index: int
    label: int
    network: int
    file: int
    image: Tensor | None = None
    png: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON has it."""
        of = {"index": self.index, "label": self.label, "network": self.network}
        return {**of, "file": self.file, "png": self.png}


class Tally:
    """Counts right answers by class, batch by batch; for labels of whole samples.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        self._counts = torch.zeros(classes, 3, dtype=torch.int64)
        self._seen = 0
        self._flips: list[Flip] = []

    def add(self, images: Tensor, labels: Tensor, ours: Tensor, theirs: Tensor) -> None:
        """Count a batch: ``ours`` and ``theirs`` are the network's answers and the file's."""
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
        """Of each class: samples, right answers of the network, of the file; empty: none."""
        if not self._seen:
            return ()
        return tuple((int(n), int(a), int(b)) for n, a, b in self._counts.tolist())

    @property
    def flips(self) -> tuple[Flip, ...]:
        """The first samples that are answered otherwise."""
        return tuple(self._flips)


def pictured(
    flips: Sequence[Flip], mean: Sequence[float], std: Sequence[float]
) -> tuple[Flip, ...]:
    """Return flips with pictures in place of what the network takes.

    Args:
        flips: their images are normalised, [1 or 3, H, W], or bytes in either layout; others get
            no picture.
        mean: by channel, of numbers from 0 to 1.
        std: by channel.
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
    """Bytes [1 or 3, H, W] as a small PNG in base64; others as nothing."""
    if len(pixels) not in (1, 3):
        return ""
    from PIL import Image

    values = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    made = Image.fromarray(values)
    made.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    made.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()

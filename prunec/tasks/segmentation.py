"""Segmentation: a class per pixel, its loss, and the mean intersection over union.

Let n_ij be the number of labelled pixels of class i that are predicted as j. With t_i = Σ_j n_ij
and p_j = Σ_i n_ij (Everingham et al., IJCV 2015)

    IoU_i = n_ii / (t_i + p_i − n_ii),    mIoU = the mean of IoU_i

over the classes that occur, t_i + p_i > 0. If all classes occur, as in PASCAL VOC, this is VOC's
measure and that of torchvision's reference scripts, which is NaN otherwise. Pixels labelled `VOID`
are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prunec.errors import DataError
from prunec.processes import ALONE, Processes
from prunec.tasks.quality import MIOU, PIXEL_ACCURACY, Quality
from prunec.tasks.task import Outputs, Task

VOID = 255
"""Label of unlabelled pixels, as in PASCAL VOC: borders of objects, and padding."""

HEADS = {"out", "aux"}  # keys of a torchvision network's outputs


@dataclass(frozen=True)
class Overlap:
    """Confusion matrix: ``rows[i][j]`` pixels of class i, predicted as j; the last j is none."""

    rows: tuple[tuple[float, ...], ...]

    @property
    def percent(self) -> float:
        """MIoU in percent."""
        ious = [value for value in self.ious if value is not None]
        return 100 * sum(ious) / len(ious) if ious else 0.0

    @property
    def ious(self) -> tuple[float | None, ...]:
        """Intersection over union per class; None for a class that does not occur."""
        unions = [
            # t_i + p_i − n_ii: labelled, predicted, both (Everingham et al. 2010, VOC).
            sum(row) + sum(other[i] for other in self.rows) - row[i]
            for i, row in enumerate(self.rows)
        ]
        return tuple(self.rows[i][i] / union if union else None for i, union in enumerate(unions))

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are predicted correctly, in percent."""
        total = sum(map(sum, self.rows))
        return 100 * sum(row[i] for i, row in enumerate(self.rows)) / total if total else 0.0

    @property
    def figures(self) -> Mapping[str, float]:
        """See :class:`prunec.tasks.task.Score`."""
        return {MIOU.key: self.percent, PIXEL_ACCURACY.key: self.pixel_accuracy}


@dataclass(frozen=True)
class Segmentation(Task):
    """One label per pixel: logits [N, classes, H, W], labels [N, H, W].

    Networks return logits, or a dict of them: ``out``, and ``aux`` for an auxiliary head used only
    in training; other keys are ignored.
    """

    qualities: ClassVar[tuple[Quality, ...]] = (MIOU, PIXEL_ACCURACY)
    answer: ClassVar[str] = "pixel"
    agreement: ClassVar[str] = "per-pixel agreement"

    @property
    def counted(self) -> int:
        """Number of entries of the confusion matrix, with a column for no prediction."""
        return self.classes * (self.classes + 1)

    def read(self, outputs: object, images: Tensor) -> Outputs:
        """See :meth:`Task.read`."""
        if isinstance(outputs, Mapping) and "out" in outputs:
            logits = {name: self._checked(outputs[name], images) for name in HEADS & outputs.keys()}
            return Outputs(logits["out"], logits.get("aux"))
        return Outputs(self._checked(outputs, images))

    def _checked(self, logits: object, images: Tensor) -> Tensor:
        wanted = (len(images), self.classes, *images.shape[2:])
        if isinstance(logits, Tensor) and logits.shape == wanted:
            return logits
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(
            f"the network returns {given} for {len(images)} images, {wanted} is needed: logits of "
            f"{self.classes} classes for every pixel, or a dict that has them as 'out'",
            remedy="Name a segmentation network (deeplabv3_resnet50, …), and let it take "
            "num_classes, which comes from the data.",
        )

    def cross_entropy(
        self, logits: Tensor, labels: Tensor, smoothing: float, processes: Processes = ALONE
    ) -> Tensor:
        """See :meth:`Task.cross_entropy`; 0 where no pixel has a label."""
        total = F.cross_entropy(
            # In float32: a sum over all pixels of a batch overflows fp16.
            logits.float(),
            labels,
            ignore_index=VOID,
            label_smoothing=smoothing,
            reduction="sum",
        )
        return total / _labelled(labels, processes)

    def divergence(
        self, student: Tensor, teacher: Tensor, labels: Tensor, processes: Processes = ALONE
    ) -> Tensor:
        """See :meth:`Task.divergence`; over labelled pixels."""
        each = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return torch.where(labels != VOID, each, 0.0).sum() / _labelled(labels, processes)

    def counts(self, answers: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`Task.counts`: the rows of :class:`Overlap` one after the other."""
        # Void pixels go to one more place, dropped at the end: selecting pixels by value would make
        # a GPU wait for their number.
        place = torch.where(labels == VOID, self.counted, labels * (self.classes + 1) + answers)
        sums = torch.zeros(self.counted + 1, dtype=torch.int64, device=labels.device)
        ones = torch.ones((), dtype=torch.int64, device=labels.device).expand(place.numel())
        return sums.scatter_add_(0, place.flatten(), ones)[:-1]

    def score(self, counts: Sequence[float]) -> Overlap:
        """See :meth:`Task.score`."""
        width = self.classes + 1
        return Overlap(tuple(tuple(counts[i : i + width]) for i in range(0, len(counts), width)))


def _labelled(labels: Tensor, processes: Processes) -> Tensor:
    """Return the labelled pixels per process, averaged over processes."""
    # Gradients are averaged over processes, so each divides by the mean number of pixels, not its
    # own.
    return (processes.sum((labels != VOID).sum()) / processes.count).clamp(min=1 / processes.count)

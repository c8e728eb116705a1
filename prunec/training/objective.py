"""What a step minimises: cross entropy with smoothed or mixed labels, and a teacher's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.recipe import TrainSpec

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """The loss of a batch.

    Attributes:
        classes: how many there are.
        smoothing: share of the label spread over all classes.
        mixing: mixes images, and labels [N] into [N, classes]; none if None.
        teacher: a network in eval mode whose answers are learned too; none if None.
        share: of the teacher's term.
        temperature: T of Hinton et al. (2015), arXiv 1503.02531.
    """

    classes: int
    smoothing: float = 0.0
    mixing: Mixing | None = None
    teacher: nn.Module | None = None
    share: float = 0.0
    temperature: float = 1.0

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels that a step learns; random as torch's generator says."""
        return (images, labels) if self.mixing is None else self.mixing(images, labels)

    def __call__(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """Return (1 − share)·CE + share·T²·KL(teacher ‖ network), a mean over the batch.

        Args:
            logits: [N, classes].
            labels: classes [N], or mixed ones [N, classes].
            images: [N, C, H, W] as the network saw them.
        """
        hard = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        if self.teacher is None:
            return hard
        with torch.no_grad():
            wanted = F.log_softmax(self.teacher(images).float() / self.temperature, 1)
        found = F.log_softmax(logits.float() / self.temperature, 1)
        soft = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return (1 - self.share) * hard + self.share * self.temperature**2 * soft


def make_objective(train: TrainSpec, classes: int, teacher: nn.Module | None) -> Objective:
    """Return the objective of a recipe; ``teacher`` is its teacher, on the device."""
    spec = train.teacher
    return Objective(
        classes=classes,
        smoothing=train.label_smoothing,
        mixing=_mixing(train, classes),
        teacher=teacher,
        share=spec.share if spec else 0.0,
        temperature=spec.temperature if spec else 1.0,
    )


def _mixing(train: TrainSpec, classes: int) -> Mixing | None:
    """Mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899), or one of both at even chances."""
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, train.mixup), (v2.CutMix, train.cutmix))
        if alpha
    ]
    return v2.RandomChoice(kinds) if kinds else None

"""What a step minimises: cross entropy, smoothed, mixed, of a second head; a teacher's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.processes import ALONE, Processes
from prunec.recipe import TrainSpec
from prunec.tasks.task import Outputs, Task

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """The loss of a batch.

    Attributes:
        task: what is asked of the network.
        smoothing: share of the label spread over all classes.
        mixing: mixes images, and labels [N] into [N, classes]; none if None.
        teacher: a network in eval mode whose answers are learned too; none if None.
        share: of the teacher's term.
        temperature: T of Hinton et al. (2015), arXiv 1503.02531.
        auxiliary: weight of the cross entropy of a head that only trains.
        processes: those that share every batch: means are over the answers of all.
    """

    task: Task
    smoothing: float = 0.0
    mixing: Mixing | None = None
    teacher: nn.Module | None = None
    share: float = 0.0
    temperature: float = 1.0
    auxiliary: float = 0.0
    processes: Processes = ALONE

    def shared(self, processes: Processes) -> Self:
        """Return the objective of one of ``processes``."""
        return replace(self, processes=processes)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels that a step learns; random as torch's generator says."""
        return (images, labels) if self.mixing is None else self.mixing(images, labels)

    def __call__(self, outputs: Outputs, labels: Tensor, images: Tensor) -> Tensor:
        """Return (1 − share)·CE + share·T²·KL(teacher ‖ network) + auxiliary·CE of its second head.

        Args:
            outputs: the network's.
            labels: as the data gives them, or mixed ones [N, classes].
            images: [N, C, H, W] as the network saw them.
        """
        task, logits = self.task, outputs.logits
        loss = task.cross_entropy(logits, labels, self.smoothing, self.processes)
        if self.teacher is not None:
            with torch.no_grad():
                answer = task.read(self.teacher(images), images).logits
                wanted = F.log_softmax(answer.float() / self.temperature, 1)
            found = F.log_softmax(logits.float() / self.temperature, 1)
            soft = task.divergence(found, wanted, labels, self.processes)
            loss = (1 - self.share) * loss + self.share * self.temperature**2 * soft
        if outputs.auxiliary is not None:
            other = task.cross_entropy(outputs.auxiliary, labels, self.smoothing, self.processes)
            loss = loss + self.auxiliary * other
        return loss


def make_objective(train: TrainSpec, task: Task, teacher: nn.Module | None) -> Objective:
    """Return the objective of a recipe; ``teacher`` is its teacher, on the device."""
    spec = train.teacher
    return Objective(
        task=task,
        smoothing=train.label_smoothing,
        mixing=_mixing(train, task.classes),
        teacher=teacher,
        share=spec.share if spec else 0.0,
        temperature=spec.temperature if spec else 1.0,
        auxiliary=train.auxiliary,
    )


def _mixing(train: TrainSpec, classes: int) -> Mixing | None:
    """Mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899), or one of both at even chances."""
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, train.mixup), (v2.CutMix, train.cutmix))
        if alpha
    ]
    return v2.RandomChoice(kinds) if kinds else None

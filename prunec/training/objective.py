"""Training objective: cross entropy with smoothing, mixing, an auxiliary head, and distillation."""

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
    """Loss of a batch.

    Attributes:
        task: task of the network.
        smoothing: share of the label spread over all classes (Szegedy et al., 2016).
        mixing: function that mixes images, and labels [N] into [N, classes], or None.
        teacher: network in evaluation mode to distil from, or None.
        share: weight of the teacher's term.
        temperature: T of Hinton et al. (2015), arXiv 1503.02531.
        auxiliary: weight of the cross entropy of an auxiliary head.
        processes: processes that share every batch: means are over the answers of all.
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
        """Return the images and labels of a step, mixed at random by torch's generator."""
        return (images, labels) if self.mixing is None else self.mixing(images, labels)

    def __call__(self, outputs: Outputs, labels: Tensor, images: Tensor) -> Tensor:
        """Return (1 − share)·CE + share·T²·KL(teacher ‖ network) + auxiliary·CE of its second head.

        Args:
            outputs: outputs of the network.
            labels: labels of the data, or mixed ones [N, classes].
            images: inputs of the network, [N, C, H, W].
        """
        task, logits = self.task, outputs.logits
        loss = task.cross_entropy(logits, labels, self.smoothing, self.processes)
        if self.teacher is not None:
            with torch.no_grad():
                answer = task.read(self.teacher(images), images).logits
                wanted = F.log_softmax(answer.float() / self.temperature, 1)
            log_probabilities = F.log_softmax(logits.float() / self.temperature, 1)
            soft = task.divergence(log_probabilities, wanted, labels, self.processes)
            # T²: gradients of the soft term shrink with 1/T² (Hinton et al., section 2).
            loss = (1 - self.share) * loss + self.share * self.temperature**2 * soft
        if outputs.auxiliary is not None:
            other = task.cross_entropy(outputs.auxiliary, labels, self.smoothing, self.processes)
            loss = loss + self.auxiliary * other
        return loss


def make_objective(train: TrainSpec, task: Task, teacher: nn.Module | None) -> Objective:
    """Return the objective of a recipe, with its teacher on the device."""
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
    """Return mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899), or a fair choice of both per
    batch.
    """
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, train.mixup), (v2.CutMix, train.cutmix))
        if alpha
    ]
    return v2.RandomChoice(kinds) if kinds else None

"""Evaluation of a network on images that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.processes import ALONE, Processes
from prunec.tasks.task import Score, Task
from prunec.training.settings import Settings


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        score: the task's metrics.
        classes: per class (samples, right answers); empty if samples have several labels.
    """

    score: Score
    classes: tuple[tuple[int, int], ...] = ()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: Task,
    device: torch.device,
    settings: Settings,
    processes: Processes = ALONE,
) -> Evaluation:
    """Return the result of ``model``, in evaluation mode, on the ``batches`` of all processes.

    Args:
        model: network on ``device``; its mode is restored.
        batches: this rank's images [N, C, H, W] and int64 labels in the task's form.
        task: task of the network.
        device: device to compute on.
        settings: precision and memory format.
        processes: processes whose counts are summed.
    """
    was_training = model.training
    model.eval()
    counts = torch.zeros(task.counted, dtype=torch.int64, device=device)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    classes = task.by_class(none, none)
    try:
        for images, labels in batches:
            inputs = settings.laid_out(images.to(device, non_blocking=True))
            with settings.casting(device):
                logits = task.read(model(inputs), inputs).logits
            answers, labels = logits.argmax(1), labels.to(device, non_blocking=True)
            counts += task.counts(answers, labels)
            classes = classes + task.by_class(answers, labels)
    finally:
        model.train(was_training)
    rows = processes.sum(classes).tolist()
    by_class = tuple((int(samples), int(right)) for samples, right in rows)
    return Evaluation(task.score(processes.sum(counts).tolist()), by_class)

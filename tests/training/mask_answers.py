"""Masks, answers to them, and mIoU by sets of pixels."""

from __future__ import annotations

import torch
from fake_voc import VOID
from torch import Tensor

CLASSES = 4


def answers(seed: int, classes: int = CLASSES, count: int = 3) -> tuple[Tensor, Tensor]:
    """Answers and labels of some masks, some pixels without label."""
    generator = torch.Generator().manual_seed(seed)
    actual = torch.randint(classes, (count, 5, 7), generator=generator)
    labels = torch.randint(classes, (count, 5, 7), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = VOID
    return actual, labels


def brute_miou(actual: Tensor, labels: Tensor, classes: int) -> float:
    """By sets of pixels, as VOC defines it: over the classes that occur."""
    ious = []
    for label in range(classes):
        valid = [i for i, y in enumerate(labels.flatten().tolist()) if y != VOID]
        wanted = {i for i in valid if labels.flatten()[i] == label}
        given = {i for i in valid if actual.flatten()[i] == label}
        if wanted | given:
            ious.append(len(wanted & given) / len(wanted | given))
    return 100 * sum(ious) / len(ious)

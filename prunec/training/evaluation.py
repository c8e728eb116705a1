"""Top-1 accuracy of a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.training.ranks import ALONE, Ranks
from prunec.training.settings import Settings


@dataclass(frozen=True)
class Accuracy:
    """How many of how many images got their label as the first answer."""

    correct: int
    total: int

    @property
    def percent(self) -> float:
        """The share of correct answers, in percent."""
        return 100 * self.correct / self.total if self.total else 0.0


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    settings: Settings,
    ranks: Ranks = ALONE,
) -> Accuracy:
    """Return the accuracy of ``model``, in eval mode, on the ``batches`` of all ranks.

    Args:
        model: on ``device``; its mode is restored.
        batches: this rank's images [N, C, H, W] and int64 labels [N].
        device: where to compute.
        settings: how.
        ranks: whose counts are summed.
    """
    was_training = model.training
    model.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    try:
        for images, labels in batches:
            inputs = settings.laid_out(images.to(device, non_blocking=True))
            with settings.casting(device):
                logits = model(inputs)
            counts[0] += (logits.argmax(1) == labels.to(device, non_blocking=True)).sum()
            counts[1] += len(labels)
    finally:
        model.train(was_training)
    correct, total = ranks.sum(counts).tolist()
    return Accuracy(correct, total)

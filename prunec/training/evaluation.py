"""Top-1 accuracy of a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Accuracy:
    """How many of how many images got their label as the first answer."""

    correct: int
    total: int

    @property
    def percent(self) -> float:
        """The share of correct answers, in percent."""
        return 100 * self.correct / self.total if self.total else 0.0


def casting(device: torch.device, precision: str) -> torch.autocast:
    """Return the context for ``precision``: ``off``, ``bf16`` or ``fp16``."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def laid_out(images: Tensor, channels_last: bool) -> Tensor:
    """Return ``images`` [N, C, H, W] in the memory layout asked for."""
    return images.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    channels_last: bool,
    autocast: str,
) -> Accuracy:
    """Return the accuracy of ``model``, in eval mode, on ``batches`` of images and labels.

    Args:
        model: on ``device``; its mode is restored.
        batches: images [N, C, H, W] and int64 labels [N].
        device: where to compute.
        channels_last: the memory layout of the images.
        autocast: ``off``, ``bf16`` or ``fp16``.
    """
    was_training = model.training
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    total = 0
    try:
        for images, labels in batches:
            inputs = laid_out(images.to(device, non_blocking=True), channels_last)
            with casting(device, autocast):
                logits = model(inputs)
            correct += (logits.argmax(1) == labels.to(device, non_blocking=True)).sum()
            total += len(labels)
    finally:
        model.train(was_training)
    return Accuracy(int(correct), total)

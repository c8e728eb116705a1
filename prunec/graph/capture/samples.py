"""Which inputs of a network hold samples, and which are the same for every batch.

An input holds samples if its first axis is as long as that of the first input. Any other (a scale,
a number for every channel, one prior beside several samples) is taken whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def holds_samples(given: Tensor, example: Sequence[Tensor]) -> bool:
    """Say whether the first axis of an input is the batch."""
    return given.shape[:1] == example[0].shape[:1] != ()


def of_samples(example: Sequence[Tensor], change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Return an example whose inputs that hold samples are changed."""
    return tuple(change(x) if holds_samples(x, example) else x for x in example)


def doubled(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return an example of two samples for one of one, which would be taken for a constant."""
    return of_samples(example, lambda x: torch.cat([x, x]) if len(x) == 1 else x)

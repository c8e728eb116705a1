"""Distinction of inputs that hold samples from inputs that are the same for every batch.

An input holds samples if its first axis is as long as that of the first input. All others (a scale,
one number per channel, one prior for several samples) are used whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def holds_samples(given: Tensor, example: Sequence[Tensor]) -> bool:
    """Return whether the first axis of an input is the batch."""
    return given.shape[:1] == example[0].shape[:1] != ()


def of_samples(example: Sequence[Tensor], change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Return an example in which the inputs that hold samples are changed."""
    return tuple(change(x) if holds_samples(x, example) else x for x in example)


def doubled(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return an example of one sample repeated to two, since size 1 would become a constant."""
    return of_samples(example, lambda x: torch.cat([x, x]) if len(x) == 1 else x)

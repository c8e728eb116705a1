"""Auxiliary head of torchvision's segmentation networks: used only in training, never shipped.

It reads a middle layer of the backbone, and its loss is added, as in Inception; the network's
output does not depend on it. The network of an artifact has none, because the compiler would keep
channels for it and budgets would count it. It is attached for the duration of a training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

HELD = "aux_classifier"  # its attribute in torchvision


def take_head(model: nn.Module) -> nn.Module | None:
    """Detach the head from ``model``, in place, and return it; None where there is none."""
    head = getattr(model, HELD, None)
    if isinstance(head, nn.Module):
        setattr(model, HELD, None)
        return head
    return None


@contextmanager
def training_head(model: nn.Module, head: nn.Module | None) -> Iterator[None]:
    """Attach a copy of ``head`` to ``model`` while the block runs, if it has the attribute for it.

    A cut network does not have it: its middle layer may have other channels.
    """
    if head is None or not hasattr(model, HELD):
        yield
        return
    setattr(model, HELD, copy.deepcopy(head).train())
    try:
        yield
    finally:
        setattr(model, HELD, None)

"""The second head that torchvision's networks for segmentation train with: it never ships.

It reads a middle layer of the backbone and its loss is added, as in Inception; what a network
answers does not depend on it. So the network of an artifact has none: the compiler would keep
channels for it, and the budget would count it. It is there while a training lasts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

HELD = "aux_classifier"  # torchvision's name of it


def take_head(model: nn.Module) -> nn.Module | None:
    """Take the head off ``model``, in place, and return it; None where there is none."""
    head = getattr(model, HELD, None)
    if isinstance(head, nn.Module):
        setattr(model, HELD, None)
        return head
    return None


@contextmanager
def training_head(model: nn.Module, head: nn.Module | None) -> Iterator[None]:
    """Let ``model`` have a copy of ``head`` while the block runs, if it has a place for it.

    A network that was cut has none any more: its middle layer may have other channels.
    """
    if head is None or not hasattr(model, HELD):
        yield
        return
    setattr(model, HELD, copy.deepcopy(head).train())
    try:
        yield
    finally:
        setattr(model, HELD, None)

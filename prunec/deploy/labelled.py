"""Labelled batches from the caller as a test split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunec.deploy.checks.rounding import run
from prunec.errors import DataError
from prunec.tasks.segmentation import VOID, Segmentation
from prunec.tasks.task import Classification, Task


def labelled_batches(
    batches: Iterable[Any], module: nn.Module, example: tuple[Tensor, ...]
) -> LabelledBatches:
    """Return a test split for a network of one input whose first output scores classes.

    Raises:
        DataError: the network or the first batch has another form.
    """
    logits = run(module, example)[0]
    if len(example) != 1 or logits.ndim < 2:
        raise DataError(
            f"data cannot test a network with {len(example)} inputs and a first output of shape "
            f"{logits.shape}",
            remedy="Leave data out, or wrap the network: one input, logits [N, classes, …].",
        )
    return LabelledBatches(batches, logits.shape[1])


class LabelledBatches:
    """Batches (inputs, labels) of any iterable, such as a ``DataLoader`` or a list.

    Attributes:
        task: classification for labels [N], segmentation for labels [N, H, W].
    """

    def __init__(self, batches: Iterable[Any], classes: int) -> None:
        """Read the first batch.

        Args:
            batches: float inputs [N, …], normalised for the network, and integer labels.
            classes: length of axis 1 of the network's first output.

        Raises:
            DataError: there is no batch, or the first has another form.
        """
        self._rest = iter(batches)
        first = next(self._rest, None)
        if first is None:
            raise DataError("data holds no batch", remedy="Give batches (inputs, labels).")
        self._first = _checked(first, classes, 0)
        pixels = self._first[1].dim() == 3
        self.task: Task = Segmentation(classes) if pixels else Classification(classes)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the given batches once, in their own sizes."""
        yield self._first
        for number, batch in enumerate(self._rest, start=1):
            yield _checked(batch, self.task.classes, number)


def _checked(batch: Any, classes: int, number: int) -> tuple[Tensor, Tensor]:
    """Return inputs and int64 labels of a batch, on the CPU.

    Raises:
        DataError: the batch has another form.
    """
    wrong = _flaw(batch, classes)
    if wrong:
        raise DataError(
            f"batch {number} of data {wrong}",
            remedy="Give batches (inputs [N, …], labels [N], or [N, H, W] of pixels), labels from "
            f"0 to {classes - 1}.",
        )
    inputs, labels = batch
    return inputs.detach().cpu(), labels.detach().cpu().to(torch.int64)


def _flaw(batch: Any, classes: int) -> str:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        return f"is not a pair, but of type {type(batch).__name__}"
    inputs, labels = batch
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        return "does not hold two tensors"
    if labels.is_floating_point() or labels.dim() not in (1, 3):
        return f"has labels of type {labels.dtype} and shape {tuple(labels.shape)}"
    if not len(labels) or len(inputs) != len(labels):
        return f"has {len(inputs)} inputs and {len(labels)} labels"
    # Pixels that are VOID, and samples labelled −1, have no class to check.
    void = VOID if labels.dim() == 3 else -1
    known = labels[labels != void]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < classes:
        return f"has labels from {int(known.min())} to {int(known.max())}"
    return ""

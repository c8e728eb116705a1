"""Labelled batches that a caller brings, as a test split."""

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
    """Return batches for a network of one input, whose first output holds a score per class.

    Raises:
        DataError: the network or the first batch is not of this kind.
    """
    logits = run(module, example)[0]
    if len(example) != 1 or logits.ndim < 2:
        raise DataError(
            f"data cannot be asked of a network with {len(example)} inputs and a first output of "
            f"shape {logits.shape}",
            remedy="Leave data out, or wrap the network: one input, logits [N, classes, …].",
        )
    return LabelledBatches(batches, logits.shape[1])


class LabelledBatches:
    """Batches (inputs, labels) of any iterable: a ``DataLoader``, a list.

    Attributes:
        task: classification where labels are [N], segmentation where they are [N, H, W].
    """

    def __init__(self, batches: Iterable[Any], classes: int) -> None:
        """Look at the first batch.

        Args:
            batches: float inputs [N, …], normalised as the network takes them, and whole labels.
            classes: the length of axis 1 of the network's first output.

        Raises:
            DataError: there is no batch, or the first is not of this kind.
        """
        self._rest = iter(batches)
        first = next(self._rest, None)
        if first is None:
            raise DataError("data holds no batch", remedy="Give batches (inputs, labels).")
        self._first = _checked(first, classes, 0)
        pixels = self._first[1].dim() == 3
        self.task: Task = Segmentation(classes) if pixels else Classification(classes)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches as they were given, whatever their size; once."""
        yield self._first
        for number, batch in enumerate(self._rest, start=1):
            yield _checked(batch, self.task.classes, number)


def _checked(batch: Any, classes: int, number: int) -> tuple[Tensor, Tensor]:
    """Return inputs and int64 labels of a batch, on the CPU.

    Raises:
        DataError: they are not.
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
        return f"is no pair, but of type {type(batch).__name__}"
    inputs, labels = batch
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        return "does not hold two tensors"
    if labels.is_floating_point() or labels.dim() not in (1, 3):
        return f"has labels of type {labels.dtype} and shape {tuple(labels.shape)}"
    if not len(labels) or len(inputs) != len(labels):
        return f"has {len(inputs)} inputs and {len(labels)} labels"
    void = VOID if labels.dim() == 3 else -1
    known = labels[labels != void]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < classes:
        return f"has labels from {int(known.min())} to {int(known.max())}"
    return ""

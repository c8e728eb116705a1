"""First samples of a test split, for runners that are too slow for all of them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from prunec.deploy.checks.outputs import TestSplit
from prunec.tasks.task import Task


class Some:
    """Test split cut after a number of samples.

    Attributes:
        less: whether samples were left out; known after the last batch.
    """

    def __init__(self, data: TestSplit, samples: int | None) -> None:
        self._data, self._samples = data, samples
        self.less = False

    @property
    def task(self) -> Task:
        """Task of the network."""
        return self._data.task

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels of the remaining samples."""
        left = self._samples
        for images, labels in self._data.test_batches(batch_size):
            if left is None:
                yield images, labels
                continue
            if len(images) > left:
                self.less = True
            if left:
                yield images[:left], labels[:left]
            if self.less:
                return
            left -= len(images)

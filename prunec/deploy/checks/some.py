"""The first samples of a test split, for a runner that is too slow for all of them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from prunec.deploy.checks.outputs import TestSplit
from prunec.tasks.task import Task


class Some:
    """A test split that ends after some samples.

    Attributes:
        less: whether there were more; known when its last batch was taken.
    """

    def __init__(self, data: TestSplit, samples: int | None) -> None:
        self._data, self._samples = data, samples
        self.less = False

    @property
    def task(self) -> Task:
        """What is asked of a network."""
        return self._data.task

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels, of the samples that are left over."""
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

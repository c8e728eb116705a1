"""Sums of a running epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunec.processes import Processes
from prunec.tasks.task import Score, Task

PLAIN = ("loss", "images", "seconds")


@dataclass
class Tally:
    """Sums over the images of an epoch.

    Attributes:
        task: task whose counts are summed.
        sums: loss, then the task's counts, of this rank; float64 on the device, so that no step
            waits for it.
        images: number of images.
        earlier: result of :meth:`total` when an earlier process stopped within the epoch.
    """

    task: Task
    sums: Tensor
    images: int = 0
    earlier: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def empty(
        cls, task: Task, device: torch.device, earlier: Mapping[str, float] | None = None
    ) -> Tally:
        """Return sums of no images."""
        sums = torch.zeros(1 + task.counted, dtype=torch.float64, device=device)
        return cls(task, sums, earlier=earlier or {})

    def add(self, loss: Tensor, counts: Tensor, images: int) -> None:
        """Add a batch: its mean loss, its counts, its size."""
        self.sums[0] += loss.double() * images
        self.sums[1:] += counts
        self.images += images

    def total(self, processes: Processes, seconds: float = 0.0) -> dict[str, float]:
        """Return the sums of all processes as numbers, with the seconds so far."""
        sums = torch.cat([self.sums, self.sums.new_tensor([self.images])])
        loss, *counts, images = processes.sum(sums).tolist()
        now = dict(zip(PLAIN, (loss, images, seconds), strict=True))
        now |= {str(place): count for place, count in enumerate(counts)}
        return {name: value + self.earlier.get(name, 0) for name, value in now.items()}

    def score(self, total: Mapping[str, float]) -> Score:
        """Return the score of the counts in :meth:`total`."""
        return self.task.score([total[str(place)] for place in range(self.task.counted)])

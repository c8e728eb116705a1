"""What an epoch has summed up so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunec.training.ranks import Ranks


@dataclass
class Tally:
    """Sums over the images of an epoch.

    Attributes:
        sums: loss, right answers of this rank; float64 on the device, so that no step waits for it.
        images: their number.
        earlier: what :meth:`total` said of all ranks when an earlier process stopped.
    """

    sums: Tensor
    images: int = 0
    earlier: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def empty(cls, device: torch.device, earlier: Mapping[str, float] | None = None) -> Tally:
        """Nothing seen yet by this process."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device), earlier=earlier or {})

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Take in a batch: its mean loss, its right answers, its size."""
        self.sums += torch.stack([loss.double() * images, correct.double()])
        self.images += images

    def total(self, ranks: Ranks, seconds: float = 0.0) -> dict[str, float]:
        """Return the sums of all ranks as numbers, with the seconds until now."""
        sums = torch.cat([self.sums, self.sums.new_tensor([self.images])])
        loss, correct, images = ranks.sum(sums).tolist()
        now = {"loss": loss, "correct": correct, "images": images, "seconds": seconds}
        return {name: value + self.earlier.get(name, 0) for name, value in now.items()}

"""What an epoch has summed up so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.training.ranks import Ranks


@dataclass
class Tally:
    """Sums over the images of an epoch that this rank has seen.

    Attributes:
        sums: loss, right answers; float64 on the device, so that no step waits for it.
        images: their number.
        seconds: of training, before this process took the epoch up.
    """

    sums: Tensor
    images: int = 0
    seconds: float = 0.0

    @classmethod
    def empty(cls, device: torch.device) -> Tally:
        """Nothing seen yet."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    @classmethod
    def restored(cls, saved: Mapping[str, float], device: torch.device, ranks: Ranks) -> Tally:
        """What :meth:`total` said; rank 0 keeps it for all."""
        tally = cls.empty(device)
        tally.seconds = saved["seconds"]
        if ranks.first:
            tally.sums += tally.sums.new_tensor([saved["loss"], saved["correct"]])
            tally.images = int(saved["images"])
        return tally

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Take in a batch: its mean loss, its right answers, its size."""
        self.sums += torch.stack([loss.double() * images, correct.double()])
        self.images += images

    def total(self, ranks: Ranks, seconds: float = 0.0) -> dict[str, float]:
        """Return the sums of all ranks as numbers, with the seconds until now."""
        sums = torch.cat([self.sums, self.sums.new_tensor([self.images])])
        loss, correct, images = ranks.sum(sums).tolist()
        spent = self.seconds + seconds
        return {"loss": loss, "correct": correct, "images": images, "seconds": spent}

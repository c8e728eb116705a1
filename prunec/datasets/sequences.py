"""Sequences as images of one row: [features, 1, steps], each feature standardised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.errors import DamagedData

LEAST = 1e-6  # smallest deviation: a constant feature becomes zero instead of infinite


@dataclass(frozen=True)
class Standard:
    """Standardisation of features: mean and deviation of each over the training split."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, sequences: Tensor) -> Tensor:
        """Return float32 sequences [..., features, 1, steps] of mean 0 and deviation 1."""
        mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (self.mean, self.std))
        return (sequences - mean) / std.clamp(min=LEAST)


def standard_of(sequences: Tensor) -> Standard:
    """Return mean and deviation of the features of sequences [N, features, 1, steps]."""
    wide = sequences.double()
    mean, std = wide.mean((0, 2, 3)), wide.std((0, 2, 3), correction=0)
    return Standard(tuple(mean.tolist()), tuple(std.tolist()))


def unreadable(name: str, reason: str) -> DamagedData:
    """Return the error for a file of sequences that cannot be read."""
    return DamagedData(
        f"{name} cannot be read: {reason}",
        remedy="Download or unpack it again, or remove it; `prunec data check RECIPE` reads all.",
    )

"""Which weights stay, drop or grow: choices by score, ties to the earlier, the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

NEAR = 0.03  # of a guess: what is sorted


def largest(scores: Tensor, count: int) -> Tensor:
    """Return a mask, 1 at the ``count`` largest scores, in the scores' shape and dtype."""
    mask = torch.zeros_like(scores, memory_format=torch.contiguous_format).flatten()
    if count > 0:
        mask[torch.topk(scores.flatten(), count, sorted=False).indices] = 1
    return mask.view(scores.shape).contiguous(memory_format=_layout(scores))


def bound_of_largest(scores: Tensor, count: int, guess: float) -> float:
    """Return the largest score that is not among the ``count`` largest: those are all above it.

    Equal scores at the bound fall together. Returns −1 where all are among them.

    Args:
        scores: at least 0, without gaps in memory.
        count: how many.
        guess: near the bound: then few scores are sorted, and the others only compared.
    """
    flat = scores.as_strided((scores.numel(),), (1,))
    if count >= len(flat):
        return -1.0
    # numpy compares, counts and picks several times as fast, but knows no bf16 and no GPU
    plain = flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64)
    values: Any = flat.numpy() if plain else flat
    low, high = values >= (1 - NEAR) * guess, values > (1 + NEAR) * guess
    place = count - int(np.count_nonzero(high) if plain else torch.count_nonzero(high))
    near = values[low ^ high]
    if not 0 <= place < len(near):
        near, place = values, count
    rank = len(near) - place - 1
    return float(np.partition(near, rank)[rank] if plain else near.sort().values[rank])


def largest_of_all(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return masks, 1 at the ``count`` largest scores of all tensors together."""
    flat = torch.cat([score.flatten() for score in scores])
    parts = torch.split(largest(flat, count), [score.numel() for score in scores])
    return [
        part.view(score.shape).contiguous(memory_format=_layout(score))
        for part, score in zip(parts, scores, strict=True)
    ]


def two_of_four_(scores: Tensor, room: Tensor) -> None:
    """Let the scores be 1 where they are among the two largest of their row, else 0.

    Those are above the third largest; equals of it fall together, so that fewer than two may stay.

    Args:
        scores: [N, 4].
        room: [3, N] of the same dtype, whose values are lost: fresh memory costs as much again.
    """
    a, b, c, d = scores.unbind(1)
    losers, winners, other = room
    torch.minimum(a, b, out=losers)
    torch.minimum(c, d, out=other)
    torch.maximum(losers, other, out=losers)
    torch.maximum(a, b, out=winners)
    torch.maximum(c, d, out=other)
    torch.minimum(winners, other, out=winners)
    third = torch.minimum(losers, winners, out=losers)
    torch.gt(scores, third.unsqueeze(1), out=scores)


def _layout(tensor: Tensor) -> torch.memory_format:
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format

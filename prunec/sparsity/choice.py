"""Which weights stay, drop or grow: choices by score, ties to the earlier, the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence

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
    low, high = flat >= (1 - NEAR) * guess, flat > (1 + NEAR) * guess
    place = count - int(torch.count_nonzero(high))
    near = flat[low.logical_xor_(high)]
    if not 0 <= place < len(near):
        near, place = flat, count
    return float(near.kthvalue(len(near) - place).values)


def largest_of_all(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return masks, 1 at the ``count`` largest scores of all tensors together."""
    flat = torch.cat([score.flatten() for score in scores])
    parts = torch.split(largest(flat, count), [score.numel() for score in scores])
    return [
        part.view(score.shape).contiguous(memory_format=_layout(score))
        for part, score in zip(parts, scores, strict=True)
    ]


def two_of_four(scores: Tensor) -> Tensor:
    """Return a mask, 1 at the two largest of every four neighbours along the input channels.

    They are above the third largest; equals of it fall together, so that fewer than two may stay.

    Args:
        scores: [O, I, …], I a multiple of 4: the pattern of sparse tensor cores.
    """
    last = scores.movedim(1, -1)
    fours = last.reshape(-1, 4)
    a, b, c, d = fours.unbind(1)
    lower = torch.maximum(torch.minimum(a, b), torch.minimum(c, d))
    upper = torch.minimum(torch.maximum(a, b), torch.maximum(c, d))
    third = torch.minimum(lower, upper)
    mask = (fours > third.unsqueeze(1)).view(last.shape).movedim(-1, 1).to(scores.dtype)
    return mask.contiguous(memory_format=_layout(scores))


def _layout(tensor: Tensor) -> torch.memory_format:
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format

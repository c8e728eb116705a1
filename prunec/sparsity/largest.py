"""Selection of weights to keep, drop or grow, by score, without a full sort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunec.sparsity.flat import NUMPY, Flat, Span, Values

NEAR = 0.03  # of a guess: what is sorted
SMALL = 2**16  # weights: among so few `topk` says which of equal scores are chosen, as ever
DIGIT = 4  # bits: 16 bounds are tried at a time, in 8 passes over numbers of 32 bits
EVERY, MARGIN = 64, 4  # of a sample: its stride, and standard deviations that a rank may be off
BITS = {
    torch.float16: (torch.int16, 16), torch.bfloat16: (torch.int16, 16),
    torch.float32: (torch.int32, 32), torch.float64: (torch.int64, 64),
}  # fmt: skip


def largest(scores: Tensor, count: int) -> Tensor:
    """Return a mask, 1 at the ``count`` largest scores, in the scores' shape and dtype."""
    mask = torch.zeros_like(scores, memory_format=torch.contiguous_format).flatten()
    if count > 0:
        mask[torch.topk(scores.flatten(), count, sorted=False).indices] = 1
    return mask.view(scores.shape).contiguous(memory_format=_layout(scores))


def largest_of_all(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return masks, 1 at the ``count`` largest scores of all tensors together."""
    flat = torch.cat([score.flatten() for score in scores])
    parts = torch.split(largest(flat, count), [score.numel() for score in scores])
    return [
        part.view(score.shape).contiguous(memory_format=_layout(score))
        for part, score in zip(parts, scores, strict=True)
    ]


def choose(flat: Flat, scores: Values, counts: Sequence[int], out: Values) -> None:
    """Let ``out`` be 1 at each kernel's ``counts`` largest scores, else 0.

    Args:
        flat: the kernels.
        scores: at least 0; −1 of what is not to be chosen; lost between kernels.
        counts: how many of each.
        out: masks, in memory of their own, or in that of the scores.
    """
    scores.memory.index_fill_(0, flat.rests, -1.0)
    for span in flat.spans:
        wanted = counts[span.kernels]
        if span.row_of is not None:
            _choose_by_counting(span, scores.memory, wanted, out.memory)
            continue
        number = slice(span.kernels.start, span.kernels.start + 1)
        own = Values(span.of(scores.memory), scores.parts[number])
        _choose_by_sorting(own, wanted[0], Values(span.of(out.memory), out.parts[number]))


def choose_of_all(flat: Flat, scores: Values, count: int, out: Values) -> None:
    """Let ``out`` be 1 at the ``count`` largest scores of all kernels together; as `choose`."""
    span = flat.whole
    scores.memory.index_fill_(0, flat.rests, -1.0)
    if span.row_of is not None:
        _choose_by_counting(span, scores.memory, [count], out.memory)
    else:
        _choose_by_sorting(scores, count, out)


def _choose_by_sorting(scores: Values, count: int, out: Values) -> None:
    """Mark the ``count`` largest; of equal ones those that lie first, or that `topk` chooses."""
    if count <= 0:
        out.memory.zero_()
        return
    bound, above = _bound_of_largest(scores.memory, count)
    missing = count - above
    if missing and len(out.memory) <= SMALL:
        torch._foreach_copy_(out.parts, largest_of_all(scores.parts, count))
        return
    first = _first_equal(scores.memory, bound, missing) if missing else None
    torch.gt(scores.memory, bound, out=out.memory)
    if first is not None:
        out.memory[first] = 1


def _first_equal(scores: Tensor, bound: float, count: int) -> Tensor:
    """Return the places of the first ``count`` scores that equal a bound."""
    if scores.device.type == "cpu" and scores.dtype in NUMPY:
        return torch.from_numpy(np.flatnonzero(scores.numpy() == bound)[:count])
    return torch.nonzero(scores == bound).flatten()[:count]


def _choose_by_counting(span: Span, scores: Tensor, counts: Sequence[int], out: Tensor) -> None:
    """Mark each kernel's largest; of equal ones those that lie first. No wait for the device."""
    wanted = torch.tensor(counts, device=scores.device)
    own, bounds = span.of(scores), bounds_by_counting(span, scores, wanted)
    rows = span.per_row(bounds)
    above, tied = own > rows, (own == rows) & (own >= 0)
    missing = wanted - span.sums(above)
    equal = span.sums(tied)
    before = equal.cumsum(0) - equal  # in the kernels before
    rank = tied.flatten().cumsum(0).view_as(tied) - span.per_row(before)
    span.of(out).copy_(above | (tied & (rank <= span.per_row(missing))))


def bounds_of_largest(
    span: Span, scores: Tensor, counts: Sequence[int] | Tensor, guesses: Tensor
) -> Tensor:
    """Return the largest score of each kernel that is not among its ``counts`` largest.

    Equal scores at a bound fall together. −1 where all are among them.

    Args:
        span: the kernels.
        scores: memory of at least 0.
        counts: how many, of each kernel of the span.
        guesses: near the bounds, [kernels of the span]: a processor is sooner done with them.

    Returns:
        [kernels of the span], where the scores are.
    """
    if span.row_of is not None:
        return bounds_by_counting(span, scores, torch.as_tensor(counts, device=scores.device))
    bound = bound_of_largest(span.of(scores), int(counts[0]), float(guesses))
    return guesses.new_tensor([bound])


def bounds_by_counting(span: Span, scores: Tensor, counts: Tensor) -> Tensor:
    """Return the bounds of :func:`bounds_of_largest` without a wait for the device.

    Numbers of at least 0 are ordered as their bits are, so the bound is found digit by digit, from
    the top: as many passes over the scores as a number has digits, each a handful of operations.
    """
    kind, bits = BITS[scores.dtype]
    own = span.of(scores.view(kind))
    bound = torch.zeros_like(counts)
    digits = torch.arange(2**DIGIT, device=counts.device)
    for lowest in range(bits - bits % DIGIT - DIGIT, -1, -DIGIT):
        most = 2 ** min(DIGIT, bits - 1 - lowest)  # the sign is no digit
        tried = torch.add(bound.unsqueeze(1), digits[:most], alpha=2**lowest)
        more = span.counts_from(own, tried.to(kind)) > counts.unsqueeze(1)
        bound = torch.add(bound, more.sum(1) - 1, alpha=2**lowest)  # 0 is among the digits
    return torch.where(bound < 0, -1.0, bound.to(kind).view(scores.dtype))


def bound_of_largest(scores: Tensor, count: int, guess: float | None = None) -> float:
    """Return the largest score that is not among the ``count`` largest: those are all above it.

    Equal scores at the bound fall together. Returns −1 where all are among them.

    Args:
        scores: at least −1, without gaps in memory.
        count: how many.
        guess: near the bound: then few scores are sorted, and the others only compared; by default
            it is what a sample of them says.
    """
    return _bound_of_largest(scores, count, guess)[0]


def _bound_of_largest(scores: Tensor, count: int, guess: float | None = None) -> tuple[float, int]:
    """The bound of :func:`bound_of_largest`, and how many scores are above it."""
    flat = scores.as_strided((scores.numel(),), (1,), scores.storage_offset())
    # numpy compares, counts and picks several times as fast, but knows no bf16 and no GPU
    plain = flat.device.type == "cpu" and flat.dtype in NUMPY
    values: Any = flat.numpy() if plain else flat
    if count >= len(flat):
        return -1.0, _counted(values > -1)
    if guess is not None:
        low, high = (1 - NEAR) * guess, (1 + NEAR) * guess
    elif plain:
        low, high = _by_sample(values, count)
    else:
        low, high = -math.inf, math.inf
    return _between(values, count, low, high)


def _by_sample(values: Any, count: int) -> tuple[float, float]:
    """Numbers between which the bound is, as a sample of the scores says."""
    sample = values[::EVERY]
    rank = count / EVERY
    margin = MARGIN * (rank**0.5 + 1)
    least, most = (len(sample) - 1 - int(rank + sign * margin) for sign in (1, -1))
    places = [place for place in (least, most) if 0 <= place < len(sample)]
    ordered = np.partition(sample, places) if places else sample
    low = float(ordered[least]) if least in places else -math.inf
    return low, float(ordered[most]) if most in places else math.inf


def _between(values: Any, count: int, low: float, high: float) -> tuple[float, int]:
    """The bound and how many scores are above it; only what is above ``low`` up to ``high`` is
    sorted, if the bound is there.
    """
    over, above = values > low, values > high
    beyond, reaching = _counted(above), _counted(over)
    if reaching <= count < _counted(values >= low):
        return low, reaching  # many scores are equal, such as those of weights that just grew
    near, place = values, count
    if beyond <= count < reaching:
        over ^= above
        near, place = values[over], count - beyond
    else:
        beyond = 0
    rank = len(near) - place - 1
    bound = float(np.partition(near, rank)[rank] if _plain(near) else near.sort().values[rank])
    return bound, beyond + _counted(near > bound)


def _counted(held: Any) -> int:
    return int(np.count_nonzero(held) if _plain(held) else torch.count_nonzero(held))


def _plain(values: Any) -> bool:
    return isinstance(values, np.ndarray)


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

"""Random inputs for a network: in the range of its example, or within declared bounds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prunec.graph.capture.samples import holds_samples

_SIZES = (1, 2, 5)  # of the first batches
_SEED = 20  # fixed, so that a verification can be repeated

Range = tuple[float, float]


def random_batches(
    example: tuple[Tensor, ...], count: int, declared: Range | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of different sizes, 1, 2 and 5 first.

    Numbers are drawn uniformly between the smallest and the largest value of the example in the
    same channel (axis 1), or between the declared bounds; whole numbers stay whole. Byte images are
    drawn from 0 to 255; other integers (indices, tokens) and booleans are drawn from the samples of
    the example. An example with one value everywhere has no range: for 0, numbers are drawn from
    the standard normal distribution; for another value, between 0 and twice the value.
    """
    generator = torch.Generator().manual_seed(_SEED)
    for index in range(count):
        size = _SIZES[index] if index < len(_SIZES) else 1 + index
        yield tuple(
            _random(x.cpu(), size if holds_samples(x, example) else None, generator, declared)
            for x in example
        )


def _random(
    x: Tensor, size: int | None, generator: torch.Generator, declared: Range | None
) -> Tensor:
    """Return ``size`` samples like those of an input, or one replacement if it holds no samples."""
    if x.dtype == torch.uint8 and x.dim() == 4 and size is not None:  # an image
        drawn = torch.randint(256, (size, *x.shape[1:]), generator=generator)
        return drawn.to(torch.uint8)
    if not x.is_floating_point():
        return x if size is None else x[torch.randint(len(x), (size,), generator=generator)]
    shape = x.shape if size is None else (size, *x.shape[1:])
    low, high = _range(x.detach().double(), declared)
    if bool((low == 0).all() and (high == 0).all()):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(x.dtype)
    drawn = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
    whole = not declared and x.numel() > 1 and bool((x == x.round()).all())
    return (drawn.round() if whole and bool((high > low).any()) else drawn).to(x.dtype)


def _range(x: Tensor, declared: Range | None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value, per channel if there are channels."""
    if declared:
        return x.new_tensor(declared[0]), x.new_tensor(declared[1])
    finite = torch.where(x.isfinite(), x, torch.zeros_like(x))
    if x.dim() > 2:
        others = [axis for axis in range(x.dim()) if axis != 1]
        low, high = finite.amin(others, keepdim=True), finite.amax(others, keepdim=True)
        if bool((high > low).any()):
            return low, high
    low, high = finite.min(), finite.max()
    if bool(high > low):
        return low, high
    return torch.minimum(2 * low, torch.zeros_like(low)), torch.maximum(2 * high, low * 0)

"""Kernel of a convolution: as chosen for it, else by density and shape."""

from __future__ import annotations

from prunec.deploy.native.builder import Builder
from prunec.deploy.native.filters import Filters, Read
from prunec.deploy.native.layout import rounded
from prunec.deploy.native.packing import MOST_COLUMNS
from prunec.deploy.native.reading import Call

DENSE_FROM = 0.46
"""Share of nonzero weights from which the dense kernel is faster, as measured by
tests/bench/native_kernels.py."""
_DENSE_FROM_SPLIT = 0.37
"""The same where the input is split into phases: the sparse kernel reads more memory there."""
_THREE_FROM = 0.45
"""The same for the kernel of 3×3 depthwise convolutions."""
_DENSE_FROM_FEW, _FEW_TAPS = 0.55, 160
"""The same for filters of at most so many weights: packing weighs more in the dense kernel."""
_COLUMNS_TAPS, _COLUMNS_POSITIONS = 256, 256
"""Weights of a filter from which, and output positions up to which, a dense convolution is faster
with filters in vectors."""
_ROWS = 4
"""Filters of a block of the dense kernel: fewer leave it idle."""


def kernel_of(
    builder: Builder, call: Call, weights: Filters, taps: int, *, split: bool, three: bool = False
) -> str:
    """Return the kernel of a convolution, and record it and those that could take its place.

    Args:
        builder: the program, with the kernels that were chosen for it.
        call: the convolution.
        weights: its filters.
        taps: positions that a filter reads of each channel.
        split: whether it has steps, so that its input is split into phases or read apart.
        three: whether it is depthwise 3×3 without steps.
    """
    count, fits = weights.group_in * taps, []
    if count <= MOST_COLUMNS:
        fits += ["sparse", *(["three"] if three else [])]
    if weights.group_out >= _ROWS or not fits:
        fits.append("dense")
    if rounded(weights.group_out) * 9 <= weights.group_out * 10:
        fits.append("columns")
    out = builder.layout(call.results[0])
    positions = out.height * out.width
    own = _by_measure(weights.live, count, positions, fits, split=split)
    return builder.choose(call.results[0], own, fits)


def _by_measure(live: float, count: int, positions: int, fits: list[str], *, split: bool) -> str:
    """Return the kernel that measured layers of like density and shape were fastest with.

    Args:
        live: share of nonzero weights.
        count: weights of a filter.
        positions: output positions.
        fits: kernels that can compute it.
        split: whether its input is split into phases.
    """
    few = _DENSE_FROM_FEW if count <= _FEW_TAPS else DENSE_FROM
    dense_from = _DENSE_FROM_SPLIT if split else few
    if "sparse" in fits and (live < dense_from or "dense" not in fits):
        return "three" if "three" in fits and live >= _THREE_FROM else "sparse"
    long = count >= _COLUMNS_TAPS and positions <= _COLUMNS_POSITIONS
    return "columns" if long and "columns" in fits else "dense"


def is_three(read: Read, weights: Filters, stride: int) -> bool:
    """Whether a convolution is depthwise 3×3 with stride 1 and dilation 1."""
    square = tuple(y * stride + x for y in range(3) for x in range(3))
    return weights.group_in == weights.group_out == 1 and read.taps == square and not read.phases

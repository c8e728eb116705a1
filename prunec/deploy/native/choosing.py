"""Choice of a convolution's kernel: the one named for it, else one by density and shape."""

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
"""The same for filters of at most ``_FEW_TAPS`` weights: the dense kernel packs its input, which
takes a larger share of their time."""
_COLUMNS_TAPS, _COLUMNS_POSITIONS = 256, 256
"""The columns kernel, whose vectors hold filters, is faster than the dense one for filters of at
least so many weights and outputs of at most so many positions."""
_ROWS = 4
"""Filters of a block of the dense kernel: fewer leave a part of it idle."""


def kernel_of(
    builder: Builder, call: Call, weights: Filters, taps: int, *, split: bool, three: bool = False
) -> str:
    """Return the kernel of a convolution; record it and the other kernels that can compute it.

    Args:
        builder: the program, with the kernels that were named for its tensors.
        call: the convolution.
        weights: its filters.
        taps: positions that a filter reads of each channel.
        split: whether its stride is above 1, so that it reads phases, or positions apart.
        three: whether it is depthwise 3×3 with stride 1.
    """
    filter_size, fits = weights.group_in * taps, []
    if filter_size <= MOST_COLUMNS:
        fits += ["sparse", *(["three"] if three else [])]
    if weights.group_out >= _ROWS or not fits:
        fits.append("dense")
    # Blocks of 16 filters: the padding of the last one may add a ninth.
    if rounded(weights.group_out) * 9 <= weights.group_out * 10:
        fits.append("columns")
    out = builder.layout(call.results[0])
    positions = out.height * out.width
    preferred = _by_measure(weights.live, filter_size, positions, fits, split=split)
    return builder.choose(call.results[0], preferred, fits)


def _by_measure(
    live: float, filter_size: int, positions: int, fits: list[str], *, split: bool
) -> str:
    """Return the kernel that was fastest on measured layers of similar density and shape.

    Args:
        live: share of nonzero weights.
        filter_size: weights of a filter.
        positions: output positions.
        fits: kernels that can compute the convolution.
        split: whether its stride is above 1.
    """
    unsplit_from = _DENSE_FROM_FEW if filter_size <= _FEW_TAPS else DENSE_FROM
    dense_from = _DENSE_FROM_SPLIT if split else unsplit_from
    if "sparse" in fits and (live < dense_from or "dense" not in fits):
        return "three" if "three" in fits and live >= _THREE_FROM else "sparse"
    long_and_small = filter_size >= _COLUMNS_TAPS and positions <= _COLUMNS_POSITIONS
    return "columns" if long_and_small and "columns" in fits else "dense"


def is_three(read: Read, weights: Filters, stride: int) -> bool:
    """Return whether a convolution is depthwise 3×3 with stride 1 and dilation 1.

    Args:
        read: its input positions.
        weights: its filters.
        stride: floats of a row of its output.
    """
    square = tuple(y * stride + x for y in range(3) for x in range(3))
    return weights.group_in == weights.group_out == 1 and read.taps == square and not read.phases

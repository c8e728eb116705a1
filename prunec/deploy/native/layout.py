"""Memory layout of tensors: planes with a border of zeros, one layout per resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OVERRUN = 16
"""Floats past a plane that its last vector may touch: a vector of AVX-512 is 16 floats."""
# The kernels' structs hold six axes (PN_RANK).
RANK = 6


def rounded(count: int) -> int:
    """Return a number of floats rounded up to whole cache lines of 64 bytes."""
    return -(-count // 16) * 16


@dataclass(frozen=True)
class Border:
    """Zeros that convolutions need around planes: beside rows, and above and below them."""

    columns: int = 0
    rows: int = 0

    def with_(self, columns: int, rows: int) -> Border:
        """Return the wider of two borders."""
        return Border(max(self.columns, columns), max(self.rows, rows))


@dataclass(frozen=True)
class View:
    """A strided view of a tensor in the workspace.

    Attributes:
        sizes: size of every axis.
        steps: stride of every axis, in floats.
        at: offset of the first value in the buffer, in floats.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    at: int = 0

    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return sizes and strides padded to RANK axes; axes are merged where strides permit.

        Raises:
            ValueError: more than RANK axes remain.
        """
        sizes, steps = joined(self.sizes, (self.steps,))
        return padded(sizes, steps[0])


def joined(
    sizes: Sequence[int], steps: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the fewest axes: size 1 left out, neighbours merged where all strides permit.

    Args:
        sizes: size of every axis.
        steps: strides of each tensor.
    """
    kept = [axis for axis, size in enumerate(sizes) if size != 1]
    merged: list[tuple[int, list[int]]] = []
    for axis in kept:
        own = [each[axis] for each in steps]
        if merged and all(
            before == size_step * sizes[axis]
            for before, size_step in zip(merged[-1][1], own, strict=True)
        ):
            merged[-1] = (merged[-1][0] * sizes[axis], own)
        else:
            merged.append((sizes[axis], own))
    return (
        tuple(size for size, _ in merged),
        [tuple(own[i] for _, own in merged) for i in range(len(steps))],
    )


def padded(sizes: Sequence[int], steps: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return sizes and strides padded in front to RANK axes of size 1 and stride 0.

    Raises:
        ValueError: there are more than RANK axes.
    """
    missing = RANK - len(sizes)
    if missing < 0:
        raise ValueError(f"{len(sizes)} axes, at most {RANK} allowed")
    return (1,) * missing + tuple(sizes), (0,) * missing + tuple(steps)


def contiguous(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, row-major."""
    return tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


@dataclass(frozen=True)
class Planes:
    """The channels of a tensor.

    Attributes:
        channels, height, width: numbers and sizes of the planes.
        plane, stride: floats from channel to channel, from row to row.
        at: offset of the first value, in floats.
    """

    channels: int
    height: int
    width: int
    plane: int
    stride: int
    at: int


@dataclass(frozen=True)
class Layout:
    """Positions of a tensor's values in its buffer.

    Attributes:
        sizes: size of every axis of the tensor.
        channels, height, width: number and size of its planes.
        stride: floats from row to row.
        plane: floats from channel to channel.
        lead: zeros before the first plane, in floats.
        total: size of the buffer, in floats.
        steps: stride of every axis of the tensor, in floats.
    """

    sizes: tuple[int, ...]
    channels: int
    height: int
    width: int
    stride: int
    plane: int
    lead: int
    total: int
    steps: tuple[int, ...]

    @property
    def bordered(self) -> bool:
        """Whether there are zeros between its values."""
        return self.plane != self.height * self.width

    @property
    def planes(self) -> Planes:
        """Its planes; planes of one position are contiguous."""
        sizes = plane_sizes(self.sizes)
        if sizes is not None and sizes[1:] == (1, 1):
            return Planes(sizes[0], 1, 1, 1, 1, self.lead)
        return Planes(self.channels, self.height, self.width, self.plane, self.stride, self.lead)

    @property
    def positions(self) -> int:
        """Floats of a plane from its first value to its last."""
        return (self.height - 1) * self.stride + self.width

    @property
    def view(self) -> View:
        """Its values as a strided view."""
        return View(self.sizes, self.steps, self.lead)


def layout_of(sizes: tuple[int, ...], borders: Mapping[tuple[int, int], Border]) -> Layout:
    """Return the layout of a tensor: planes for [1, C, H, W] and [1, C, W], else contiguous.

    Args:
        sizes: size of every axis.
        borders: (height, width) → the zeros that convolutions need.
    """
    planes = plane_sizes(sizes)
    if planes is None or planes[1:] == (1, 1):
        count = math.prod(sizes)
        total = rounded(count + OVERRUN)
        return Layout(sizes, 1, 1, count, count, count, 0, total, contiguous(sizes))
    channels, height, width = planes
    border = borders.get((height, width), Border())
    stride = width + border.columns
    # A convolution reads so far before the first value of the first plane.
    lead = rounded(border.rows * stride + border.columns) if border != Border() else 0
    # One border of rows lies between two planes: below the one, above the next.
    rows = (height + border.rows) * stride
    plane = rounded(max(rows + border.columns, (height - 1) * stride + width + OVERRUN - 1))
    total = lead + channels * plane + lead + 2 * OVERRUN
    steps = (0, plane, stride, 1) if len(sizes) == 4 else (0, plane, 1)
    return Layout(sizes, channels, height, width, stride, plane, lead, rounded(total), steps)


def plane_sizes(sizes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of one image or sequence; None for other tensors."""
    if len(sizes) == 4 and sizes[0] == 1:
        return sizes[1], sizes[2], sizes[3]
    if len(sizes) == 3 and sizes[0] == 1:
        return sizes[1], 1, sizes[2]
    return None

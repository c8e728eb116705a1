"""How tensors lie in the workspace: planes with borders of zeros, a layout for each resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OVERRUN = 16
"""Floats that the last vector of a plane may read or write behind its positions."""
RANK = 6


def rounded(count: int) -> int:
    """Return a count of floats, up to the next whole line of 64 bytes."""
    return -(-count // 16) * 16


@dataclass(frozen=True)
class Border:
    """Zeros that convolutions ask for around planes: beside their rows, above and below them."""

    columns: int = 0
    rows: int = 0

    def with_(self, columns: int, rows: int) -> Border:
        """Return the wider of two."""
        return Border(max(self.columns, columns), max(self.rows, rows))


@dataclass(frozen=True)
class View:
    """Values of a tensor in the workspace.

    Attributes:
        sizes: of every axis.
        steps: floats from one position of an axis to the next.
        at: floats from the start of the buffer to the first value.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    at: int = 0

    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return sizes and steps of six axes, the first ones of size 1; fewer are joined.

        Raises:
            ValueError: it has more axes that cannot be joined.
        """
        sizes, steps = joined(self.sizes, (self.steps,))
        return padded(sizes, steps[0])


def joined(
    sizes: Sequence[int], steps: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return axes as few as they can be: of size 1 left out, neighbours in one line joined."""
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
    """Return six axes.

    Raises:
        ValueError: there are more.
    """
    missing = RANK - len(sizes)
    if missing < 0:
        raise ValueError(f"{len(sizes)} axes")
    return (1,) * missing + tuple(sizes), (0,) * missing + tuple(steps)


def contiguous(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the steps of a tensor without gaps."""
    return tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


@dataclass(frozen=True)
class Planes:
    """Channels of a tensor: their sizes, and floats from channel to channel and row to row.

    Attributes:
        channels, height, width: their sizes.
        plane, stride: floats from channel to channel, from row to row.
        at: floats before the first value.
    """

    channels: int
    height: int
    width: int
    plane: int
    stride: int
    at: int


@dataclass(frozen=True)
class Layout:
    """Where the values of a tensor stand in its buffer.

    Attributes:
        sizes: of the tensor.
        channels, height, width: of its planes.
        stride: floats from row to row.
        plane: floats from channel to channel.
        lead: zeros before the first plane.
        total: floats of the buffer.
        steps: floats from one position of an axis of the tensor to the next.
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
        """Whether zeros stand between its values."""
        return self.plane != self.height * self.width

    @property
    def planes(self) -> Planes:
        """Its planes; those of one position stand without gaps."""
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
        """Its values."""
        return View(self.sizes, self.steps, self.lead)


def layout_of(sizes: tuple[int, ...], borders: Mapping[tuple[int, int], Border]) -> Layout:
    """Return the layout of a tensor: planes of [1, C, H, W] and [1, C, W], else no gaps.

    Args:
        sizes: of the tensor.
        borders: height and width → what convolutions ask for.
    """
    planes = plane_sizes(sizes)
    if planes is None or planes[1:] == (1, 1):
        count = math.prod(sizes)
        total = rounded(count + OVERRUN)
        return Layout(sizes, 1, 1, count, count, count, 0, total, contiguous(sizes))
    channels, height, width = planes
    border = borders.get((height, width), Border())
    stride = width + border.columns
    lead = rounded(border.rows * stride + border.columns) if border != Border() else 0
    rows = (height + border.rows) * stride
    plane = rounded(max(rows + border.columns, (height - 1) * stride + width + OVERRUN - 1))
    total = lead + channels * plane + lead + 2 * OVERRUN
    steps = (0, plane, stride, 1) if len(sizes) == 4 else (0, plane, 1)
    return Layout(sizes, channels, height, width, stride, plane, lead, rounded(total), steps)


def plane_sizes(sizes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return channels, height and width of a tensor of planes of one sample."""
    if len(sizes) == 4 and sizes[0] == 1:
        return sizes[1], sizes[2], sizes[3]
    if len(sizes) == 3 and sizes[0] == 1:
        return sizes[1], 1, sizes[2]
    return None

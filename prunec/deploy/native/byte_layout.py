"""Memory layout of tensors of bytes: the planes of `layout.py`, a position to a byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.deploy.native.builder import Fields, Place
from prunec.deploy.native.layout import Layout

WIDEST = 64
"""Bytes of the widest vector, and of a cache line: lengths are multiples of it."""


def whole_lines(count: int) -> int:
    """Return a number of bytes rounded up to whole cache lines."""
    return -(-count // WIDEST) * WIDEST


def in_floats(count: int) -> int:
    """Return the floats that hold so many bytes, and two vectors that are read behind them."""
    return whole_lines(count + 2 * WIDEST) // 4


@dataclass(frozen=True)
class ByteLayout:
    """Positions of a tensor's bytes in its buffer.

    Attributes:
        channels, height, width: number and size of its planes.
        stride: bytes from row to row: as many as floats in the layout of its floats.
        plane: bytes from channel to channel.
        lead: bytes before the first plane.
    """

    channels: int
    height: int
    width: int
    stride: int
    plane: int
    lead: int

    @property
    def positions(self) -> int:
        """Bytes of a plane from its first value to its last."""
        return (self.height - 1) * self.stride + self.width

    @property
    def floats(self) -> int:
        """Size of the buffer, in floats."""
        return in_floats(self.lead + self.channels * self.plane + self.lead)

    @property
    def inside(self) -> np.ndarray:
        """A byte for each position of a plane, 255 where a value stands; whole cache lines, and a
        vector that is read behind them.
        """
        full = np.zeros(whole_lines(self.positions) + WIDEST, np.uint8)
        rows = full[: self.height * self.stride]
        grid = np.zeros((self.height, self.stride), np.uint8)
        grid[:, : self.width] = 255
        rows[:] = grid.reshape(-1)[: len(rows)]
        return full

    def fields(self, prefix: str, buffer: str, zero: int) -> Fields:
        """Return struct pn_bytes as fields of another struct."""
        fields: Fields = {
            f"{prefix}.at": Place(buffer), f"{prefix}.lead": self.lead,
            f"{prefix}.channels": self.channels, f"{prefix}.plane": self.plane,
            f"{prefix}.height": self.height, f"{prefix}.width": self.width,
            f"{prefix}.stride": self.stride, f"{prefix}.zero": zero,
        }  # fmt: skip
        return fields


def byte_layout(layout: Layout) -> ByteLayout | None:
    """Return the layout of a tensor as bytes; None if it has no planes of several positions."""
    planes = layout.planes
    if layout.channels != planes.channels or (planes.height, planes.width) == (1, 1):
        return None
    if layout.sizes[1] != planes.channels or len(layout.sizes) not in (3, 4):
        return None
    plane = whole_lines(max(layout.plane, layout.positions))
    lead = whole_lines(layout.lead)
    return ByteLayout(planes.channels, planes.height, planes.width, planes.stride, plane, lead)


def row_layout(layout: Layout) -> ByteLayout | None:
    """Return the layout of a tensor as one row of bytes; None if it has planes."""
    if layout.channels != 1 or layout.height != 1 or layout.lead or layout.bordered:
        return None
    width = layout.width
    return ByteLayout(1, 1, width, width, whole_lines(width), 0)


def stored_layout(layout: Layout) -> ByteLayout | None:
    """Return the layout of a tensor as bytes: in planes, or as one row."""
    return byte_layout(layout) or row_layout(layout)

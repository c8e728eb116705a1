"""Weight layouts of the kernels: rows without zeros, filters in fours, panels of outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PANEL = 32
"""Outputs of a dense linear layer that its kernel computes together (prunec_vectors.h)."""
STRIDE = 32
"""Rows between stored starts (PN_STRIDE of the kernels)."""
MOST_COLUMNS = (1 << 16) - 1
"""Most weights of a row: their numbers, and their count, must fit in two bytes."""
WIDEST = 255
"""The widest gap that a byte holds."""
MOST_FILLERS, MOST_FILLERS_OF_HALVES = 0.004, 0.1
"""Fillers per weight up to which gaps are stored, in one byte each; else numbers, in two.

A filler is a stored zero where a gap is too wide for a byte; it costs the time of a weight. The
first bound costs less time than can be measured. The second is for values stored as halves, beside
which a number in two bytes would be as large as the value.
"""


@dataclass(frozen=True)
class Rows:
    """Weights of a sparse kernel, row by row (prunec_weights.h).

    Attributes:
        starts: number of weights before every ``STRIDE``-th row.
        counts: number of weights of every row.
        places: columns of the weights: gaps in one byte each, or numbers in two.
        values: float32, or float16 if that loses no bit; fillers included.
    """

    starts: np.ndarray
    counts: np.ndarray
    places: np.ndarray
    values: np.ndarray

    @property
    def bytes(self) -> int:
        """Size of all arrays."""
        return sum(x.nbytes for x in (self.starts, self.counts, self.places, self.values))


def compressed(values: np.ndarray) -> Rows:
    """Return the nonzero weights of a matrix, row by row.

    Args:
        values: [rows, columns], at most ``MOST_COLUMNS`` columns.
    """
    rows, columns = np.nonzero(values)
    kept = exact(values[rows, columns])
    gaps = np.diff(columns, prepend=0)
    gaps[np.diff(rows, prepend=-1) != 0] = columns[np.diff(rows, prepend=-1) != 0]
    fillers = np.maximum(gaps - 1, 0) // WIDEST
    bound = MOST_FILLERS_OF_HALVES if kept.dtype == np.float16 else MOST_FILLERS
    if fillers.sum() > bound * len(rows):
        counts = np.bincount(rows, minlength=len(values))
        return Rows(*_counted(counts), columns.astype(np.uint16), kept)
    repeats = fillers + 1
    last = np.cumsum(repeats) - 1
    places = np.full(int(repeats.sum()), WIDEST, np.uint8)
    places[last] = gaps - WIDEST * fillers
    filled = np.zeros(len(places), kept.dtype)
    filled[last] = kept
    counts = np.bincount(np.repeat(rows, repeats), minlength=len(values))
    return Rows(*_counted(counts), places, filled)


def _counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights before every ``STRIDE``-th row, and the weights of every row."""
    before = np.cumsum(counts) - counts
    return before[::STRIDE].astype(np.uint32), counts.astype(np.uint16)


def exact(values: np.ndarray) -> np.ndarray:
    """Return values as float16 if all are finite there and lose no bit; else as float32."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    lossless = np.isfinite(halves).all() and (halves.astype(np.float32) == values).all()
    return halves if lossless else values.astype(np.float32)


def in_blocks(values: np.ndarray, groups: int, size: int = 16) -> np.ndarray:
    """Return filters interleaved, [groups, ceil(filters / size), weights, size], zero-padded.

    Args:
        values: [filters, weights].
        groups: number of groups.
        size: filters of a block.
    """
    count, of_group = values.shape[1], len(values) // groups
    blocks = -(-of_group // size)
    full = np.zeros((groups, blocks * size, count), np.float32)
    full[:, :of_group] = values.reshape(groups, -1, count)
    return full.reshape(groups, blocks, size, count).swapaxes(2, 3)


def panels(weight: np.ndarray) -> np.ndarray:
    """Return a matrix [outputs, inputs] as [ceil(outputs / PANEL), inputs, PANEL], zero-padded."""
    count = -(-weight.shape[0] // PANEL)
    full = np.zeros((count * PANEL, weight.shape[1]), np.float32)
    full[: len(weight)] = weight
    return full.reshape(count, PANEL, -1).swapaxes(1, 2)

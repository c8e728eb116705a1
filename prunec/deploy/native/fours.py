"""Weights of the integer kernels: signed bytes without zeros, four of a filter at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.deploy.native.packing import STRIDE, WIDEST

_MOST_FILLERS = 0.02
"""Fillers per weight up to which gaps are stored: one costs the time of a weight, a number in place
of a gap costs a byte."""


@dataclass(frozen=True)
class Fours:
    """Nonzero weights of a matrix, each row filled up with zeros to fours (prunec_bytes.h).

    Attributes:
        starts: number of fours before every ``STRIDE``-th row.
        counts: number of fours of every row.
        places: columns of the weights: gaps in one byte each, or numbers in two.
        values: the weights, fillers included.
    """

    starts: np.ndarray
    counts: np.ndarray
    places: np.ndarray
    values: np.ndarray

    @property
    def bytes(self) -> int:
        """Size of all arrays."""
        return sum(x.nbytes for x in (self.starts, self.counts, self.places, self.values))


def fours(values: np.ndarray) -> Fours:
    """Return the nonzero weights of a matrix in fours.

    Args:
        values: signed bytes, [rows, columns], at most ``MOST_COLUMNS`` columns.
    """
    rows, columns = np.nonzero(values)
    first = np.diff(rows, prepend=-1) != 0
    gaps = np.where(first, columns, np.diff(columns, prepend=0))
    fillers = np.maximum(gaps - 1, 0) // WIDEST
    far = fillers.sum() > _MOST_FILLERS * max(len(rows), 1)
    # A filler is a weight of value 0 where a gap is too wide for a byte.
    repeats = np.ones(len(rows), np.int64) if far else fillers + 1
    last = np.cumsum(repeats) - 1
    placed = np.full(int(repeats.sum()), WIDEST, np.uint16 if far else np.uint8)
    placed[last] = columns if far else gaps - WIDEST * fillers
    stored = np.zeros(len(placed), np.int8)
    stored[last] = values[rows, columns]
    return _filled_up(np.repeat(rows, repeats), placed, stored, len(values))


def _filled_up(rows: np.ndarray, placed: np.ndarray, stored: np.ndarray, count: int) -> Fours:
    """Return weights with every row filled up to fours, by zeros at the place of the last one."""
    own = np.bincount(rows, minlength=count)
    counts = -(-own // 4)
    before = np.cumsum(counts) - counts
    within = np.arange(len(rows)) - (np.cumsum(own) - own)[rows]
    at = 4 * before[rows] + within
    places = np.zeros(4 * int(counts.sum()), placed.dtype)
    values = np.zeros(len(places), np.int8)
    places[at], values[at] = placed, stored
    return Fours(before[::STRIDE].astype(np.uint32), counts.astype(np.uint16), places, values)

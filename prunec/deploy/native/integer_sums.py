"""Sums of products of bytes: where they start, and what they stand for."""

from __future__ import annotations

import numpy as np

from prunec.deploy.native.integers import IntegerBuilder, Stored
from prunec.deploy.native.packing import MOST_COLUMNS
from prunec.deploy.native.quantised import Kernel
from prunec.deploy.native.reading import Call

_SEVEN_BITS = 64
"""Largest weight of seven bits: two products with a byte fit 16 bits on every processor."""
_MOST_SUM = 1 << 30
"""Bound of sums, which have 32 bits."""


def integer_sums(
    builder: IntegerBuilder, call: Call, kernel: Kernel, read: Stored
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return where sums start, what a sum of 1 stands for, and the total weight of each filter.

    None if sums may leave 32 bits, or a filter has too many weights.
    """
    rows = kernel.values.reshape(len(kernel.values), -1).astype(np.int64)
    if np.abs(rows).max(initial=0) > _SEVEN_BITS:
        builder.definitions["PN_EIGHT_BITS"] = 1
    steps = np.broadcast_to(kernel.scales.astype(np.float64) * read.codes.scale, len(rows))
    starts = _bias(builder, call, steps) - read.codes.zero * rows.sum(1)
    # ARM's dot products take bytes less 128: half as much again suffices for any order.
    largest = np.abs(starts) + 2 * 255 * np.abs(rows).sum(1)
    if largest.max(initial=0) >= _MOST_SUM or rows.shape[1] > MOST_COLUMNS:
        return None
    return starts.astype(np.int32), steps, rows.sum(1).astype(np.int32)


def _bias(builder: IntegerBuilder, call: Call, steps: np.ndarray) -> np.ndarray:
    """Return the bias of each filter in steps of its sums."""
    values = builder.constant(call, 2)
    if values is None:
        return np.zeros(len(steps), np.int64)
    stored = builder.quantised.biases.get(call.operands[2])
    if stored is not None and np.allclose(stored * steps, values, rtol=1e-5, atol=0):
        return stored.astype(np.int64)
    # In other steps, or in float.
    made = np.clip(np.rint(values.astype(np.float64) / steps), -_MOST_SUM, _MOST_SUM)
    return np.asarray(made, np.int64)

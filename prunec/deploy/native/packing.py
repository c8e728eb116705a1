"""Weights as kernels read them: without their zeros, in fours of filters, in panels of outputs."""

from __future__ import annotations

import numpy as np

PANEL = 32
"""Outputs of a dense linear layer that are computed together."""


def compressed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is not zero: starts of the rows, numbers of the columns, values."""
    rows, columns = np.nonzero(values)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))])
    return starts.astype(np.uint32), columns.astype(np.uint16), values[rows, columns]


def in_fours(values: np.ndarray, groups: int) -> np.ndarray:
    """Return filters as [groups, blocks of four filters, weights of a filter, 4]."""
    count, of_group = values.shape[1], len(values) // groups
    blocks = -(-of_group // 4)
    full = np.zeros((groups, blocks * 4, count), np.float32)
    full[:, :of_group] = values.reshape(groups, -1, count)
    return full.reshape(groups, blocks, 4, count).swapaxes(2, 3)


def panels(weight: np.ndarray) -> np.ndarray:
    """Return [outputs, inputs] as [panels of outputs, inputs, PANEL]."""
    count = -(-weight.shape[0] // PANEL)
    full = np.zeros((count * PANEL, weight.shape[1]), np.float32)
    full[: len(weight)] = weight
    return full.reshape(count, PANEL, -1).swapaxes(1, 2)

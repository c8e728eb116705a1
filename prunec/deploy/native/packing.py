"""Weight layouts of the kernels: compressed rows, filters in fours, panels of outputs."""

from __future__ import annotations

import numpy as np

PANEL = 32
"""Outputs of a dense linear layer that its kernel computes together (prunec_vectors.h)."""


def compressed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a matrix in compressed sparse row form: row starts, column indices, values.

    Args:
        values: [rows, columns], at most 65536 columns: indices take two bytes.
    """
    rows, columns = np.nonzero(values)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))])
    return starts.astype(np.uint32), columns.astype(np.uint16), values[rows, columns]


def in_fours(values: np.ndarray, groups: int) -> np.ndarray:
    """Return filters interleaved by four, [groups, ceil(filters / 4), weights, 4].

    Args:
        values: [filters, weights]; missing filters of a last block are zeros.
        groups: number of groups.
    """
    count, of_group = values.shape[1], len(values) // groups
    blocks = -(-of_group // 4)
    full = np.zeros((groups, blocks * 4, count), np.float32)
    full[:, :of_group] = values.reshape(groups, -1, count)
    return full.reshape(groups, blocks, 4, count).swapaxes(2, 3)


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

"""Scales of filters of eight bits: no filter becomes zero, and no bias overflows or is rounded."""

from __future__ import annotations

import numpy as np

LARGEST = 127  # largest integer of a weight
SMALLEST = 2.0**-100  # smallest scale: products of two are normal float32 or zero
_BITS = 28  # of a bias: room is left in 32 bits for the products that are added to it


def filter_scales(kernel: np.ndarray, bias: np.ndarray | None, step: float) -> np.ndarray:
    """Return one scale per filter, in float64.

    A bias is stored in steps of input scale · filter scale. So a filter of zeros has the scale at
    which its bias takes 28 bits, and a filter that is too small for its bias a larger one.

    Args:
        kernel: weights, [filters, …].
        bias: one number per filter.
        step: scale of the layer's input.
    """
    largest = np.abs(kernel.reshape(len(kernel), -1).astype(np.float64)).max(1)
    usual = largest / LARGEST
    wanted = np.zeros_like(usual)
    if bias is not None:
        wanted = np.abs(bias.astype(np.float64)) / (step * 2.0**_BITS)
    # Any scale represents zeros; that of another filter is far from any limit.
    spare = usual.max(initial=0.0) or 1.0
    scales = np.where(largest > 0, np.maximum(usual, wanted), np.where(wanted > 0, wanted, spare))
    return np.maximum(scales, SMALLEST)

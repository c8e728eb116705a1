"""Detection of outputs that prove little about a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunec.wording import percent


def unprovable(batches: Sequence[Sequence[np.ndarray]]) -> list[str]:
    """Return one sentence per output that no random input changes, or that is not finite."""
    texts = [_remark(list(outputs)) for outputs in zip(*batches, strict=True)]
    return [f"output {number} {text}" for number, text in enumerate(texts) if text]


def _remark(outputs: list[np.ndarray]) -> str:
    values = [each for each in outputs if each.size]
    if not values:
        return "is empty"
    first = values[0][:1] if values[0].ndim else values[0]
    if all(_repeats(first, each) for each in values):
        what = "the same" if np.any(first) else "0"
        return f"is {what} for every random input, which proves nothing"
    floating = [each for each in values if each.dtype.kind == "f"]
    infinite = sum(int((~np.isfinite(each)).sum()) for each in floating)
    if infinite:
        share = percent(infinite / sum(each.size for each in floating))
        return f"is not finite in {share} of its values, in torch"
    return ""


def _repeats(first: np.ndarray, each: np.ndarray) -> bool:
    """Return whether every sample equals the first one."""
    if first.shape[1:] != each.shape[1:] or first.ndim != each.ndim:
        return False
    repeated = np.broadcast_to(first, each.shape) if len(first.shape) else first
    return np.array_equal(each, repeated, equal_nan=each.dtype.kind == "f")

"""Schedules of sparsity and update fractions, as functions of progress."""

from __future__ import annotations

import math


def cubic(p: float, start: float = 0.0, end: float = 1.0) -> float:
    """s(p) = end + (start − end)·(1 − p)³, p clamped to [0, 1] (Zhu & Gupta 2017)."""
    p = min(max(p, 0.0), 1.0)
    return end + (start - end) * (1 - p) ** 3


def cosine(p: float, start: float, end: float = 0.0) -> float:
    """f(p) = end + (start − end)·½(1 + cos πp), p clamped to [0, 1]."""
    p = min(max(p, 0.0), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * p)) / 2


def phase(progress: float, begin: float, end: float) -> float:
    """Return the progress between ``begin`` (0) and ``end`` (1), clamped."""
    # 1e-12: a phase without length is over as soon as it is passed.
    return min(max((progress - begin) / max(end - begin, 1e-12), 0.0), 1.0)

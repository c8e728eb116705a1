"""Ticks of non-linear axes: round numbers, far enough apart to be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from prunec.charts.scales import short

WIDE, HIGH = 0.12, 0.07  # least distance of two ticks, as a share of a horizontal, vertical axis
ENOUGH = 5  # ticks per axis; rounder numbers are taken first
SPARSITIES = (
    (0.0, 0.9, 0.99, 0.999, 0.9999, 0.99999),
    (0.95, 0.995, 0.9995, 0.99995),
    (0.98, 0.998, 0.9998, 0.5, 0.8),
    (0.2, 0.6, 0.7, 0.85, 0.96, 0.97),
)  # the roundest first

Mark = tuple[float, str]


def sparsity_ticks(low: float, high: float) -> list[Mark]:
    """Return (position, label) of ticks between two values of −log₁₀ of the density."""
    rows = ([(-math.log10(1 - s), f"{100 * s:.10g}") for s in row] for row in SPARSITIES)
    return _chosen(rows, low, high, WIDE)


def cost_ticks(low: float, high: float, text: Callable[[float], str] = short) -> list[Mark]:
    """Return ticks between two values of −log₁₀ of a cost; ``text`` formats a cost."""
    powers = range(math.floor(-high), math.ceil(-low) + 1)
    rows = (
        [(-math.log10(factor) - power, text(factor * 10.0**power)) for power in powers]
        # 1 and 3 halve a decade of a logarithmic axis, 2 and 5 come next.
        for factor in (1, 3, 2, 5, 1.5, 4, 7)
    )
    return _chosen(rows, low, high, WIDE)


def accuracy_ticks(low: float, high: float, place: Callable[[float], float]) -> list[Mark]:
    """Return ticks between two accuracies in percent; ``place`` maps them to the axis."""
    rows = (
        [
            (round(index * step, 2), f"{index * step:.4g}")
            for index in range(math.ceil(low / step), math.floor(high / step) + 1)
        ]
        for step in (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    )
    return _chosen(rows, low, high, HIGH, place)


def _chosen(
    rows: Iterable[Sequence[Mark]],
    low: float,
    high: float,
    gap: float,
    place: Callable[[float], float] = float,
) -> list[Mark]:
    """Choose ticks between low and high, row by row until there are enough, none too close."""
    closest = gap * (place(high) - place(low))
    chosen: list[Mark] = []
    for row in rows:
        for value, text in row:
            near = any(abs(place(value) - place(other)) < closest for other, _ in chosen)
            if low <= value <= high and not near:
                chosen.append((value, text))
        if len(chosen) >= ENOUGH:
            break
    return sorted(chosen)

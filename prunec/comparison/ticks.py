"""Marks of the axes that are not linear: round numbers, no two closer than can be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from prunec.page.scales import short

WIDE, HIGH = 0.12, 0.07  # of an axis, between two marks beside or above each other
DECADES = 1.3  # on an axis that needs no other marks than 1 and 3 times a power of ten
SPARSITIES = (
    (0.0, 0.9, 0.99, 0.999, 0.9999, 0.99999),
    (0.95, 0.995, 0.9995, 0.99995),
    (0.98, 0.998, 0.9998, 0.5, 0.8),
    (0.2, 0.6, 0.7, 0.85, 0.96, 0.97),
)  # the roundest first

Mark = tuple[float, str]


def sparsity_ticks(low: float, high: float) -> list[Mark]:
    """Return marks between two values of −log₁₀ of the density."""
    marks = ((-math.log10(1 - s), f"{100 * s:.10g}") for row in SPARSITIES for s in row)
    return _chosen(marks, low, high, WIDE)


def mac_ticks(low: float, high: float) -> list[Mark]:
    """Return marks between two values of −log₁₀ of the MACs."""
    powers = range(math.floor(-high), math.ceil(-low) + 1)
    factors = (1, 3) if high - low > DECADES else (1, 3, 2, 5, 1.5, 4, 7)
    marks = (
        (-math.log10(factor) - power, short(factor * 10.0**power))
        for factor in factors
        for power in powers
    )
    return _chosen(marks, low, high, WIDE)


def accuracy_ticks(low: float, high: float, place: Callable[[float], float]) -> list[Mark]:
    """Return marks between two accuracies in percent; ``place`` is where they lie on the axis."""
    return _chosen(_accuracies(low, high), low, high, HIGH, place)


def _accuracies(low: float, high: float) -> Iterator[Mark]:
    """Tens, then fives, ones, halves, tenths."""
    for step in (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01):
        if (high - low) / step > 400:
            return
        for index in range(math.ceil(low / step), math.floor(high / step) + 1):
            value = round(index * step, 2)
            yield value, f"{value:g}"


def _chosen(
    marks: Iterable[Mark],
    low: float,
    high: float,
    gap: float,
    place: Callable[[float], float] = float,
) -> list[Mark]:
    """Those between low and high that are not too close to one chosen before."""
    closest = gap * (place(high) - place(low))
    chosen: list[Mark] = []
    for value, text in marks:
        near = any(abs(place(value) - place(other)) < closest for other, _ in chosen)
        if low <= value <= high and not near:
            chosen.append((value, text))
    return sorted(chosen)

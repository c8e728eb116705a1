"""Formatting of numbers, and ticks of axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

LARGEST = 1e30
"""Largest value that a chart shows: beyond it, coordinates in SVG lose their meaning."""

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """A linear map of the numbers from ``low`` to ``high`` onto 0 … 1."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Return the position of a value, clipped to 0 … 1."""
        span = self.high - self.low
        return min(max((value - self.low) / span, 0.0), 1.0) if span > 0 else 0.0


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return evenly spaced round numbers from at most ``low`` to at least ``high``.

    Steps are 1, 2 or 5 times a power of ten; at most ``most`` steps where that is possible.
    """
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size < 1 / LARGEST:  # a single value, up to rounding
        pad = 0.1 * size if size >= 1 / LARGEST else 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    # 1e-9: rounding must not turn a step of 2 into one of 5.
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def whole_ticks(low: int, high: int, most: int = 6) -> list[int]:
    """Return evenly spaced whole numbers from ``low`` to ``high``, with both ends."""
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    step = next(step for step in steps if high - low <= most * step)
    inner = range(-(-low // step) * step, high, step)
    # Half a step from both ends: labels would overlap.
    return sorted({low, high, *(i for i in inner if min(i - low, high - i) >= step / 2)})


def short(value: float, digits: int = 3) -> str:
    """Return a number in ``digits`` significant digits, large ones with a prefix: 1.65 M, 361 k."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits}g}")
    for size, prefix in PREFIXES:
        # From 10 k: up to 9,999 the exact number is as short.
        if abs(rounded) >= size and (size > 1e3 or abs(rounded) >= 1e4):
            return f"{rounded / size:.{digits}g} {prefix}"
    if abs(rounded) >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(rounded) < 1e-4 else f"{rounded:.{digits + 4}g}"


def digits_apart(values: Iterable[float], least: int = 3) -> int:
    """Return the significant digits that make these numbers distinct, at least ``least``."""
    known = set(values)
    # 17 digits tell any two float64 numbers apart.
    enough = (d for d in range(least, 17) if len({short(v, d) for v in known}) == len(known))
    return next(enough, 17)


def with_equal_decimals(values: Iterable[float]) -> Callable[[float], str]:
    """Return a formatter with the same decimals for all: three digits of the largest number."""
    largest = max(map(abs, values), default=0.0)
    decimals = 2 - math.floor(math.log10(largest)) if largest else 0
    decimals = min(max(decimals, 0), 12)
    return lambda value: f"{value:,.{decimals}f}"


def exact(value: int) -> str:
    """Return a whole number with thousands separators: 1,234,567."""
    return f"{value:,}"


def size(count: int) -> str:
    """Return a number of bytes in decimal units: 1.65 MB, 9,876 B."""
    return f"{short(count)}B" if count >= 1e4 else f"{count:,} B"

"""Measures two ways to do something against each other, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS = 6.0
_BLOCK = 0.010
_LARGEST_BLOCK = 50


@dataclass(frozen=True)
class Latency:
    """Time of one batch.

    Attributes:
        shipped_ms: of the shipped file, in milliseconds.
        dense_ms: of the dense file.
        ratio: the first by the second, rounds compared one with one; below 1 is faster.
    """

    shipped_ms: float
    dense_ms: float
    ratio: float


def interleaved(
    shipped: Callable[[], object], dense: Callable[[], object], *, rounds: int = 31
) -> Latency:
    """Measure two calls in turns.

    A round makes each call in a block of some ten milliseconds and keeps the block's fastest; the
    one that goes first changes every round. Results are medians over rounds, so neither a single
    interruption nor a slow drift of the machine counts. Takes six seconds at most, plus one round.

    Args:
        shipped: runs the shipped file once.
        dense: runs the dense file once.
        rounds: how many pairs of blocks, at most.
    """
    ours, theirs = _Timed(shipped), _Timed(dense)
    deadline = time.perf_counter() + _SECONDS
    pairs: list[tuple[float, float]] = []
    for index in range(rounds):
        if index % 2:
            second = theirs.fastest()
            pairs.append((ours.fastest(), second))
        else:
            pairs.append((ours.fastest(), theirs.fastest()))
        if time.perf_counter() > deadline:
            break
    return Latency(
        shipped_ms=1e3 * statistics.median(a for a, _ in pairs),
        dense_ms=1e3 * statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
    )


class _Timed:
    """A call, and how many of it make a block."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        for _ in range(3):
            once = self._seconds()
        self._runs = max(1, min(_LARGEST_BLOCK, round(_BLOCK / once)))

    def fastest(self) -> float:
        """Return the seconds of the fastest run of a block."""
        return min(self._seconds() for _ in range(self._runs))

    def _seconds(self) -> float:
        start = time.perf_counter()
        self._call()
        return time.perf_counter() - start

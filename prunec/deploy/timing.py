"""Measures two ways to do something against each other, in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

_SECONDS = 6.0
_LONGEST = 20.0  # seconds, while it is not certain
_FEWEST = 9  # rounds: fewer enclose no median at the confidence of a look
_BLOCK = 0.010
_LARGEST_BLOCK = 50

CONFIDENCE = 0.99
"""That the true median of the ratio lies in every interval that is looked at."""

MARGIN = 0.02
"""By which share a ratio may exceed its budget: noise of a machine that repeats itself."""


@dataclass(frozen=True)
class Latency:
    """Time of one batch.

    Attributes:
        shipped_ms: of the shipped file, in milliseconds.
        dense_ms: of the dense file.
        ratio: the median over rounds of the first by the second; below 1 is faster.
        least: the least that the ratio may be, at ``CONFIDENCE``; 0 where it is not known.
        most: the most.
        rounds: milliseconds of the shipped and of the dense file, a pair each round.
    """

    shipped_ms: float
    dense_ms: float
    ratio: float
    least: float = 0.0
    most: float = math.inf
    rounds: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)

    @property
    def apart(self) -> bool:
        """Whether one is faster by more than ``MARGIN``, at ``CONFIDENCE``.

        Two sessions of one file differ by up to that, each time in the same direction, for they lie
        elsewhere in memory. Taken for granted where no interval is known.
        """
        known = self.least > 0 or self.most < math.inf
        return not known or _is_apart(self.least, self.most)

    @property
    def told(self) -> float:
        """The ratio; 1 where the two cannot be told apart."""
        return self.ratio if self.apart else 1.0

    def certainly_above(self, limit: float) -> bool:
        """Whether the ratio is above a limit and its margin, at ``CONFIDENCE``."""
        return (self.least or self.ratio) > limit * (1 + MARGIN)


Timer = Callable[[int], Sequence[float]]
"""Makes so many runs in a row, where they are made, and returns the seconds of each."""


def interleaved(
    shipped: Callable[[], object], dense: Callable[[], object], *, rounds: int = 31
) -> Latency:
    """Measure two calls in turns: see :func:`in_turns`."""
    return in_turns(timer(shipped), timer(dense), rounds=rounds)


def timer(call: Callable[[], object]) -> Timer:
    """Return what times a call in this process."""
    return lambda runs: [_seconds(call) for _ in range(runs)]


def in_turns(shipped: Timer, dense: Timer, *, rounds: int = 31) -> Latency:
    """Measure two things in turns.

    A round makes each call in a block of some ten milliseconds and keeps the block's fastest; the
    one that goes first changes every round. Results are medians over rounds, so neither a single
    interruption nor a slow drift of the machine counts. Rounds go on until the interval of the
    ratio's median is narrower than ``MARGIN`` or lies beyond it on one side of 1: twenty seconds at
    most, plus one round; six where it is certain or ``rounds`` are done; nine rounds at least.

    Whoever looks after every round and stops at a difference finds one between a file and itself.
    So it is looked at after ``rounds`` rounds and every doubling of them, once after six and once
    after twenty seconds, and all looks together share the chance of an error.

    Args:
        shipped: runs the shipped file.
        dense: runs the dense file.
        rounds: how many pairs of blocks, unless it takes more to be certain.
    """
    ours, theirs = Block(shipped), Block(dense)
    start = time.perf_counter()
    pairs: list[tuple[float, float]] = []
    due, spare = rounds, (1 - CONFIDENCE) / 2
    early = 0
    for index in count():
        if index % 2:
            second = theirs.fastest()
            pairs.append((ours.fastest(), second))
        else:
            pairs.append((ours.fastest(), theirs.fastest()))
        passed = time.perf_counter() - start
        ends = passed > max(_SECONDS, min(_LONGEST, 4 * _SECONDS)) and len(pairs) >= _FEWEST
        soon = not early and passed > _SECONDS and len(pairs) >= _FEWEST
        if not (ends or soon or len(pairs) >= due):
            continue
        if ends or soon:
            error, early = (1 - CONFIDENCE) / 4, 1
        else:
            spare /= 2
            error, due = spare, 2 * due
        least, most = median_interval([a / b for a, b in pairs], error)
        if ends or most - least <= MARGIN or _is_apart(least, most):
            break
    return Latency(
        shipped_ms=1e3 * statistics.median(a for a, _ in pairs),
        dense_ms=1e3 * statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        least=least,
        most=most,
        rounds=tuple((1e3 * a, 1e3 * b) for a, b in pairs),
    )


def _is_apart(least: float, most: float) -> bool:
    return least > 1 + MARGIN or most < 1 - MARGIN


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return what a quarter of the values, and three quarters, lie below."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def median_interval(values: list[float], error: float = 1 - CONFIDENCE) -> tuple[float, float]:
    """Return bounds of the median of what was sampled, but for an ``error``, whatever its law.

    As many values lie below the median as coins show heads: the k-th least and the k-th largest
    value enclose it but for a chance of twice P(fewer than k heads). Nothing encloses it where the
    values are too few: 0 and infinity.
    """
    ordered, n = sorted(values), len(values)
    k, chance = 0, 0.0
    while k < n:
        chance += math.comb(n, k) / 2**n
        if 2 * chance > error:
            break
        k += 1
    return (ordered[k - 1], ordered[-k]) if k else (0.0, math.inf)


class Block:
    """What is timed, and how many runs of it make a block."""

    def __init__(self, timer: Timer, seconds: float = _BLOCK, least: int = 1) -> None:
        """Warm it up.

        Args:
            timer: of what is timed.
            seconds: of a block, about.
            least: how many runs it has at least.
        """
        self._timer = timer
        self._runs = max(least, min(_LARGEST_BLOCK, round(seconds / timer(3)[-1])))

    def fastest(self) -> float:
        """Return the seconds of the fastest run of a block."""
        return min(self._timer(self._runs))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

"""Comparison of the times of two functions, measured in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

_SECONDS = 6.0  # after which a clear result ends the measurement
_LONGEST = 20.0  # seconds, for an unclear result
_FEWEST = 9  # rounds; fewer give no interval of the median at the confidence of one look
_BLOCK = 0.010  # seconds, about
_LARGEST_BLOCK = 50  # runs

FIRST = 12
"""Rounds before the first look where a ratio is only judged: few more than give an interval."""

CONFIDENCE = 0.99
"""Probability that the true median of the ratio lies in every interval that is looked at."""

MARGIN = 0.02
"""Allowed excess of a ratio over its budget: two sessions of one file differ by so much."""


@dataclass(frozen=True)
class Latency:
    """Time of one batch, for the shipped and the dense file.

    Attributes:
        shipped_ms: median time of the shipped file, in milliseconds.
        dense_ms: median time of the dense file, in milliseconds.
        ratio: median over rounds of shipped / dense; below 1 is faster.
        least: lower bound of the ratio at ``CONFIDENCE``; 0 if unknown.
        most: upper bound of the ratio.
        rounds: (shipped, dense) milliseconds, one pair per round.
    """

    shipped_ms: float
    dense_ms: float
    ratio: float
    least: float = 0.0
    most: float = math.inf
    rounds: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)

    @property
    def apart(self) -> bool:
        """Whether one file is faster by more than ``MARGIN``, at ``CONFIDENCE``.

        Two sessions of one file differ by up to the margin, each time in the same direction,
        because they are placed differently in memory. True if no interval is known.
        """
        known = self.least > 0 or self.most < math.inf
        return not known or _is_apart(self.least, self.most)

    @property
    def reported(self) -> float:
        """Reported ratio: 1 if the two cannot be distinguished."""
        return self.ratio if self.apart else 1.0

    def certainly_above(self, limit: float) -> bool:
        """Return whether the ratio exceeds a limit plus its margin, at ``CONFIDENCE``."""
        return (self.least or self.ratio) > limit * (1 + MARGIN)


Timer = Callable[[int], Sequence[float]]
"""Number of runs → seconds of each, measured on the device that runs them."""


def interleaved(
    shipped: Callable[[], object], dense: Callable[[], object], *, rounds: int = 31
) -> Latency:
    """Measure two functions in turns: see :func:`in_turns`."""
    return in_turns(timer(shipped), timer(dense), rounds=rounds)


def timer(call: Callable[[], object]) -> Timer:
    """Return a timer of a function in this process."""
    return lambda runs: [_seconds(call) for _ in range(runs)]


def in_turns(shipped: Timer, dense: Timer, *, rounds: int = 31) -> Latency:
    """Measure two timers in turns.

    A round runs each in a block of about ten milliseconds and keeps the block's fastest run; the
    order alternates. Results are medians over rounds, so neither single interruptions nor a slow
    drift of the machine matter. Rounds continue until the interval of the ratio's median is
    narrower than ``MARGIN`` or entirely on one side of 1 by more than it: at most twenty seconds
    plus one round; six seconds if the result is clear or ``rounds`` are done; at least nine rounds.

    Looking after every round and stopping at the first difference would find one between a file and
    itself. So the interval is looked at after ``rounds`` rounds and every doubling of them, once
    after six and once after twenty seconds, and all looks share the probability of an error.

    Args:
        shipped: timer of the shipped file.
        dense: timer of the dense file.
        rounds: number of pairs of blocks before the first look.
    """
    ours, theirs = Block(shipped), Block(dense)
    start = time.perf_counter()
    pairs: list[tuple[float, float]] = []
    # Of the probability of an error, looks at doublings take ¼, ⅛, … and those by time ¼ each.
    due, spare = rounds, (1 - CONFIDENCE) / 2
    early = 0
    for index in count():
        # Alternating, so that a drift within a round favours neither.
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
    """Return the lower and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def median_interval(values: list[float], error: float = 1 - CONFIDENCE) -> tuple[float, float]:
    """Return a distribution-free interval of the median, wrong with probability ``error``.

    The number of values below the median is binomial with p = ½: the k-th smallest and the k-th
    largest value enclose it except with probability 2·P(fewer than k heads). For too few values the
    interval is (0, infinity).
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
    """A timer, and the number of runs of one block."""

    def __init__(self, timer: Timer, seconds: float = _BLOCK, least: int = 1) -> None:
        """Warm up, and choose the number of runs.

        Args:
            timer: timer.
            seconds: approximate duration of a block.
            least: smallest number of runs.
        """
        self._timer = timer
        # Three runs warm caches and threads up; the last one is representative.
        self._runs = max(least, min(_LARGEST_BLOCK, round(seconds / timer(3)[-1])))

    def fastest(self) -> float:
        """Return the fastest run of a block, in seconds."""
        return min(self._timer(self._runs))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

"""Pareto front: the points that no other point dominates."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that are not dominated, cheapest first.

    A point (cost, gain) is dominated if another costs at most as much, gains at least as much, and
    is better in one of the two. Equal points are all kept.
    """
    # By cost, the best accuracy first: then one scan finds the front.
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        best = points[front[-1]] if front else None
        if best is None or points[i][1] > best[1] or points[i] == best:
            front.append(i)
    return front

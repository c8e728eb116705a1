"""Workspace planning: buffers with disjoint lifetimes may share memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunec.deploy.native.builder import Step
from prunec.deploy.native.layout import rounded


@dataclass(frozen=True)
class Memory:
    """A plan of the workspace, in floats.

    Attributes:
        places: buffer → its offset.
        peak: size of the workspace.
        total: sum of all buffer sizes.
    """

    places: Mapping[str, int]
    peak: int
    total: int


def plan(steps: Sequence[Step], sizes: Mapping[str, int]) -> Memory:
    """Return an offset for every buffer: greedy by size, largest first, each as low as possible.

    Args:
        steps: the calls in order.
        sizes: buffer → floats.
    """
    lives = _lives(steps)
    placed: list[tuple[int, int, tuple[int, int]]] = []
    places: dict[str, int] = {}
    for name in sorted(lives, key=lambda name: (-sizes[name], lives[name])):
        size, (first, last) = rounded(sizes[name]), lives[name]
        # Buffers that live at the same time: the lowest gap between them that suffices is taken.
        beside = sorted(
            (at, end) for at, end, (born, dead) in placed if born <= last and first <= dead
        )
        place = 0
        for at, end in beside:
            if place + size <= at:
                break
            place = max(place, end)
        places[name] = place
        placed.append((place, place + size, (first, last)))
    peak = max((end for _, end, _ in placed), default=0)
    return Memory(places, peak, sum(rounded(sizes[name]) for name in lives))


def _lives(steps: Sequence[Step]) -> dict[str, tuple[int, int]]:
    """Return buffer → indices of the first and the last step that touches it."""
    lives: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for name in (*step.reads, step.writes):
            if name:
                lives[name] = (lives.get(name, (number, 0))[0], number)
    return lives

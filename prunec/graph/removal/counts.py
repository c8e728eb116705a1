"""How many channels each group keeps: rounded up to a multiple, or to what takes the least time.

A group that needs n channels may keep more: zeros that were dead stay, which changes no output. Of
the multiples of 4 from n to the next multiple of 16, and the whole group, that is taken with which
all layers that read or make the group take the least time; the fewest channels of those within 1 %
of it. A group that needs more never gets less, the others held: the windows are nested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from prunec.graph.channels.counted import CountedLayer, LayerShape, Times, counted_layers
from prunec.graph.channels.structure import Structure

Counts = Callable[[Structure, Sequence[Tensor], Sequence[int]], Sequence[int]]
"""Takes the classes of each group and how many of them are needed; returns how many shall stay."""
Rounding = int | Counts

STEP, BLOCK = 4, 16
MARGIN = 0.01
FIXED = (4, 8, 16)
_SWEEPS = 2


def in_multiples(multiple: int) -> Counts:
    """Return what rounds counts up to a multiple."""
    return lambda _, groups, needed: [
        min(-(-n // multiple) * multiple, len(group))
        for group, n in zip(groups, needed, strict=True)
    ]


def candidates(needed: int, size: int) -> list[int]:
    """Return the counts that are tried for a group of ``size`` that needs some, ascending."""
    if not needed:
        return [0]
    last = min(-(-needed // BLOCK) * BLOCK, size)
    found = list(range(-(-needed // STEP) * STEP, last + 1, STEP))
    return found if found and found[-1] == last else [*found, last]


def fewest(counts: Sequence[int], times: Sequence[float]) -> int:
    """Return the fewest channels whose time is within the margin of the least."""
    limit = min(times) * (1 + MARGIN)
    return next(count for count, time in zip(counts, times, strict=True) if time <= limit)


class Measured:
    """Counts that take the least time, by what layers take."""

    def __init__(self, times: Times) -> None:
        self._times = times

    def __call__(
        self, structure: Structure, groups: Sequence[Tensor], needed: Sequence[int]
    ) -> list[int]:
        """Begin with the best of the fixed multiples, then better each group, the others held."""
        layers = counted_layers(structure, groups)
        starts = [list(in_multiples(m)(structure, groups, needed)) for m in FIXED]
        counts = min(starts, key=lambda tried: self.whole(layers, tried))
        sizes = [len(group) for group in groups]
        for _ in range(_SWEEPS):
            before = list(counts)
            for group, size in enumerate(sizes):
                counts[group] = self._best(layers, counts, group, candidates(needed[group], size))
            if counts == before:
                break
        return counts

    def whole(self, layers: Sequence[CountedLayer], counts: Sequence[int]) -> float:
        """Return what all layers take together, in milliseconds."""
        return sum(self._times(_present(layers, counts)))

    def _best(
        self, layers: Sequence[CountedLayer], counts: Sequence[int], group: int, tried: list[int]
    ) -> int:
        near = [layer for layer in layers if group in layer.inner or group in layer.outer]
        if len(tried) == 1 or not near:
            return tried[0]
        states = [[*counts[:group], count, *counts[group + 1 :]] for count in tried]
        shapes = [_present(near, state) for state in states]
        found = iter(self._times([shape for one in shapes for shape in one]))
        return fewest(tried, [sum(next(found) for _ in one) for one in shapes])


def _present(layers: Sequence[CountedLayer], counts: Sequence[int]) -> list[LayerShape]:
    shapes = (layer.at(counts) for layer in layers)
    return [shape for shape in shapes if shape is not None]

"""Numbers of kept channels per group: multiples, or the counts that take the least time.

A group that needs n channels may keep more: dead channels stay as zeros, which changes no output.
Candidates are the multiples of 4 from n to the next multiple of 16, and the whole group. The count
is taken with which all layers that read or make the group take the least time: the fewest channels
within 1 % of it. With the other groups fixed, a group that needs more never gets less: its
candidates are a subset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from prunec.graph.channels.counted import CountedLayer, LayerShape, Times, counted_layers
from prunec.graph.channels.structure import Structure

Counts = Callable[[Structure, Sequence[Tensor], Sequence[int]], Sequence[int]]
"""(structure, classes per group, needed counts) → kept counts."""
Rounding = int | Counts

# Vector kernels compute channels in blocks: a depthwise layer of 97 channels can take four times as
# long as one of 100 (docs/runners.md).
STEP, BLOCK = 4, 16
MARGIN = 0.01  # relative: for less than 1 % of the time no more channels are kept
FIXED = (4, 8, 16)  # multiples of whole networks from which the search starts
_SWEEPS = 2  # over all groups; the search ends earlier where a sweep changes nothing


def in_multiples(multiple: int) -> Counts:
    """Return a rule that rounds counts up to a multiple."""
    return lambda _, groups, needed: [
        min(-(-n // multiple) * multiple, len(group))
        for group, n in zip(groups, needed, strict=True)
    ]


def candidates(needed: int, size: int) -> list[int]:
    """Return the counts to try for a group of ``size`` channels, ascending."""
    if not needed:
        return [0]
    last = min(-(-needed // BLOCK) * BLOCK, size)
    multiples = list(range(-(-needed // STEP) * STEP, last + 1, STEP))
    return multiples if multiples and multiples[-1] == last else [*multiples, last]


def fewest(counts: Sequence[int], times: Sequence[float]) -> int:
    """Return the fewest channels whose time is within the margin of the least time."""
    limit = min(times) * (1 + MARGIN)
    return next(count for count, time in zip(counts, times, strict=True) if time <= limit)


class Measured:
    """Counts that take the least time, by measured times of layers."""

    def __init__(self, times: Times) -> None:
        self._times = times

    def __call__(
        self, structure: Structure, groups: Sequence[Tensor], needed: Sequence[int]
    ) -> list[int]:
        """Start from the best fixed multiple, then improve one group at a time."""
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
        """Return the summed time of all layers, in milliseconds."""
        return sum(self._times(_present(layers, counts)))

    def _best(
        self, layers: Sequence[CountedLayer], counts: Sequence[int], group: int, tried: list[int]
    ) -> int:
        near = [layer for layer in layers if group in layer.inner or group in layer.outer]
        if len(tried) == 1 or not near:
            return tried[0]
        states = [[*counts[:group], count, *counts[group + 1 :]] for count in tried]
        shapes = [_present(near, state) for state in states]
        times = iter(self._times([shape for one in shapes for shape in one]))
        return fewest(tried, [sum(next(times) for _ in one) for one in shapes])


def _present(layers: Sequence[CountedLayer], counts: Sequence[int]) -> list[LayerShape]:
    shapes = (layer.at(counts) for layer in layers)
    return [shape for shape in shapes if shape is not None]

"""Latency as a function of the kept number of channels per group, from measured times of layers.

F(n) = Σ_l T_l(n_in, n_out), where T_l is bilinear between measured counts: quarters of the layer's
width on either side, 0 without channels, and made monotonic. It replaces GDP's MACs, which is
prunec's extension, not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from prunec.graph.channels.counted import CountedLayer, LayerShape, Times, counted_layers
from prunec.graph.channels.structure import Structure
from prunec.sparsity.gated_macs import Gated

KNOTS = 4
"""Measured counts per side, besides 0."""
LEAST = 1e-3  # smallest time of a gate, as a share of the average gate's
_BLOCK = 16  # channels: knots of wide layers lie at whole blocks


@dataclass(frozen=True)
class GatedTimes:
    """Times of layers, interpolated between measured counts, in milliseconds.

    B groups of gates, L layers, K knots on either side.

    Attributes:
        sizes: number of gates in each group, shape (B,).
        inner, outer: channels on either side per gate of a group, shape (L, B).
        fixed: channels without gates on either side, shape (2, L).
        knots: measured channel counts on either side, ascending from 0, shape (2, L, K).
        times: times of a layer at its knots, shape (L, K, K).
    """

    sizes: Tensor
    inner: Tensor
    outer: Tensor
    fixed: Tensor
    knots: Tensor
    times: Tensor

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def milliseconds(self, counts: Tensor) -> Tensor:
        """Return the time of one sample for kept ``counts`` gates per group, (B,) or (…, B)."""
        inner = _hats(self.fixed[0] + counts @ self.inner.T, self.knots[0])
        outer = _hats(self.fixed[1] + counts @ self.outer.T, self.knots[1])
        return torch.einsum("...li,...lj,lij->...", inner, outer, self.times)

    def marginal(self, counts: Tensor) -> Tensor:
        """Return the time of the last gate of each group, F(n) − F(n−1), shape (B,).

        At least a thousandth of an average gate's time, so that gates may also close where times
        are flat.
        """
        least = LEAST * self.milliseconds(self.sizes) / self.sizes.sum()
        fewer = (counts - torch.eye(len(counts), dtype=counts.dtype, device=counts.device)).clamp(0)
        return torch.maximum(self.milliseconds(counts) - self.milliseconds(fewer), least)


def gated_times(structure: Structure, gated: Gated, times: Times) -> GatedTimes:
    """Return the times of a network's layers as a function of the counts of its gates.

    Args:
        structure: structure of the captured network.
        gated: gates of the network.
        times: function that returns the times of layers.
    """
    groups = [
        torch.nonzero((gated.gate_of >= 0) & (_group_of(gated) == number)).flatten()
        for number in range(len(gated.sizes))
    ]
    layers = counted_layers(structure, groups)
    knots = [
        [_knots(x.whole.inner, bool(x.inner)), _knots(x.whole.outer, bool(x.outer))] for x in layers
    ]
    grids = list(_grids(layers, knots, times))
    widths = gated.widths.tolist()
    sides = [
        torch.tensor(
            [[s.get(g, 0.0) * w for g, w in enumerate(widths)] for s in side], dtype=torch.float64
        ).reshape(-1, len(widths))
        for side in ([x.inner for x in layers], [x.outer for x in layers])
    ]
    return GatedTimes(
        gated.sizes.double(),
        sides[0],
        sides[1],
        torch.tensor([x.fixed for x in layers], dtype=torch.float64).T.reshape(2, -1),
        torch.tensor(knots, dtype=torch.float64).transpose(0, 1),
        torch.stack(grids),
    )


def _group_of(gated: Gated) -> Tensor:
    """Return the group of each class of channels; for classes without a gate, the last one."""
    return torch.where(gated.gate_of >= 0, gated.group_of[gated.gate_of], -1)


def _knots(width: int, varies: bool) -> list[int]:
    """Return 0 and quarters of a width, in whole blocks if it is wide enough; ascending."""
    if not varies:
        return [0, *[width] * KNOTS]
    # Two blocks lie between knots at least, so that rounding keeps them apart.
    block = _BLOCK if width >= 2 * KNOTS * _BLOCK else 4 if width >= 8 * KNOTS else 1
    quarters = [max(block, round(width * k / KNOTS / block) * block) for k in range(1, KNOTS)]
    return [0, *(min(count, width) for count in quarters), width]


def _grids(
    layers: list[CountedLayer], knots: list[list[list[int]]], times: Times
) -> Iterator[Tensor]:
    """Yield the times of each layer at its knots, (K, K), monotonic along both sides."""
    for layer, (inner, outer) in zip(layers, knots, strict=True):
        depthwise = layer.whole.groups == layer.whole.inner > 1
        pairs = [(i, o) for i in inner[1:] for o in outer[1:]]
        shapes = [_resized(layer.whole, i, o, depthwise) for i, o in pairs]
        grid = torch.zeros(KNOTS + 1, KNOTS + 1, dtype=torch.float64)
        grid[1:, 1:] = torch.tensor(times(shapes), dtype=torch.float64).reshape(KNOTS, KNOTS)
        # Noise may time a wider layer as faster; one more gate must not cost less.
        yield grid.cummax(0).values.cummax(1).values


def _resized(whole: LayerShape, inner: int, outer: int, depthwise: bool) -> LayerShape:
    """Return a layer at other counts; a depthwise layer has the same on both sides."""
    if depthwise:
        each = whole.outer // whole.inner
        return replace(whole, inner=inner, outer=inner * each, groups=inner)
    down = whole.groups
    inner, outer = (max(down, count // down * down) for count in (inner, outer))
    return replace(whole, inner=inner, outer=outer)


def _hats(counts: Tensor, knots: Tensor) -> Tensor:
    """Return the weights of linear interpolation between knots, (…, L, K); they sum to 1."""
    low, high = knots[:, :-1], knots[:, 1:]
    # Knots of a side that does not vary are equal: such an interval counts as not reached.
    width = (high - low).clamp(min=1e-9)
    reached = ((counts[..., None] - low) / width).clamp(0, 1) * (high > low)
    full = torch.ones_like(reached[..., :1])
    before = torch.cat([full, reached], -1)
    after = torch.cat([reached, torch.zeros_like(full)], -1)
    return before - after

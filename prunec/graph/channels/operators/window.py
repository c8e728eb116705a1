"""Windows over the trailing axes, each channel alone: pooling and resizing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prunec.graph.capture.node import Node, per_axis
from prunec.graph.channels.borders import Bordered, Borders, settings
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Window(Family):
    """A window over positions; a constant stays constant, up to the divisor."""

    names = frozenset(
        (
            "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
            "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d "
            "upsample_linear1d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa "
            "_upsample_bicubic2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d "
            "_upsample_nearest_exact3d"
        ).split()
    )

    node: Node
    source: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the operand's channels; refuse if they lie along the window."""
        source = node.operands[0]
        layout = cls.seen(builder, node, source)
        if layout is not None:
            builder.bind(cls(node, source), layout)

    @classmethod
    def seen(cls, builder: Builder, call: Node, source: Node) -> Tensor | None:
        """Return the operand's layout outside the window; None, refused, if channels lie inside."""
        rank = len(source.shape)
        spatial = range(rank - dimensions(call.operator), rank)
        if any(axis in spatial for axis in builder.axes(source)):
            builder.refuse(call, [source], f"{call.operator} at {call.name} runs over channels")
            return None
        layout = builder.layout(source)
        for axis in spatial:
            layout = layout.narrow(axis, 0, 1)
        return layout

    @property
    def call(self) -> Node:
        """The call; ``node`` may be one of its results."""
        return self.node

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return constants times window size over divisor; only 0 where windows differ."""
        value = known[self.source]
        return value * self._factor if self.uniform else torch.where(value == 0, value, NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return an uneven constant of the operand, or one that padding makes."""
        source = borders.get(self.source)
        if source is None:
            value = known[self.source]
            made = Bordered(
                (settings(self.call),), value, torch.zeros_like(value), sharp=False, whole=False
            )
            return None if self.uniform else made
        if "max_pool" in self.call.operator:
            return self._largest(source)
        factor = self._factor
        return source.moved(
            settings(self.call),
            inside=source.inside * factor,
            border=source.border * factor,
            sharp=source.sharp and "nearest" in self.call.operator,
            whole=source.whole and self.uniform,
        )

    def _largest(self, source: Bordered) -> Bordered | None:
        """Return the maxima: inside wins wherever it is larger and a window reaches it."""
        if not source.sharp:
            return None
        inside = torch.where(source.inside >= source.border, source.inside, NAN)
        # A window within the border alone would see only the border's value.
        border = inside if self._always_reaches(source) else source.border
        return source.moved(settings(self.call), inside=inside, border=border)

    def _always_reaches(self, source: Bordered) -> bool:
        """Return whether every window covers at least one position inside the border."""
        named = self.call.arguments
        if source.widths is None or named.get("ceil_mode", True):
            return False
        rank = dimensions(self.call.operator)
        kernel, padding, dilation = (
            per_axis(named[key], rank) for key in ("kernel_size", "padding", "dilation")
        )
        first = len(self.node.shape) - rank
        widths = [source.widths.get(first + axis, (0, 0)) for axis in range(rank)]
        return set(dilation) == {1} and all(
            max(width) + p < k for width, p, k in zip(widths, padding, kernel, strict=True)
        )

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand."""
        mark(self.source, live)

    @cached_property
    def uniform(self) -> bool:
        """Whether a constant has the same result at all positions."""
        if not self._averages:
            return True
        named = self.call.arguments
        rank = dimensions(self.call.operator)
        padding = per_axis(named["padding"], rank)
        if named.get("divisor_override") is None:  # by default excluded padding is not divided by
            return not named["count_include_pad"] or not any(padding)
        kernel = per_axis(named["kernel_size"], rank)
        stride = per_axis(named["stride"] or kernel, rank)
        inputs, outputs = self.source.shape[-rank:], self.node.shape[-rank:]
        return all(
            p == 0 and (o - 1) * s + k <= i
            for p, o, s, k, i in zip(padding, outputs, stride, kernel, inputs, strict=True)
        )

    @property
    def _averages(self) -> bool:
        return self.call.operator.startswith("avg_pool")

    @property
    def _factor(self) -> float:
        """Result of a uniform window on 1: window size over the divisor."""
        divisor = self.call.arguments.get("divisor_override")
        if divisor is None:
            return 1.0
        kernel = self.call.arguments["kernel_size"]
        return math.prod(per_axis(kernel, dimensions(self.call.operator))) / float(divisor)


def dimensions(name: str) -> int:
    """Return the number of axes of a window: 2 for ``avg_pool2d``."""
    return int(name.split("d_with")[0].removesuffix("_aa").removesuffix("d")[-1])

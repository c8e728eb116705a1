"""Windows over the trailing axes, each channel by itself: pooling and resizing."""

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
    """A window over positions; of a constant it makes the same constant, up to its divisor."""

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
        """The channels of what it reads, unless they lie along the window."""
        source = node.operands[0]
        layout = cls.seen(builder, node, source)
        if layout is not None:
            builder.bind(cls(node, source), layout)

    @classmethod
    def seen(cls, builder: Builder, call: Node, source: Node) -> Tensor | None:
        """Return the channels of what a call reads; None, refused, if they lie along the window."""
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
        """The call, of which ``node`` may be one result."""
        return self.node

    def value(self, known: Known, weights: Weights) -> Tensor:
        """A constant, times the window's size over its divisor; zero where it is not uniform."""
        value = known[self.source]
        return value * self._factor if self.uniform else torch.where(value == 0, value, NAN)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """A border that was there, moved; one that it makes, where it is not uniform."""
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
        """Where what is inside is larger, it is all that a window sees that reaches there."""
        if not source.sharp:
            return None
        inside = torch.where(source.inside >= source.border, source.inside, NAN)
        border = inside if self._always_reaches(source) else source.border
        return source.moved(settings(self.call), inside=inside, border=border)

    def _always_reaches(self, source: Bordered) -> bool:
        """Whether every window sees something of what is inside a border."""
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
        """Its operand."""
        mark(self.source, live)

    @cached_property
    def uniform(self) -> bool:
        """Whether the window makes the same of a constant everywhere."""
        if not self._averages:
            return True
        named = self.call.arguments
        rank = dimensions(self.call.operator)
        padding = per_axis(named["padding"], rank)
        if named.get("divisor_override") is None:  # what a window leaves out, its divisor does too
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
        """What a uniform window makes of 1: its size over the divisor that was asked for."""
        divisor = self.call.arguments.get("divisor_override")
        if divisor is None:
            return 1.0
        kernel = self.call.arguments["kernel_size"]
        return math.prod(per_axis(kernel, dimensions(self.call.operator))) / float(divisor)


def dimensions(name: str) -> int:
    """Number of axes that a window runs over: ``avg_pool2d`` has 2."""
    return int(name.split("d_with")[0].removesuffix("_aa").removesuffix("d")[-1])

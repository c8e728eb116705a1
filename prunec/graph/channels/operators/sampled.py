"""Sampling at computed coordinates, the same for all channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders, settings
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.weights import Weights

_PADS_WITH_ZEROS = 0  # ATen's number for padding_mode="zeros"


@dataclass(frozen=True, eq=False)
class GridSample(Family):
    """grid_sample(images, grid): channels lie along axis 1 of the images."""

    names = ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")

    node: Node
    source: Node
    grid: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Carry the channels of the images; pin the grid, which holds coordinates."""
        source, grid = list(node.arguments.values())[:2]
        why = f"{node.operator} at {node.name} runs over channels"
        builder.pin(builder.layout(grid), f"{node.operator} at {node.name} reads coordinates")
        layout = builder.outside(source, range(2, len(source.shape)), why)
        if layout is None:
            builder.refuse(node, [source], why)
        else:
            builder.bind(cls(node, source, grid), layout)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return constants; with zero padding only 0 stays constant."""
        value = known[self.source]
        return torch.where(value == 0, value, NAN) if self._sees_zeros else value

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the constant inside and zero outside, mixed by the share of the image."""
        source = borders.get(self.source)
        if source is not None:
            whole = source.whole and not self._sees_zeros
            return source.moved(self.node, sharp=False, whole=whole)
        value = known[self.source]
        nothing = torch.zeros_like(value)
        pattern = (settings(self.node), self.grid)
        made = Bordered(pattern, value, nothing, sharp=False, whole=False)
        return made if self._sees_zeros else None

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark live channels of the images, and the grid."""
        mark(self.source, live)
        mark(self.grid, torch.ones((), dtype=torch.bool))

    @property
    def _sees_zeros(self) -> bool:
        return int(self.node.arguments["padding_mode"]) == _PADS_WITH_ZEROS

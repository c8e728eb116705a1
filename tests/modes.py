"""The ways in which the tests put zeros into a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from masks import (
    Masks,
    channel_masks,
    single_filter_masks,
    structured_output_masks,
    unstructured_masks,
)
from torch import nn

if TYPE_CHECKING:
    from prunec.graph.channels.groups import ChannelGroup

Mode = Callable[[nn.Module, "Sequence[ChannelGroup]", float, int], Masks]

MODES: dict[str, Mode] = {
    "readers": lambda m, groups, d, seed: channel_masks(m, groups, d, "readers", seed),
    "producers": lambda m, groups, d, seed: channel_masks(m, groups, d, "producers", seed),
    "both": lambda m, groups, d, seed: channel_masks(m, groups, d, "both", seed),
    "filters": lambda m, _, d, seed: structured_output_masks(m, d, seed),
    "weights": lambda m, _, d, seed: unstructured_masks(m, d / 4, seed),
}

# Ways that leave nearly everything.
FINE_MODES: dict[str, Mode] = {
    "one filter": lambda m, _, __, seed: single_filter_masks(m, 1, seed),
    "three filters": lambda m, _, __, seed: single_filter_masks(m, 3, seed),
}

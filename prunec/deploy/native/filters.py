"""Weights of a convolution, and the input positions that it reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.deploy.native.builder import Builder, Place, Step
from prunec.deploy.native.layout import rounded
from prunec.deploy.native.reading import Call


@dataclass(frozen=True)
class Read:
    """Input positions that a convolution reads, in floats.

    Attributes:
        place: input position that the first output reads at offset 0.
        channel: floats from channel to channel.
        taps: offset of each kernel index, at least 0.
        phases: step that splits the input into phases, or one channel of it if ``alone``.
        alone: whether each channel is split just before it is read.
    """

    place: Place
    channel: int
    taps: tuple[int, ...]
    phases: Step | None = None
    alone: bool = False

    def offsets(self, channels: int) -> np.ndarray:
        """Return the offset of every weight of a filter that reads so many channels."""
        rows = self.channel * np.arange(channels)[:, None]
        offsets: np.ndarray = (rows + np.array(self.taps)[None]).reshape(-1).astype(np.uint32)
        return offsets


@dataclass(frozen=True)
class Filters:
    """Weights of a convolution of stride 1.

    Attributes:
        values: [filters, input channels of a group × kernel size].
        bias: [filters].
        groups: number of groups.
        channels: number of input channels.
    """

    values: np.ndarray
    bias: np.ndarray
    groups: int
    channels: int

    @property
    def group_in(self) -> int:
        """Input channels of a group: those that one filter reads."""
        return self.channels // self.groups

    @property
    def live(self) -> float:
        """Share of nonzero weights."""
        return float(np.count_nonzero(self.values)) / max(self.values.size, 1)

    @property
    def bias_in_blocks(self) -> np.ndarray:
        """Bias of every group, zero-padded to blocks of 16 filters."""
        full = np.zeros((self.groups, rounded(self.group_out)), np.float32)
        full[:, : self.group_out] = self.bias.reshape(self.groups, -1)
        return full

    @property
    def group_out(self) -> int:
        """Filters of a group."""
        return len(self.values) // self.groups


def filters(builder: Builder, call: Call) -> Filters:
    """Return the weights of a convolution; of a transposed one, filters by output channel."""
    weight, bias = builder.constant(call, 1), builder.constant(call, 2)
    assert weight is not None
    groups = call.whole("group", 1)
    if call.operator == "ConvTranspose":
        parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        parts = parts.swapaxes(1, 2)
        weight = parts.reshape(groups * parts.shape[1], *parts.shape[2:])
    values = weight.reshape(len(weight), -1).astype(np.float32)
    bias = np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32)
    return Filters(values, bias, groups, builder.shape(call.operands[0])[1])

"""Dense integer convolutions: input channels in quads, weights of four filters side by side."""

from __future__ import annotations

import numpy as np

from prunec.deploy.native.builder import Fields, Place
from prunec.deploy.native.byte_layout import in_floats
from prunec.deploy.native.filters import Read
from prunec.deploy.native.integers import IntegerBuilder
from prunec.deploy.native.reading import Call

_ABREAST = 4
"""Filters of a block, and channels of a quad (prunec_quads.h)."""
_DENSE_ABOVE = 0.4
"""Share of nonzero weights above which the dense kernel takes less time."""


def is_dense(values: np.ndarray) -> bool:
    """Whether the dense kernel computes a kernel [filters, channels of a group, taps] sooner."""
    channels = values.shape[1]
    # Channels that lack in the last quad take time too.
    room = values.size // channels * 4 * -(-channels // 4)
    return bool(np.count_nonzero(values) > _DENSE_ABOVE * room)


def in_blocks(values: np.ndarray, groups: int) -> np.ndarray:
    """Return weights [filters, channels, taps] as [blocks, quads, taps, filters, channels] of 4."""
    filters, channels, taps = values.shape
    of_group, blocks, quads = filters // groups, -(-filters // groups // 4), -(-channels // 4)
    full = np.zeros((groups, blocks * 4, quads * 4, taps), np.int8)
    full[:, :of_group, :channels] = values.reshape(groups, of_group, channels, taps)
    parts = full.reshape(groups, blocks, 4, quads, 4, taps)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 5, 2, 4))


def quads(
    builder: IntegerBuilder, call: Call, read: Read, lead: int, form: tuple[int, int, int]
) -> Read:
    """Append the step that lays the channels of a tensor side by side in quads; return the read.

    Args:
        builder: the program.
        call: the convolution.
        read: what it reads of the planes of bytes.
        lead: bytes before the first plane.
        form: number of groups, channels of a group, and zero point.
    """
    groups, group_in, zero = form
    count = groups * -(-group_in // 4)
    key = (read.place.buffer, form)
    made = Read(read.place, 4 * read.channel, tuple(4 * tap for tap in read.taps))
    if key not in builder.quads:
        buffer = builder.scratch(in_floats(4 * (lead + count * read.channel)))
        fields: Fields = {
            "in": Place(read.place.buffer), "lead": lead, "plane": read.channel,
            "groups": groups, "group_in": group_in, "out": Place(buffer), "zero": zero,
        }  # fmt: skip
        source = [read.place.buffer]
        builder.add("pn_in_quads(&S, w);", "pn_byte_quads", fields, source, buffer, call.name)
        builder.quads[key] = buffer
    return Read(Place(builder.quads[key]), made.channel, made.taps)

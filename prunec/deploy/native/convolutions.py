"""Convolutions as offsets: each weight reads at one offset from its output position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place, Step, Work
from prunec.deploy.native.geometry import Geometry, geometry
from prunec.deploy.native.layout import OVERRUN, View, rounded
from prunec.deploy.native.linear import add_linear
from prunec.deploy.native.packing import MOST_COLUMNS, compressed, in_fours
from prunec.deploy.native.patterns import Packed, patterned
from prunec.deploy.native.reading import Call
from prunec.wording import percent

DENSE_FROM = 0.46
"""Share of nonzero weights from which the dense kernel is faster, as measured by
tests/bench/native_kernels.py."""
_DENSE_FROM_SPLIT = 0.37
"""The same where the input is split into phases: the sparse kernel reads more memory there."""
_THREE_FROM = 0.45
"""The same for the kernel of 3×3 depthwise convolutions."""
_DENSE_FROM_FEW, _FEW_TAPS = 0.55, 160
"""The same for filters of at most so many weights: packing weighs more in the dense kernel."""
_ROWS, _DEPTH = 4, 256
"""PN_ROWS and PN_DEPTH of the kernels."""
_PANELS = tuple((wide * lanes, lanes) for wide, lanes in ((1, 1), (3, 4), (3, 8), (6, 16)))
"""Positions of a panel, and floats of a vector, of each kind of processor."""
_HELD = 1 << 16
"""Floats of panels that are packed together: 256 KiB, half of a usual second-level cache."""
_FEW_WEIGHTS = 1 << 15
"""Weights that stay in the second-level cache beside one panel: no need to read them seldom."""


@dataclass(frozen=True)
class Read:
    """Input positions that a convolution reads, in floats.

    Attributes:
        place: position that the first output reads at offset 0.
        channel: floats from channel to channel.
        taps: offset of each kernel index, at least 0.
        phases: the step that splits the input into phases; of one channel if ``alone``.
        alone: whether each channel is split just before it is read.
    """

    place: Place
    channel: int
    taps: tuple[int, ...]
    phases: Step | None = None
    alone: bool = False

    def offsets(self, channels: int) -> np.ndarray:
        """Return the offset of every weight of a filter over a number of channels."""
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
        """Input channels of a filter."""
        return self.channels // self.groups

    @property
    def group_out(self) -> int:
        """Filters of a group."""
        return len(self.values) // self.groups


def filters(builder: Builder, call: Call) -> Filters:
    """Return the weights of a convolution; those of a transposed one with in and out swapped."""
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


def convolution(builder: Builder, call: Call) -> None:
    """Append a convolution, transposed or not."""
    how, weights = geometry(call, builder.network), filters(builder, call)
    if (how.rows.out, how.columns.out) == (1, 1):
        _to_one_position(builder, call, how, weights)
        return
    name = call.results[0]
    stride = builder.layout(name).stride
    alone = weights.group_in == weights.group_out == 1 and how.spread == (1, 1)
    read = _read(builder, call, how, stride, alone=alone)
    add_filters(builder, call, read, weights, len(read.taps))


def add_filters(builder: Builder, call: Call, read: Read, weights: Filters, taps: int) -> Step:
    """Append a convolution that reads with the row stride of its output."""
    name = call.results[0]
    out, data = builder.layout(name), builder.data
    buffer = builder.new(name)
    count = weights.group_in * taps
    live = float(np.count_nonzero(weights.values)) / max(weights.values.size, 1)
    dense = (live >= _dense_from(read, count) and weights.group_out >= 4) or count > MOST_COLUMNS
    offsets = read.offsets(weights.group_in)
    pattern = None
    if not dense and not read.alone:
        pattern = patterned(weights.values, weights.groups, offsets, taps)
    fields: Fields = {
        "out": out, "in": read.place, "residual": Place(buffer), "positions": out.positions,
        "group_out": weights.group_out, "group_step": weights.group_in * read.channel,
        "taps": count, "bias": data.add(weights.bias), "has_residual": 0, "activation": 0,
        "low": 0.0, "high": 0.0,
    }  # fmt: skip
    if dense:
        size = _scratch(weights, count, out.positions)
        scratch = builder.scratch(size)
        kernel, reads, stored = "dense", [scratch], 4 * weights.values.size
        fields |= {"scratch": Place(scratch), "scratch_size": size}
        fields["values"] = data.add(in_fours(weights.values, weights.groups))
    else:
        kernel, own, reads, stored = _without_zeros(builder, call, weights, pattern)
        fields |= own
    if dense or pattern:
        fields["offsets"] = data.add(pattern.offsets if pattern else offsets)
    else:
        table = _table(builder, call, offsets, weights.group_in)
        fields["weights.offsets"], reads = Place(table), [*reads, table]
    three = not dense and live >= _THREE_FROM and _is_three(read, weights, out.stride)
    if three:
        kernel, fields["dense"] = "three", data.add(weights.values)
    reads += [read.place.buffer]
    if read.alone and read.phases:
        kernel = "stepped"
        reads += read.phases.reads
        fields |= {"phases": read.phases, "scratch_size": builder.sizes[read.place.buffer]}
    code = f"k->{kernel}(&S, w, d);"
    layer = f"{call.name}: {weights.values.shape[0]} filters, {percent(live)} of their weights"
    step = builder.add(code, "pn_conv", fields, reads, buffer, layer)
    builder.makers[name] = step
    step.work = _work(builder, call, weights, kernel, stored)
    return step


def _table(builder: Builder, call: Call, offsets: np.ndarray, channels: int) -> str:
    """Append the offsets of a filter's weights, in a buffer; return it.

    The table takes less time to make than bytes to store: as many as a filter has weights.
    """
    buffer, rows = builder.scratch(rounded(offsets.size)), offsets.reshape(channels, -1)
    step = int(rows[-1, 0] - rows[0, 0]) // max(channels - 1, 1)
    if (rows != rows[0] + step * np.arange(channels)[:, None]).any():
        rows = offsets[None]  # of a volume: each slice at an offset of its own
    fields: Fields = {
        "taps": builder.data.add(rows[0]), "count": rows.shape[1], "channels": len(rows),
        "step": step, "out": Place(buffer),
    }  # fmt: skip
    builder.add("pn_reached(&S, w, d);", "pn_reach", fields, (), buffer, call.name)
    return buffer


def _without_zeros(
    builder: Builder, call: Call, weights: Filters, pattern: Packed | None
) -> tuple[str, Fields, list[str], int]:
    """Store sparse weights: kernel, its arguments, buffers that it reads, bytes of the weights."""
    if pattern:
        return pattern.kernel, *pattern.fields(builder, call.name), pattern.bytes
    rows = compressed(weights.values)
    return "sparse", *builder.rows(rows, call.name), rows.bytes


def _work(builder: Builder, call: Call, weights: Filters, kernel: str, stored: int) -> Work:
    out = builder.layout(call.results[0])
    live = int(np.count_nonzero(weights.values))
    tensors = math.prod(builder.shape(call.operands[0])) + math.prod(out.sizes)
    products = live * out.height * out.width
    return Work(kernel, weights.values.size, live, products, stored, 4 * tensors)


def _dense_from(read: Read, taps: int) -> float:
    """Return the density from which a convolution is dense; `tests/bench/native_kernels.py`."""
    if read.phases:
        return _DENSE_FROM_SPLIT
    return _DENSE_FROM_FEW if taps <= _FEW_TAPS else DENSE_FROM


def _is_three(read: Read, weights: Filters, stride: int) -> bool:
    """Whether a convolution is depthwise 3×3 with stride 1 and dilation 1."""
    square = tuple(y * stride + x for y in range(3) for x in range(3))
    return weights.group_in == weights.group_out == 1 and read.taps == square and not read.phases


def _scratch(weights: Filters, taps: int, positions: int) -> int:
    """Return the floats that a dense convolution needs beside its tensors, on any processor."""
    depths = -(-taps // _DEPTH)
    depth, rows = -(-taps // depths), -(-weights.group_out // _ROWS) * _ROWS
    most = 0 if weights.values.size <= _FEW_WEIGHTS else _HELD
    needed = []
    for panel, lanes in _PANELS:
        one = depth * panel + lanes + (rows * panel if depths > 1 else 0)
        tiles = -(-positions // panel) + 1  # they differ by one vector at most
        needed.append(one * min(max(1, most // one), tiles))
    return max(needed)


def _read(builder: Builder, call: Call, how: Geometry, stride: int, *, alone: bool) -> Read:
    """Return the input positions of a convolution: in place, or in a copy split into phases.

    The copy is made before the convolution, or, if ``alone``, one channel at a time within it.
    """
    name = call.operands[0]
    source = builder.layout(name).planes
    rows, columns = how.rows, how.columns
    if how.direct:
        taps = [dy * stride + dx for dy in rows.taps for dx in columns.taps]
        return _from_least(Place(builder.buffer(name), source.at), source.plane, taps)
    used = sorted({(y % rows.step, x % columns.step) for y in rows.taps for x in columns.taps})
    height = rows.out + rows.high - rows.low
    plane = rounded(height * stride + columns.high - columns.low + OVERRUN)
    taps = [
        used.index((y % rows.step, x % columns.step)) * plane
        + (y // rows.step) * stride + x // columns.step
        for y in rows.taps for x in columns.taps
    ]  # fmt: skip
    origin = -rows.low * stride - columns.low
    count = 1 if alone else source.channels
    buffer = builder.scratch(count * plane * len(used) + 2 * OVERRUN)
    read = _from_least(Place(buffer, origin), plane * len(used), taps)
    if how.spread == (1, 1):
        step = _split(builder, call, how, buffer, (plane, stride, used))
        step.code = "(void)&S;" if alone else step.code
        return replace(read, phases=step, alone=alone)
    _spread(builder, call, how, buffer, (plane, stride, origin))
    return read


def _from_least(place: Place, channel: int, taps: list[int]) -> Read:
    least = min(taps)
    own = tuple(tap - least for tap in taps)
    return Read(Place(place.buffer, place.at + least), channel, own)


def _split(
    builder: Builder,
    call: Call,
    how: Geometry,
    buffer: str,
    form: tuple[int, int, list[tuple[int, int]]],
) -> Step:
    """Append the phases of an input: plane, row stride, and row and column of each phase."""
    (plane, stride, used), (rows, columns) = form, (how.rows, how.columns)
    source, name = builder.layout(call.operands[0]).planes, builder.buffer(call.operands[0])
    firsts = [(rows.low * rows.step + y, columns.low * columns.step + x) for y, x in used]
    fields: Fields = {
        "in": Place(name, source.at), "plane": source.plane, "stride": source.stride,
        "height": source.height, "width": source.width, "channels": source.channels,
        "out": Place(buffer), "out_plane": plane, "out_stride": stride, "size": plane,
        "step_y": rows.step, "step_x": columns.step, "count": len(used),
        "rows": rows.out + rows.high - rows.low,
        "columns": min(columns.out + columns.high - columns.low, stride),
        "at": builder.data.add(np.array(firsts, np.int32)),
    }  # fmt: skip
    return builder.add("pn_split(&S, w, d);", "pn_phases", fields, [name], buffer, call.name)


def _spread(
    builder: Builder, call: Call, how: Geometry, buffer: str, form: tuple[int, int, int]
) -> None:
    """Append an input with zeros between its values: plane, row stride and first value."""
    (plane, stride, origin), (down, over) = form, how.spread
    source = builder.layout(call.operands[0]).planes
    sizes = source.channels, source.height, source.width
    zeros = View((builder.sizes[buffer],), (1,))
    builder.walk(call, "PN_FILL", [(buffer, View(zeros.sizes, (0,)))], (buffer, zeros))
    out = View(sizes, (plane, down * stride, over), origin)
    given = View(sizes, (source.plane, source.stride, 1), source.at)
    builder.move(call, (builder.buffer(call.operands[0]), given), (buffer, out))


def _to_one_position(builder: Builder, call: Call, how: Geometry, weights: Filters) -> None:
    """Append a convolution with one output position, as a linear layer."""
    source, name = builder.layout(call.operands[0]).planes, call.operands[0]
    down, over = how.spread
    kept = [
        (number, y // down * source.stride + x // over)
        for number, (y, x) in enumerate((y, x) for y in how.rows.taps for x in how.columns.taps)
        if 0 <= y < how.rows.size and 0 <= x < how.columns.size and not (y % down or x % over)
    ]
    numbers = [number for number, _ in kept]
    values = weights.values.reshape(len(weights.values), weights.group_in, -1)[:, :, numbers]
    full = np.zeros((len(values), weights.groups, *values.shape[1:]), np.float32)
    of_group = np.arange(len(values)) // weights.group_out
    full[np.arange(len(values)), of_group] = values
    count = weights.channels * len(kept)
    offsets = [c * source.plane + offset for c in range(source.channels) for _, offset in kept]
    buffer, at = builder.buffer(name), source.at
    if offsets != list(range(count)):
        buffer, at = _gathered(builder, call, offsets), 0
    add_linear(builder, call, Place(buffer, at), full.reshape(len(values), count), weights.bias)


def _gathered(builder: Builder, call: Call, offsets: list[int]) -> str:
    buffer, source = builder.scratch(rounded(len(offsets))), builder.layout(call.operands[0])
    fields: Fields = {
        "in": Place(builder.buffer(call.operands[0]), source.lead), "out": Place(buffer),
        "numbers": builder.data.add(np.array(offsets, np.uint32)),
        "sizes": (1, 1, 1, 1, 1, len(offsets)), "in_steps": (0, 0, 0, 0, 0, 1),
        "out_steps": (0, 0, 0, 0, 0, 1), "axis": 5,
    }  # fmt: skip
    reads = [builder.buffer(call.operands[0])]
    builder.add("pn_taken(&S, w, d);", "pn_take", fields, reads, buffer, call.name)
    return buffer

"""Convolutions as offsets: each weight reads at one offset from its output position."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place, Step, Work
from prunec.deploy.native.choosing import is_three, kernel_of
from prunec.deploy.native.filters import Filters, Read, filters
from prunec.deploy.native.geometry import Geometry, geometry, is_halved
from prunec.deploy.native.layout import OVERRUN, View, rounded
from prunec.deploy.native.linear import add_linear
from prunec.deploy.native.packing import compressed, in_blocks
from prunec.deploy.native.patterns import Packed, patterned
from prunec.deploy.native.reading import Call
from prunec.wording import percent

_HELD_INPUTS = 98304
"""Floats of input that the columns kernel reads at a time, once for every block of filters:
384 KiB."""
_FEWEST = 64
"""Least number of positions that it takes at once: it reads all weights again for the next ones."""
_ROWS, _DEPTH = 4, 256
"""PN_ROWS and PN_DEPTH of the kernels."""
_PANELS = tuple((wide * lanes, lanes) for wide, lanes in ((1, 1), (3, 4), (3, 8), (6, 16)))
"""(Positions of a panel, floats of a vector) for each kind of processor."""
_HELD = 1 << 16
"""Floats of the panels that are packed at once: 256 KiB, half of a usual second-level cache."""
_FEW_WEIGHTS = 1 << 15
"""Weights that stay in the second-level cache beside one panel: panels are then packed singly."""


def convolution(builder: Builder, call: Call) -> None:
    """Append a convolution, transposed or not."""
    how, weights = geometry(call, builder.network), filters(builder, call)
    if (how.rows.out, how.columns.out) == (1, 1):
        _to_one_position(builder, call, how, weights)
        return
    name = call.results[0]
    stride = builder.layout(name).stride
    if is_halved(call, builder.network, how):
        _halved(builder, call, how, weights)
        return
    alone = weights.group_in == weights.group_out == 1 and how.spread == (1, 1)
    read = _read(builder, call, how, stride, alone=alone)
    add_filters(builder, call, read, weights, len(read.taps))


def add_filters(builder: Builder, call: Call, read: Read, weights: Filters, taps: int) -> Step:
    """Append the kernel call of a convolution, with its weights; return the call.

    Args:
        builder: the program.
        call: the convolution.
        read: input positions that it reads.
        weights: its filters.
        taps: positions that a filter reads of each channel.
    """
    name = call.results[0]
    out, data = builder.layout(name), builder.data
    buffer = builder.new(name)
    filter_size = weights.group_in * taps
    split = read.phases is not None
    three = is_three(read, weights, out.stride)
    kernel = kernel_of(builder, call, weights, taps, split=split, three=three)
    offsets, pattern = read.offsets(weights.group_in), None
    if kernel == "sparse" and not read.alone:
        pattern = patterned(weights.values, weights.groups, offsets, taps)
    fields: Fields = {
        "out": out, "in": read.place, "residual": Place(buffer), "positions": out.positions,
        "group_out": weights.group_out, "group_step": weights.group_in * read.channel,
        "taps": filter_size, "bias": data.add(weights.bias), "has_residual": 0, "activation": 0,
        "low": 0.0, "high": 0.0,
    }  # fmt: skip
    stored = 4 * weights.values.size
    if kernel == "columns":
        further, reads = _in_columns(builder, call, weights)
    elif kernel == "dense":
        size = _scratch(weights, filter_size, out.positions)
        reads = [builder.scratch(size)]
        further = {"scratch": Place(reads[0]), "scratch_size": size}
        further["values"] = data.add(in_blocks(weights.values, weights.groups, _ROWS))
    else:
        sparse_kernel, further, reads, stored = _without_zeros(builder, call, weights, pattern)
        kernel = sparse_kernel if kernel == "sparse" else kernel
    fields |= further
    if kernel == "three":
        fields["dense"] = data.add(weights.values)
    if kernel in ("sparse", "three"):
        table = offset_table(builder, call, offsets, weights.group_in)
        fields["weights.offsets"], reads = Place(table), [*reads, table]
    else:
        fields["offsets"] = data.add(pattern.offsets if pattern else offsets)
    reads += [read.place.buffer]
    if read.alone and read.phases:
        kernel = "stepped"
        reads += read.phases.reads
        fields |= {"phases": read.phases, "scratch_size": builder.sizes[read.place.buffer]}
    code = f"k->{kernel}(&S, w, d);"
    live = percent(weights.live)
    layer = f"{call.name}: {weights.values.shape[0]} filters, {live} of their weights"
    step = builder.add(code, "pn_conv", fields, reads, buffer, layer)
    builder.makers[name] = step
    step.work = _work(builder, call, weights, kernel, stored)
    return step


def _in_columns(builder: Builder, call: Call, weights: Filters) -> tuple[Fields, list[str]]:
    """Return the further arguments of the columns kernel, and its scratch buffer."""
    out, data = builder.layout(call.results[0]), builder.data
    positions = out.height * out.width
    together = min(positions, max(_HELD_INPUTS // weights.group_in, _FEWEST))
    size = 65 * rounded(together)  # for each position four blocks of 16 sums, and its offset
    scratch = builder.scratch(size)
    fields: Fields = {
        "scratch": Place(scratch), "scratch_size": size, "together": together,
        "bias": data.add(weights.bias_in_blocks),
        "values": data.add(in_blocks(weights.values, weights.groups)),
    }  # fmt: skip
    return fields, [scratch]


def _halved(builder: Builder, call: Call, how: Geometry, weights: Filters) -> None:
    """Append a depthwise convolution of stride 2, which reads its input in place."""
    name, source = call.results[0], builder.layout(call.operands[0]).planes
    at = source.at + how.rows.taps[0] * source.stride + how.columns.taps[0]
    buffer, given = builder.new(name), builder.buffer(call.operands[0])
    fields: Fields = {
        "out": builder.layout(name), "in": Place(given, at), "residual": Place(buffer),
        "group_step": source.plane, "bias": builder.data.add(weights.bias),
        "dense": builder.data.add(weights.values), "has_residual": 0, "activation": 0,
        "low": 0.0, "high": 0.0, "side": len(how.rows.taps), "in_stride": source.stride,
    }  # fmt: skip
    layer = f"{call.name}: {len(weights.values)} filters, in place"
    step = builder.add("k->halved(&S, w, d);", "pn_conv", fields, [given], buffer, layer)
    builder.makers[name] = step
    step.work = _work(builder, call, weights, "halved", 4 * weights.values.size)


def offset_table(builder: Builder, call: Call, offsets: np.ndarray, channels: int) -> str:
    """Append the step that computes the offset of each weight of a filter; return its buffer.

    Computing the table takes little time; storing it would take a number for each weight.
    """
    buffer, rows = builder.scratch(rounded(offsets.size)), offsets.reshape(channels, -1)
    step = int(rows[-1, 0] - rows[0, 0]) // max(channels - 1, 1)
    if (rows != rows[0] + step * np.arange(channels)[:, None]).any():
        rows = offsets[None]  # of a volume, whose slices have offsets of their own
    fields: Fields = {
        "taps": builder.data.add(rows[0]), "count": rows.shape[1], "channels": len(rows),
        "step": step, "out": Place(buffer),
    }  # fmt: skip
    builder.add("pn_reached(&S, w, d);", "pn_reach", fields, (), buffer, call.name)
    return buffer


def _without_zeros(
    builder: Builder, call: Call, weights: Filters, pattern: Packed | None
) -> tuple[str, Fields, list[str], int]:
    """Store sparse weights; return kernel, its arguments, buffers that it reads, stored bytes."""
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


def _scratch(weights: Filters, taps: int, positions: int) -> int:
    """Return the scratch floats of a dense convolution, enough for every kind of processor."""
    depths = -(-taps // _DEPTH)
    depth, rows = -(-taps // depths), -(-weights.group_out // _ROWS) * _ROWS
    most = 0 if weights.values.size <= _FEW_WEIGHTS else _HELD
    needed = []
    for panel, lanes in _PANELS:
        per_panel = depth * panel + lanes + (rows * panel if depths > 1 else 0)
        tiles = -(-positions // panel) + 1  # their sizes differ by one vector at most
        needed.append(per_panel * min(max(1, most // per_panel), tiles))
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
    """Return input positions whose place includes the least tap, so that no tap is negative."""
    least = min(taps)
    return Read(Place(place.buffer, place.at + least), channel, tuple(tap - least for tap in taps))


def _split(
    builder: Builder,
    call: Call,
    how: Geometry,
    buffer: str,
    form: tuple[int, int, list[tuple[int, int]]],
) -> Step:
    """Append the step that splits an input into phases; return it.

    Args:
        builder: the program.
        call: the convolution that reads the phases.
        how: its geometry.
        buffer: buffer of the phases.
        form: floats of a plane and of a row of a phase, and row and column where each phase begins.
    """
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
    """Append the steps that copy an input with zeros between its values.

    Args:
        builder: the program.
        call: the transposed convolution that reads the copy.
        how: its geometry.
        buffer: buffer of the copy.
        form: floats of a plane and of a row of the copy, and offset of its first value.
    """
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
    """Append the step that copies the inputs at these offsets; return its buffer."""
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

"""Volumes: convolutions and pooling over depth, as slices that are images.

A volume lies in a row without gaps. A convolution copies it into planes, slice by slice, with a
slice of zeros behind them; every slice of the output is then one convolution of images, whose
weights find the slice that they read by their offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.convolutions import add_filters
from prunec.deploy.native.filters import Read, filters
from prunec.deploy.native.geometry import Axis, axis_of
from prunec.deploy.native.layout import (
    OVERRUN,
    Border,
    Layout,
    View,
    contiguous,
    layout_of,
    rounded,
)
from prunec.deploy.native.reading import Call
from prunec.deploy.native.windows import add_pool


@dataclass(frozen=True)
class Listed(Read):
    """A read with an explicit offset for every weight of a filter."""

    listed: tuple[int, ...] = ()

    def offsets(self, channels: int) -> np.ndarray:
        """Return the offset of every weight of a filter."""
        return np.array(self.listed, np.uint32)


@dataclass(frozen=True)
class Volume:
    """The geometry of a convolution of volumes.

    Attributes:
        axes: depth, rows, columns.
        spread: distance between input values on each axis: the stride if transposed, else 1.
        channels: input channels.
    """

    axes: tuple[Axis, Axis, Axis]
    spread: tuple[int, int, int]
    channels: int

    @property
    def stride(self) -> int:
        """Floats from row to row."""
        return self.axes[2].out + self.axes[2].extent

    @property
    def origin(self) -> int:
        """Offset in a plane that the first output position reads at offset 0, in floats."""
        return -self.axes[1].low * self.stride - self.axes[2].low

    @property
    def plane(self) -> int:
        """Size of a plane of the copy, in floats."""
        rows = self.axes[1].out + self.axes[1].high - self.axes[1].low
        return rounded(rows * self.stride + self.axes[2].high - self.axes[2].low + OVERRUN)

    @property
    def phases(self) -> list[tuple[int, int]]:
        """(row, column) remainders by the strides that the taps read, sorted."""
        rows, columns = self.axes[1:]
        return sorted({(y % rows.step, x % columns.step) for y in rows.taps for x in columns.taps})

    def slice_of(self, place: int) -> int | None:
        """Return the input slice at a position of depth; None if zeros are read there."""
        inside = 0 <= place < self.axes[0].size and not place % self.spread[0]
        return place // self.spread[0] if inside else None


def is_volume(builder: Builder, call: Call) -> bool:
    """Whether the input of a call is [1, C, D, H, W]."""
    sizes = builder.network.shapes.get(call.operands[0], ())
    return len(sizes) == 5 and sizes[0] == 1


def volume(builder: Builder, call: Call) -> None:
    """Append a 3-D convolution, transposed or not: one 2-D convolution per output slice."""
    how, weights = _volume(builder, call), filters(builder, call)
    copy = _copied(builder, call, how)
    name = call.results[0]
    made, out = builder.new(name), builder.layout(name).view
    depth, channels = out.sizes[2], out.sizes[1]
    height, width = out.sizes[3:]
    sizes = (1, channels, height, width)
    border = {(height, width): Border(how.axes[2].extent, 0)}
    for z in range(depth):
        own = Call(call.operator, call.name, call.operands, (f"{name} slice {z}",), call.options)
        builder.introduce(own.results[0], layout_of(sizes, border))
        read = _read(how, copy, weights.group_in, z)
        add_filters(builder, own, read, weights, int(np.prod([len(a.taps) for a in how.axes])))
        given = builder.layout(own.results[0]).planes
        image = View(sizes[1:], (given.plane, given.stride, 1), given.at)
        place = View(sizes[1:], (out.steps[1], *out.steps[3:]), out.at + z * out.steps[2])
        builder.move(call, (own.results[0], image), (made, place))
        builder.makers.pop(own.results[0], None)
    builder.clean(name)


def _volume(builder: Builder, call: Call) -> Volume:
    before, after = builder.shape(call.operands[0]), builder.shape(call.results[0])
    weight = builder.constant(call, 1)
    assert weight is not None
    axes = [
        axis_of(call, (number, 3), weight.shape[2 + number], before[2 + number], after[2 + number])
        for number in range(3)
    ]
    steps = call.numbers("strides", (1, 1, 1)) if call.operator == "ConvTranspose" else (1, 1, 1)
    return Volume((axes[0], axes[1], axes[2]), (steps[0], steps[1], steps[2]), before[1])


def _copied(builder: Builder, call: Call, how: Volume) -> str:
    """Append a copy of the input as [slices + 1 of zeros, channels, phases] planes; return it."""
    buffer, view = builder.values(call.operands[0])
    slices, phases = view.sizes[2], how.phases
    size = (slices + 1) * how.channels * len(phases) * how.plane + 2 * OVERRUN
    made = builder.scratch(rounded(size))
    zeros = View((builder.sizes[made],), (1,))
    builder.walk(call, "PN_FILL", [(made, View(zeros.sizes, (0,)))], (made, zeros))
    for number, (y, x) in enumerate(phases):
        rows = _part(how.axes[1], y, how.spread[1])
        columns = _part(how.axes[2], x, how.spread[2])
        counts = (how.channels, slices, rows.count, columns.count)
        c, d, h, w = view.steps[1:]
        given = View(
            counts, (c, d, rows.step * h, columns.step * w),
            view.at + rows.first * h + columns.first * w,
        )  # fmt: skip
        of_slice = how.channels * len(phases) * how.plane
        at = number * how.plane + how.origin + rows.place * how.stride + columns.place
        steps = (len(phases) * how.plane, of_slice, rows.apart * how.stride, columns.apart)
        builder.move(call, (buffer, given), (made, View(counts, steps, at)))
    return made


@dataclass(frozen=True)
class _Part:
    """One phase of an axis in the copy.

    Attributes:
        first: first input index.
        step: distance between input indices.
        count: number of values.
        place: position of the first value in the copy.
        apart: distance between values in the copy.
    """

    first: int
    step: int
    count: int
    place: int
    apart: int


def _part(axis: Axis, phase: int, spread: int) -> _Part:
    if spread > 1:
        count = (axis.size - 1) // spread + 1
        last = min(count, (axis.out + axis.high - 1) // spread + 1)
        return _Part(0, 1, max(last, 0), 0, spread)
    first = axis.low * axis.step + phase
    skipped = max(0, (axis.step - 1 - first) // axis.step)
    end = min(axis.out + axis.high, -(-(axis.size - phase) // axis.step))
    place = axis.low + skipped
    return _Part(first + skipped * axis.step, axis.step, max(end - place, 0), place, 1)


def _read(how: Volume, copy: str, channels: int, z: int) -> Listed:
    depth, rows, columns = how.axes
    phases, per_channel = how.phases, len(how.phases) * how.plane
    inside = [
        phases.index((y % rows.step, x % columns.step)) * how.plane
        + (y // rows.step) * how.stride + x // columns.step
        for y in rows.taps for x in columns.taps
    ]  # fmt: skip
    places = [how.slice_of(z * depth.step + tap) for tap in depth.taps]
    # The slice of zeros, behind those of the input.
    last = (depth.size - 1) // how.spread[0] + 1
    slices = [last if place is None else place for place in places]
    listed = [
        (each * how.channels + c) * per_channel + offset + how.origin
        for c in range(channels) for each in slices for offset in inside
    ]  # fmt: skip
    least = min(listed)
    return Listed(
        Place(copy, least), per_channel, (), listed=tuple(offset - least for offset in listed)
    )


def pooled_volume(builder: Builder, call: Call) -> None:
    """Append pooling of volumes: over rows and columns, then over depth."""
    if call.text("auto_pad", "NOTSET") != "NOTSET":
        raise call.refuse("of a volume, with auto_pad")
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    kernel = call.numbers("kernel_shape", ())
    steps, gaps = (call.numbers(key, (1, 1, 1)) for key in ("strides", "dilations"))
    pads = call.numbers("pads", (0,) * 6)
    own = [(kernel[i], steps[i], gaps[i], pads[i], pads[i + 3]) for i in range(3)]
    channels, depth, height, width = view.sizes[1:]
    after = builder.shape(name)[2:]
    images = _planes((channels * depth, after[1], after[2]))
    middle = builder.scratch(images.total)
    _windows(builder, call, (buffer, view.at), (height, width), (middle, images), own[1:])
    made = builder.new(name)
    rows = _planes((channels, after[0], after[1] * after[2]))
    inner = (depth, after[1] * after[2])
    _windows(builder, call, (middle, 0), inner, (made, rows), [own[0], (1, 1, 1, 0, 0)])


def _planes(sizes: tuple[int, int, int]) -> Layout:
    """Return a layout of planes without borders."""
    channels, height, width = sizes
    count = height * width
    total = rounded(channels * count + OVERRUN)
    return Layout(
        (channels, height, width, 1), channels, height, width, width, count, 0, total,
        contiguous((*sizes, 1)),
    )  # fmt: skip


def _windows(
    builder: Builder,
    call: Call,
    source: tuple[str, int],
    sizes: tuple[int, int],
    out: tuple[str, Layout],
    axes: list[tuple[int, int, int, int, int]],
) -> None:
    height, width = sizes
    fields: Fields = {
        "out": out[1], "in": Place(*source), "plane": height * width, "stride": width,
        "height": height, "width": width, "largest": int(call.operator == "MaxPool"),
        "counts_padding": call.whole("count_include_pad", 0),
    }  # fmt: skip
    for key, (kernel, step, gap, before, after), size, first, end in zip(
        "yx", axes, sizes, ("top", "left"), ("padded_bottom", "padded_right"), strict=True
    ):
        fields |= {f"kernel_{key}": kernel, f"step_{key}": step, f"gap_{key}": gap}
        fields |= {first: before, end: size + after}
    add_pool(builder, call, fields, source[0], out[0])

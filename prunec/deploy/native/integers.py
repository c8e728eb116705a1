"""Programs in which tensors are bytes: integer convolutions, and what they take in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place, Step, Work
from prunec.deploy.native.byte_layout import (
    ByteLayout,
    byte_layout,
    in_floats,
    row_layout,
    stored_layout,
    whole_lines,
)
from prunec.deploy.native.geometry import borders
from prunec.deploy.native.layout import Layout, plane_sizes
from prunec.deploy.native.positions import bounded
from prunec.deploy.native.quantised import Codes, Quantised
from prunec.deploy.native.reading import Call


@dataclass(frozen=True)
class Stored:
    """A tensor of bytes: its buffer, its layout, and what the bytes stand for."""

    buffer: str
    layout: ByteLayout
    codes: Codes


@dataclass
class Sums:
    """An integer convolution whose results have no place yet.

    Attributes:
        step: its kernel call.
        steps: what a sum of 1 stands for, for each filter.
        low, high: bounds of what the results stand for.
        first: bounds before the other summand is added.
        added: what the bytes of the other summand stand for.
    """

    step: Step
    steps: np.ndarray
    low: float = -math.inf
    high: float = math.inf
    first: tuple[float, float] = (-math.inf, math.inf)
    added: Codes | None = None

    def bound(self, low: float, high: float) -> None:
        """Bound the results further."""
        self.low, self.high = max(self.low, low), min(max(self.high, low), high)

    def add(self, codes: Codes) -> None:
        """Add another summand to what is bounded so far."""
        self.first, self.added = (self.low, self.high), codes
        self.low, self.high = -math.inf, math.inf


@dataclass
class IntegerBuilder(Builder):
    """The program of an int8 file.

    A tensor may have a place as bytes, as floats, or both; what the second place holds is computed
    when an operator asks for it. The result of an integer convolution gets its place when the first
    operator asks: until then that operator may be taken in.
    """

    quantised: Quantised = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.open: dict[str, Sums] = {}
        """Tensor → the convolution that computes it, which has no place yet."""
        self._closed: dict[str, Sums] = {}
        self._stored: dict[str, Stored] = {}
        self._pairs: dict[str, Call] = {}
        roundings = (call for call in self.network.calls if call.results[0] in self.quantised.codes)
        self._rounding = {call.operands[0]: call.results[0] for call in roundings}
        self.quads: dict[tuple[str, tuple[int, int, int]], str] = {}
        """Planes and their form → the buffer that has them in quads (quads.py)."""

    def buffer(self, name: str) -> str:
        """Return the buffer of a tensor's floats, which are computed if it has only bytes."""
        if name not in self._buffers:
            if name in self.open:
                self._close_as_floats(name)
            elif name in self._stored:
                self._unrounded(name)
            elif name in self._pairs:
                bounded(self, self._pairs[name])
        return super().buffer(name)

    def bytes_of(self, name: str) -> Stored | None:
        """Return the bytes of a tensor, which are computed if it has only floats.

        None if the file does not round it, or it has no planes.
        """
        if name not in self._stored and name in self._pairs:
            self._rounded(name)
        return self._stored.get(name)

    def store(self, name: str, codes: Codes) -> Stored:
        """Allocate and return the bytes of a tensor."""
        layout = stored_layout(self.layout(name))
        assert layout is not None
        stored = Stored(f"{name} as bytes", layout, codes)
        self.sizes[stored.buffer] = layout.floats
        self._stored[name] = stored
        return stored

    def pair(self, call: Call) -> None:
        """Append the rounding of a tensor to bytes: of a convolution's sums, or when it is read."""
        name, source = call.results[0], call.operands[0]
        codes, known = self.quantised.codes[name], self._stored.get(source)
        if source in self.open and self.once(source):
            self._close(name, self.open.pop(source), codes)
        elif known is not None and known.codes == codes:
            self._stored[name] = known
        elif stored_layout(self.layout(name)) is None or source not in self.network.shapes:
            bounded(self, call)
        else:
            self._pairs[name] = call

    def made_of(self, name: str) -> Codes | None:
        """Return the bytes that a tensor is rounded to, if nothing else reads it."""
        rounded = self._rounding.get(name)
        return self.quantised.codes[rounded] if rounded and self.once(name) else None

    def rename(self, name: str, result: str) -> bool:
        """Let a row of sums that has no place yet stand for another shape; return whether it
        could.
        """
        rows = [row_layout(self.layout(each)) for each in (name, result)]
        if name not in self.open or not self.once(name) or None in rows:
            return False
        self.open[result] = self.open.pop(name)
        self.open[result].step.makes = result
        return True

    def reopened(self, name: str) -> Sums | None:
        """Return the convolution that computes a tensor, if nothing else reads the tensor."""
        if not self.once(name):
            return None
        return self.open.get(name) or self._closed.get(name)

    def take(self, name: str, result: str) -> Sums:
        """Let the convolution that computes ``name`` compute ``result``; it has no place again."""
        closed = self._closed.pop(name, None)
        sums = closed or self.open.pop(name)
        if closed:
            # The quantiser leaves out a ReLU before bytes that cannot be negative: they bound too.
            codes = self._stored.pop(name).codes
            sums.bound(-codes.zero * codes.scale, (255 - codes.zero) * codes.scale)
        self.open[result] = sums
        sums.step.makes = result
        return sums

    def close_all(self) -> None:
        """Give a place to results that nothing reads."""
        for name in list(self.open):
            self._close_as_floats(name)

    def _close(self, name: str, sums: Sums, codes: Codes) -> None:
        """Let a convolution write bytes."""
        stored = self.store(name, codes)
        least, most = (
            int(np.clip(np.rint(np.float32(end / codes.scale)) + codes.zero, 0, 255))
            for end in (sums.low, sums.high)
        )
        out = stored.layout.fields("out", stored.buffer, codes.zero)
        scales = (sums.steps / codes.scale).astype(np.float32)
        sums.step.fields |= out | {
            "wide": 0, "inside": self._inside(name, stored.layout), "least": least, "most": most,
            "scales": self.data.add(scales), "low": 0.0, "high": 0.0,
        }  # fmt: skip
        sums.step.fields |= _summand(sums, codes.scale)
        sums.step.writes, sums.step.makes = stored.buffer, name
        self._closed[name] = sums

    def _inside(self, name: str, layout: ByteLayout) -> int:
        """Return the place of the mask of a plane's values; a row needs none."""
        return self.data.add(layout.inside) if byte_layout(self.layout(name)) else 0

    def _close_as_floats(self, name: str) -> None:
        sums, layout = self.open.pop(name), self.layout(name)
        buffer = self.new(name)
        sums.step.fields |= _floats(layout) | {
            "floats.at": Place(buffer, layout.lead),
            "wide": 1, "out.channels": layout.channels,
            "scales": self.data.add(sums.steps.astype(np.float32)), "low": sums.low,
            "high": sums.high,
        }  # fmt: skip
        sums.step.fields |= _summand(sums, 1.0)
        sums.step.writes, sums.step.makes = buffer, name

    def _exchange(self, name: str, stored: Stored) -> Fields:
        fields = _floats(self.layout(name)) | {"scale": stored.codes.scale}
        return fields | stored.layout.fields("bytes", stored.buffer, stored.codes.zero)

    def _rounded(self, name: str) -> None:
        """Append the rounding of a tensor's floats."""
        call = self._pairs[name]
        source = call.operands[0]
        given = self.buffer(source)
        stored = self.store(name, self.quantised.codes[name])
        fields = self._exchange(name, stored)
        fields["floats.at"] = Place(given, self.layout(source).lead)
        self.makers.pop(source, None)  # Nothing more is fused into what was rounded.
        code = "pn_rounded(&S, w);"
        self.add(code, "pn_exchange", fields, [given], stored.buffer, call.name)

    def _unrounded(self, name: str) -> None:
        """Append the floats of a tensor of bytes."""
        stored, made = self._stored[name], self.new(name)
        self._closed.pop(name, None)
        fields = self._exchange(name, stored)
        fields["floats.at"] = Place(made, self.layout(name).lead)
        self.add("pn_unrounded(&S, w);", "pn_exchange", fields, [stored.buffer], made, name)


def _floats(layout: Layout) -> Fields:
    """Return struct pn_planes as fields of another struct, without its place; a row is a plane."""
    keys = ("lead", "channels", "plane", "height", "width", "stride")
    return {f"floats.{key}": getattr(layout, key) for key in keys}


def _summand(sums: Sums, step: float) -> Fields:
    """Return scale of the other summand, and the bounds before it, in steps of the output."""
    if sums.added is None:
        return {"residual_scale": 0.0}
    first = {f"first_{end}": x / step for end, x in zip(("low", "high"), sums.first, strict=True)}
    return {"residual_scale": sums.added.scale / step, **first}


def integer_builder(quantised: Quantised) -> IntegerBuilder:
    """Return the empty program of an int8 file."""
    network = quantised.network
    return IntegerBuilder(network, borders(network), quantised=quantised)


def pooled_bytes(builder: IntegerBuilder, call: Call) -> bool:
    """Append ``MaxPool`` of bytes; return whether it could."""
    name, source = call.results[0], call.operands[0]
    several = len(call.results) > 1 and call.results[1]
    if several or call.text("auto_pad", "NOTSET") != "NOTSET" or not _planes(builder, call):
        return False
    read = builder.bytes_of(source)
    if read is None:
        return False
    made = builder.store(name, read.codes)
    kernel = call.numbers("kernel_shape", ())
    count = len(kernel)
    steps, gaps = (call.numbers(key, (1,) * count) for key in ("strides", "dilations"))
    fields = read.layout.fields("in", read.buffer, read.codes.zero)
    fields |= made.layout.fields("out", made.buffer, read.codes.zero)
    rows, columns = _by_axis(kernel, steps, gaps, call.numbers("pads", (0,) * 2 * count))
    for axis, own in (("y", rows), ("x", columns)):
        named = zip(("kernel", "step", "gap"), own[:3], strict=True)
        fields |= {f"{key}_{axis}": number for key, number in named}
    fields |= {"top": rows[3], "left": columns[3]}
    side, step, gap, left = columns
    reached = max(left + read.layout.width, (made.layout.width - 1) * step + (side - 1) * gap + 1)
    room = whole_lines(reached) + 128
    line = builder.scratch(in_floats(2 * room))
    fields |= {"line": Place(line), "room": room}
    reads = [read.buffer, line]
    builder.add("q->largest(&S, w);", "pn_byte_pool", fields, reads, made.buffer, call.name)
    return True


def _planes(builder: Builder, call: Call) -> bool:
    """Whether operand and result are planes of several positions."""
    return all(
        len(builder.shape(name)) in (3, 4) and byte_layout(builder.layout(name)) is not None
        for name in (call.operands[0], call.results[0])
    )


def _by_axis(
    kernel: tuple[int, ...], steps: tuple[int, ...], gaps: tuple[int, ...], pads: tuple[int, ...]
) -> list[tuple[int, int, int, int]]:
    """Return (size, stride, dilation, padding before) of rows and columns."""
    own = [(kernel[i], steps[i], gaps[i], pads[i]) for i in range(len(kernel))]
    return [(1, 1, 1, 0)] * (2 - len(kernel)) + own


def added(builder: IntegerBuilder, call: Call) -> bool:
    """Let the later of two convolutions add the bytes of the other summand; return whether it
    could.
    """
    name = call.results[0]
    if len(set(call.operands)) != 2 or not _planes(builder, call):
        return False
    if any(builder.shape(operand) != builder.shape(name) for operand in call.operands):
        return False
    able = [
        (builder.steps.index(sums.step), operand)
        for operand in call.operands
        if (sums := builder.reopened(operand)) is not None and sums.added is None
    ]
    if not able:
        return False
    operand = max(able)[1]
    other = next(each for each in call.operands if each != operand)
    read = builder.bytes_of(other)
    if read is None:
        return False
    sums = builder.take(operand, name)
    # To the end: the other summand must be there when the convolution runs.
    builder.steps.remove(sums.step)
    builder.steps.append(sums.step)
    sums.add(read.codes)
    sums.step.reads = (*sums.step.reads, read.buffer)
    sums.step.fields |= {
        "has_residual": 1, "residual": Place(read.buffer), "residual_zero": read.codes.zero,
        "residual_lead": read.layout.lead, "residual_plane": read.layout.plane,
    }  # fmt: skip
    return True


def bounded_sums(builder: IntegerBuilder, call: Call, low: float, high: float) -> bool:
    """Let a convolution bound its results; return whether it could."""
    source = call.operands[0]
    if builder.reopened(source) is None:
        return False
    builder.take(source, call.results[0]).bound(low, high)
    return True


def work_of(builder: Builder, call: Call, values: np.ndarray, kernel: str, stored: int) -> Work:
    """Return the work of an integer convolution, for profiles."""
    made = plane_sizes(builder.shape(call.results[0]))
    assert made is not None
    live = int(np.count_nonzero(values))
    tensors = math.prod(builder.shape(call.operands[0])) + math.prod(made)
    return Work(kernel, values.size, live, live * made[1] * made[2], stored, tensors)

"""Builder of a network's program: its data, its buffers and the kernel calls in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from prunec.deploy.native.layout import (
    RANK,
    Border,
    Layout,
    View,
    joined,
    layout_of,
    padded,
    rounded,
)
from prunec.deploy.native.packing import Rows
from prunec.deploy.native.reading import Call, Network

Value = int | float | str | tuple[int, ...]
"""A number, the name of a kernel constant, or one number per axis."""


@dataclass(frozen=True)
class Place:
    """An offset in a buffer of the workspace, in floats."""

    buffer: str
    at: int = 0


Fields = dict[str, "Value | Place | Layout | Step"]
"""Arguments of a kernel by name; a layout stands for the planes of what the call writes, a step for
the address of its arguments."""


@dataclass(frozen=True)
class Work:
    """Work of one kernel call, for profiles.

    Attributes:
        kernel: name of the kernel.
        weights: number of weights.
        live: number of nonzero weights.
        products: multiply-adds with nonzero weights, per sample.
        stored: bytes of the weights as stored.
        tensors: bytes of input and output.
    """

    kernel: str
    weights: int
    live: int
    products: int
    stored: int
    tensors: int


@dataclass(eq=False)
class Step:
    """One call of a kernel.

    Attributes:
        code: the call in C, with ``&S`` for its arguments.
        struct: C type of its arguments; empty if it has none.
        fields: the arguments by name.
        reads: buffers that it reads.
        writes: the buffer that it writes, in whole or in part.
        layer: node that it stems from, for comments in the source.
        work: its work, if it has weights.
        makes: the tensor that it ends in, with the operators fused into it.
    """

    code: str
    struct: str
    fields: Fields
    reads: tuple[str, ...]
    writes: str
    layer: str
    work: Work | None = None
    makes: str = ""


class Data:
    """Weights and tables, without duplicates, aligned to 64 bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._size = 0

    def add(self, values: np.ndarray) -> int:
        """Return the offset of an array, in floats; equal bytes are stored once."""
        data = np.ascontiguousarray(values).tobytes()
        if data not in self._places:
            self._places[data] = self._size // 4
            # Filled up to 64 bytes: every array begins a cache line.
            self._parts.append(data + bytes(-len(data) % 64))
            self._size += len(self._parts[-1])
        return self._places[data]

    @property
    def bytes(self) -> bytes:
        """All data in order."""
        return b"".join(self._parts)


@dataclass
class Builder:
    """The program under construction."""

    network: Network
    borders: Mapping[tuple[int, int], Border]
    steps: list[Step] = field(default_factory=list)
    data: Data = field(default_factory=Data)
    sizes: dict[str, int] = field(default_factory=dict)
    """Buffer → floats."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Tensor → the kernel that shall compute it, where it can."""
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensor → the kernel that computes it, then the others that could."""
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Tensor → numbers of the first step of its operator, and of the first behind."""

    definitions: dict[str, int] = field(default_factory=dict)
    """Macro that the kernels read → its value."""

    def __post_init__(self) -> None:
        named = (name for call in self.network.calls for name in call.operands)
        self._uses = Counter((*named, *self.network.outputs))
        self._buffers: dict[str, str] = {}
        self._layouts: dict[str, Layout] = {}
        self.makers: dict[str, Step] = {}
        """Tensor → the convolution or linear step that computes it, as long as it can
        take in others."""

    def choose(self, name: str, own: str, fits: Sequence[str]) -> str:
        """Return the kernel that computes a tensor: the one chosen for it, else its own."""
        kernel = self.chosen.get(name, own)
        kernel = kernel if kernel in fits else own
        self.choices[name] = (kernel, *(other for other in fits if other != kernel))
        return kernel

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        known = self.network.constants.get(name)
        return known.shape if known is not None else self.network.shapes[name]

    def constant(self, call: Call, place: int) -> np.ndarray | None:
        """Return the values of a constant operand; None if it is left out.

        Raises:
            PassError: the operand is computed.
        """
        if place >= len(call.operands) or not call.operands[place]:
            return None
        known = self.network.constants.get(call.operands[place])
        if known is None:
            raise call.refuse(f"with a computed operand {call.operands[place]!r}")
        return known

    def layout(self, name: str) -> Layout:
        """Return the layout of a tensor."""
        if name not in self._layouts:
            self._layouts[name] = layout_of(self.shape(name), self.borders)
        return self._layouts[name]

    def introduce(self, name: str, layout: Layout) -> None:
        """Add a tensor that the graph does not have, with its layout."""
        self._layouts[name] = layout

    def once(self, name: str) -> bool:
        """Whether exactly one operator reads a tensor and it is not an output."""
        return self._uses[name] == 1

    def unread(self, name: str) -> bool:
        """Whether nothing reads a tensor."""
        return not name or not self._uses[name]

    def new(self, name: str) -> str:
        """Allocate and return the buffer of a tensor."""
        self._buffers[name] = name
        self.sizes[name] = self.layout(name).total
        return name

    def scratch(self, size: int) -> str:
        """Allocate and return a buffer of ``size`` floats."""
        name = f"scratch {len(self.sizes)}"
        self.sizes[name] = size
        return name

    def share(self, name: str, other: str) -> None:
        """Give a tensor the buffer of another one with the same contiguous values."""
        self._buffers[name] = self.buffer(other)
        # Nothing more is fused into the step, unless the caller makes it a maker again.
        step = self.makers.pop(other, None)
        if step is not None:
            step.makes = name

    def buffer(self, name: str) -> str:
        """Return the buffer of a tensor; a constant is copied into one first."""
        if name not in self._buffers:
            self._load(name)
        return self._buffers[name]

    def stored(self, values: np.ndarray) -> str:
        """Append a copy of constants into a new contiguous buffer; return it."""
        buffer, count = self.scratch(rounded(values.size)), (1,) * (RANK - 1) + (values.size,)
        steps = (0,) * (RANK - 1) + (1,)
        fields: Fields = {
            "a": self.data.add(values.astype(np.float32)), "out": Place(buffer), "sizes": count,
            "a_steps": steps, "out_steps": steps,
        }  # fmt: skip
        self.add("pn_of_each(&S, d, w);", "pn_walk", fields, (), buffer, "numbers")
        return buffer

    def rows(self, rows: Rows, layer: str) -> tuple[Fields, list[str]]:
        """Store weights without zeros; halves are widened into a buffer of the workspace.

        Args:
            rows: the weights.
            layer: the layer that reads them.

        Returns:
            The arguments of a kernel (struct pn_weights), and the buffers that it reads.
        """
        parts = ("starts", "counts", "places", "values")
        fields: Fields = {f"weights.{name}": self.data.add(getattr(rows, name)) for name in parts}
        fields["weights.far"] = int(rows.places.dtype == np.uint16)
        place, reads = self.floats(rows.values, layer)
        return fields | {"weights.values": place, "weights.widened": len(reads)}, reads

    def floats(self, values: np.ndarray, layer: str) -> tuple[int | Place, list[str]]:
        """Store weights; halves are widened into a buffer of the workspace.

        Returns:
            The place of the floats: in the data, or in the buffer that is returned too.
        """
        stored = self.data.add(values)
        if values.dtype != np.float16:
            return stored, []
        buffer = self.scratch(rounded(values.size))
        given: Fields = {"from": stored, "to": Place(buffer), "count": values.size}
        self.add("k->widen(&S, w, d);", "pn_widen", given, (), buffer, layer)
        return Place(buffer), [buffer]

    def _load(self, name: str) -> None:
        values = self.network.constants[name]
        stored = self.data.add(values.astype(np.float32))
        sizes, (out, steps) = joined(values.shape, (self.layout(name).steps, _dense(values.shape)))
        shape, out = padded(sizes, out)
        self.add(
            "pn_of_each(&S, d, w);",
            "pn_walk",
            {"a": stored, "out": Place(self.new(name), self.layout(name).lead), "sizes": shape,
             "a_steps": padded(sizes, steps)[1], "out_steps": out},
            (), name, f"constant {name}",
        )  # fmt: skip
        self.clean(name)

    def add(
        self,
        code: str,
        struct: str,
        fields: Fields,
        reads: Sequence[str],
        writes: str,
        layer: str,
    ) -> Step:
        """Append and return a call that reads buffers and writes one."""
        step = Step(code, struct, fields, tuple(reads), writes, layer)
        self.steps.append(step)
        return step

    def clean(self, name: str) -> None:
        """Append zeroing of the border of a tensor, if it has one."""
        layout, buffer = self.layout(name), self.buffer(name)
        if layout.bordered:
            fields: Fields = {"": layout, "at": Place(buffer)}
            self.add("pn_clean_all(&S, w);", "pn_planes", fields, (buffer,), buffer, "borders")

    def walk(
        self,
        call: Call,
        operation: str,
        operands: Sequence[tuple[str, View]],
        out: tuple[str, View],
        numbers: tuple[float, float] = (0.0, 0.0),
    ) -> Step:
        """Append an element-wise operator of one or two strided operands.

        Args:
            call: the node.
            operation: name of the operation in the kernels.
            operands: buffer and view of each, with the sizes of the output.
            out: buffer and view of the output.
            numbers: alpha and beta.

        Raises:
            PassError: more than RANK axes remain.
        """
        views = [view for _, view in (*operands, out)]
        sizes, steps = joined(out[1].sizes, [view.steps for view in views])
        if len(sizes) > RANK:
            raise call.refuse(f"of {len(sizes)} axes that cannot be merged")
        fields: Fields = {"sizes": padded(sizes, steps[0])[0]}
        entries = zip(("a", "b")[: len(operands)], operands, steps, strict=False)
        for key, (buffer, view), own in (*entries, ("out", out, steps[-1])):
            fields[key] = Place(buffer, view.at)
            fields[f"{key}_steps"] = padded(sizes, own)[1]
        fields |= {"operation": operation, "alpha": numbers[0], "beta": numbers[1]}
        code = "pn_of_each(&S, w, w);" if len(operands) == 1 else "pn_of_pairs(&S, w);"
        reads = [buffer for buffer, _ in operands]
        return self.add(code, "pn_walk", fields, reads, out[0], call.name)

    def move(self, call: Call, source: tuple[str, View], out: tuple[str, View]) -> None:
        """Append a copy of values between views of the same sizes."""
        self.walk(call, "PN_MOVE", [source], out)

    def repeated(self, name: str, result: str) -> tuple[str, View]:
        """Return buffer and view of a tensor broadcast to the shape of another one."""
        buffer, view = self.values(name)
        sizes = self.shape(result)
        missing = len(sizes) - len(view.sizes)
        steps = (0,) * missing + tuple(
            0 if size == 1 else step for size, step in zip(view.sizes, view.steps, strict=True)
        )
        return buffer, View(sizes, steps, view.at)

    def values(self, name: str) -> tuple[str, View]:
        """Return buffer and view of a tensor."""
        return self.buffer(name), self.layout(name).view


def _dense(sizes: Sequence[int]) -> tuple[int, ...]:
    steps, count = [], 1
    for size in reversed(sizes):
        steps.append(count)
        count *= size
    return tuple(reversed(steps))

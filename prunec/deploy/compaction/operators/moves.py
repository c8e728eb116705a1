"""Operators that move values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prunec.deploy.compaction.reading import Call
from prunec.graph.capture.node import Node

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
_LAST = 1 << 62  # larger ends mean the end of the axis


def reshape(call: Call) -> Node | None:
    """Translate a reshape to sizes that are stored or computed from shapes."""
    sizes = call.value(1).array
    if sizes is None or (call.attribute("allowzero", 0) and not sizes.all()):
        return None
    return call.call("reshape", {"self": call.node(0), "shape": list(call.made.shape)})


def expand(call: Call) -> Node | None:
    """Translate a repetition along axes of size 1 that keeps the rank."""
    sizes, rank = call.value(1).array, len(call.made.shape)
    if sizes is None or sizes.size != rank or len(call.value(0).shape) != rank:
        return None
    return call.call("expand", {"self": call.node(0), "size": list(call.made.shape)})


def view(call: Call) -> Node | None:
    """Translate Flatten, Squeeze and Unsqueeze; the analyses take the shape from the output."""
    names = {"Flatten": "flatten", "Squeeze": "squeeze", "Unsqueeze": "unsqueeze"}
    return call.call(names[call.proto.op_type], {"self": call.node(0)})


def transpose(call: Call) -> Node | None:
    """Translate a permutation of axes."""
    order = list(call.attribute("perm") or reversed(range(len(call.made.shape))))
    return call.call("permute", {"self": call.node(0), "dims": order}, torch.permute)


def concat(call: Call) -> Node | None:
    """Translate a concatenation along an axis."""
    axis = int(call.attribute("axis", 1))
    parts = [call.node(index) for index in range(len(call.proto.input))]
    return call.call("cat", {"tensors": parts, "dim": axis}, torch.cat)


def split(call: Call) -> Node | None:
    """Translate a split along an axis."""
    axis = int(call.attribute("axis", 0))
    values = [call.reading.observed.values.get(name) for name in call.proto.output]
    if len(values) < 2 or any(value is None for value in values):
        return None
    if call.has(1) and not call.is_constant(1):
        return None
    sizes = [value.shape[axis] for value in values if value is not None]
    named = {"self": call.node(0), "split_sizes": sizes, "dim": axis}
    return call.call("split_with_sizes", named, torch.split)


def cut(call: Call) -> Node | None:
    """Translate a forward Slice along one axis, or along axes of positions."""
    parts = _slices(call)
    if parts is None or any(step < 1 for *_, step in parts):
        return None
    size = call.value(0).shape
    # Slices of a whole axis do nothing.
    parts = [p for p in parts if p[1] != 0 or p[2] < size[p[0]] or p[3] != 1]
    if len(parts) == 1:
        axis, start, end, step = parts[0]
        named = {"self": call.node(0), "dim": axis, "start": start, "end": end, "step": step}
        return call.call("slice", named, torch.ops.aten.slice.Tensor)
    if any(axis == 1 for axis, *_ in parts):
        return None

    def compute(x: Tensor, dim: list[int]) -> Tensor:
        for axis, start, end, step in parts:
            x = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
        return x

    if not parts:
        return call.call("clone", {"self": call.node(0)})
    return call.call("slice", {"self": call.node(0), "dim": [p[0] for p in parts]}, compute)


def _slices(call: Call) -> list[tuple[int, int, int, int]] | None:
    """Return (axis, start, end, step) of each sliced axis; None if they are computed."""
    starts, ends = call.numbers(1, "starts"), call.numbers(2, "ends")
    axes, steps = call.numbers(3, "axes"), call.numbers(4, "steps")
    if starts is None or ends is None:
        return None
    if (axes is None and call.has(3)) or (steps is None and call.has(4)):
        return None
    rank = len(call.value(0).shape)
    axes = [int(a) % rank for a in axes] if axes else list(range(len(starts)))
    steps = [int(s) for s in steps] if steps else [1] * len(starts)
    limits = [(int(a), min(int(b), _LAST)) for a, b in zip(starts, ends, strict=True)]
    return [(a, *limit, s) for a, limit, s in zip(axes, limits, steps, strict=True)]


def gather(call: Call) -> Node | None:
    """Translate a selection of positions along an axis by stored indices."""
    if call.is_constant(0) or not call.is_constant(1) or len(call.value(1).shape) > 1:
        return None
    axis, size = int(call.attribute("axis", 0)), call.value(0).shape
    index = [int(i) % size[axis] for i in call.numbers(1) or []]
    if not call.value(1).shape:
        named = {"self": call.node(0), "dim": axis, "index": index[0]}
        return call.call("select", named, torch.select)

    def compute(x: Tensor, dim: int) -> Tensor:
        return x.index_select(dim, torch.tensor(index))

    return call.call("index_select", {"self": call.node(0), "dim": axis}, compute)


def pad(call: Call) -> Node | None:
    """Translate a padding of positions or channels."""
    widths, mode = call.numbers(1, "pads"), call.attribute("mode", "constant")
    value = call.numbers(2, "value")
    if widths is None or mode not in _MODES or call.has(3) or (call.has(2) and value is None):
        return None
    rank = len(widths) // 2
    turned = [int(w) for i in reversed(range(rank)) for w in (widths[i], widths[rank + i])]
    number = float(value[0]) if value else 0.0
    named = {"self": call.node(0), "pad": turned, "mode": _MODES[mode], "value": number}
    return call.call("pad", named)


TRANSLATIONS: Mapping[str, Callable[[Call], Node | None]] = {
    "Reshape": reshape, "Expand": expand, "Flatten": view, "Squeeze": view, "Unsqueeze": view,
    "Transpose": transpose, "Concat": concat, "Split": split, "Slice": cut, "Gather": gather,
    "Pad": pad,
}  # fmt: skip

"""Writes of one tensor into positions of another, as a concatenation and an index.

``slice_scatter`` and similar operators put one tensor in place of some positions of another. If the
positions are fixed, the result is a selection from the concatenation of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from prunec.graph.capture.aten import arguments, op_name
from prunec.graph.capture.form import form_of, shape_of

aten = torch.ops.aten

_END = 2**63 - 1  # ATen's end of a slice without one
_COPIES = frozenset("alias lift_fresh_copy clone detach".split())
_RESHAPES = _COPIES | {"view", "reshape", "unsqueeze"}


def slice_scatter(graph: Graph, node: Node) -> Node | None:
    """Write a tensor in place of a slice of another."""
    named = arguments(node)
    into, part, axis, size = _read(node, named)
    if (named["start"] or 0, named["end"], named["step"]) == (0, _END, 1):
        return graph.call_function(aten.alias.default, (part,))
    if size is None or not _numbers(named["start"], named["end"], named["step"]):
        return None
    places = torch.arange(size)[named["start"] : named["end"] : named["step"]]
    return _placed(graph, into, part, axis, size, places)


def select_scatter(graph: Graph, node: Node) -> Node | None:
    """Write a tensor in place of one position of another."""
    named = arguments(node)
    into, part, axis, size = _read(node, named)
    if size is None or not _numbers(named["index"]):
        return None
    part = graph.call_function(aten.unsqueeze.default, (part, axis))
    return _placed(graph, into, part, axis, size, torch.tensor([named["index"] % size]))


def index_copy(graph: Graph, node: Node) -> Node | None:
    """Write a tensor in place of positions of another, given by index."""
    named = arguments(node)
    into, part, axis, size = _read(node, named, "source")
    places = _fixed(named["index"])
    if size is None or places is None:
        return None
    return _placed(graph, into, part, axis, size, places.reshape(-1))


def index_put(graph: Graph, node: Node) -> Node | None:
    """Write an assignment ``x[:, index] = values`` that indexes one axis."""
    named = arguments(node)
    listed = [(axis, index) for axis, index in enumerate(named["indices"]) if index is not None]
    into, part = named["self"], named["values"]
    if named["accumulate"] or len(listed) != 1 or not isinstance(part, Node):
        return None
    (axis, index), form, rank = listed[0], form_of(part), len(shape_of(into))
    places, size = _fixed(index), shape_of(into)[axis]
    whole = form is not None and len(form.shape) == rank
    if places is None or places.dim() != 1 or not whole or not isinstance(size, int):
        return None
    if shape_of(part)[axis] != len(places) or places.dtype == torch.bool:
        return None
    return _placed(graph, into, part, axis, size, places % size)


def scatter(graph: Graph, node: Node) -> Node | None:
    """Write a scatter whose index is constant along all other axes."""
    named = arguments(node)
    into, part, axis, size = _read(node, named)
    places = _repeated(named["index"], axis)
    if size is None or places is None or not isinstance(part, Node) or named.get("reduce"):
        return None
    if shape_of(named["index"]) != shape_of(part):
        return None
    others = [n for i, n in enumerate(shape_of(part)) if i != axis]
    if others != [n for i, n in enumerate(shape_of(into)) if i != axis]:
        return None
    return _placed(graph, into, part, axis, size, places)


def gather(graph: Graph, node: Node) -> Node | None:
    """Write a gather whose index is constant along all other axes, as an index_select."""
    named = arguments(node)
    source, axis = named["self"], int(named["dim"]) % len(shape_of(named["self"]))
    places = _repeated(named["index"], axis)
    others = [n for i, n in enumerate(shape_of(named["index"])) if i != axis]
    if places is None or others != [n for i, n in enumerate(shape_of(source)) if i != axis]:
        return None
    return graph.call_function(
        aten.index_select.default, (source, axis, _stored(graph, places, "places", source))
    )


def take_along_dim(graph: Graph, node: Node) -> Node | None:
    """Write a take_along_dim whose index has size 1 along all other axes."""
    named = arguments(node)
    if named["dim"] is None:
        return None
    source, axis = named["self"], int(named["dim"]) % len(shape_of(named["self"]))
    numbers = shape_of(named["indices"])
    places = _repeated(named["indices"], axis) if len(numbers) == len(shape_of(source)) else None
    if places is None or any(n != 1 for i, n in enumerate(numbers) if i != axis):
        return None
    return graph.call_function(
        aten.index_select.default, (source, axis, _stored(graph, places, "places", source))
    )


def index_add(graph: Graph, node: Node) -> Node | None:
    """Write a tensor added to positions of another, given by index."""
    named = arguments(node)
    into, part, axis, size = _read(node, named, "source")
    places = _fixed(named["index"])
    if size is None or places is None:
        return None
    return _added(graph, into, part, axis, size, places.reshape(-1), named["alpha"])


def scatter_add(graph: Graph, node: Node) -> Node | None:
    """Write a scatter_add whose index is constant along all other axes."""
    named = arguments(node)
    into, part, axis, size = _read(node, named)
    places = _repeated(named["index"], axis)
    if size is None or places is None or shape_of(named["index"]) != shape_of(part):
        return None
    return _added(graph, into, part, axis, size, places, 1)


def index_fill(graph: Graph, node: Node) -> Node | None:
    """Write a number at positions along an axis, as a masked_fill."""
    named = arguments(node)
    source, places = named["self"], _fixed(named["index"])
    axis = int(named["dim"]) % len(shape_of(source))
    size = shape_of(source)[axis]
    if places is None or not isinstance(size, int) or isinstance(named["value"], Node):
        return None
    flags = torch.zeros(size, dtype=torch.bool)
    flags[places] = True
    flags = flags.reshape([-1 if i == axis else 1 for i in range(len(shape_of(source)))])
    marked = _stored(graph, flags, "filled", source)
    return graph.call_function(aten.masked_fill.Scalar, (source, marked, named["value"]))


def copy(graph: Graph, node: Node) -> Node | None:
    """Write a copy into another tensor as its source, expanded to the shape."""
    named = arguments(node)
    form, into = form_of(named["src"]), form_of(named["self"])
    if form is None or into is None or form.dtype != into.dtype:
        return None
    if form.shape == into.shape:
        return graph.call_function(aten.alias.default, (named["src"],))
    return graph.call_function(aten.expand_as.default, (named["src"], named["self"]))


def diff(graph: Graph, node: Node) -> Node | None:
    """Write the differences of neighbours along an axis."""
    named = arguments(node)
    source, extra = named["self"], (named["prepend"], named["append"])
    axis = int(named["dim"]) % len(shape_of(source))
    size = shape_of(source)[axis]
    if named["n"] != 1 or extra != (None, None) or not isinstance(size, int):
        return None
    later = graph.call_function(aten.slice.Tensor, (source, axis, 1, size))
    earlier = graph.call_function(aten.slice.Tensor, (source, axis, 0, size - 1))
    return graph.call_function(aten.sub.Tensor, (later, earlier))


PLACEMENTS: Mapping[str, Callable[[Graph, Node], Node | None]] = {
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    "index_copy": index_copy,
    "index_put": index_put,
    "scatter": scatter,
    "gather": gather,
    "take_along_dim": take_along_dim,
    "index_add": index_add,
    "scatter_add": scatter_add,
    "index_fill": index_fill,
    "copy": copy,
    "diff": diff,
}


def _read(
    node: Node, named: Mapping[str, Any], part: str = "src"
) -> tuple[Any, Any, int, int | None]:
    """Return the written-into tensor, the written one, the axis, and its size (None if not
    fixed).
    """
    into = named["self"]
    axis = int(named["dim"]) % len(shape_of(into))
    size = shape_of(into)[axis]
    fits = isinstance(named.get(part), Node) and form_of(named[part]) is not None
    return into, named.get(part), axis, size if isinstance(size, int) and fits else None


def _numbers(*values: object) -> bool:
    return all(value is None or isinstance(value, int) for value in values)


def _placed(
    graph: Graph, into: Any, part: Any, axis: int, size: int, places: Tensor
) -> Node | None:
    """Write a selection from a tensor and one put at ``places``; None if a place repeats."""
    # With a repeated place the last write wins, which a selection cannot express.
    if len(set(places.tolist())) != len(places):
        return None
    # Positions of the first tensor, then of the second, in their concatenation.
    choice = torch.arange(size)
    choice[places] = size + torch.arange(len(places))
    both = graph.call_function(aten.cat.default, ([into, part], axis))
    return graph.call_function(
        aten.index_select.default, (both, axis, _stored(graph, choice, "placed", into))
    )


def _added(
    graph: Graph, into: Any, part: Any, axis: int, size: int, places: Tensor, factor: Any
) -> Node | None:
    """Write a tensor with another added at ``places``; None if a place repeats."""
    others = [[n for i, n in enumerate(shape_of(x)) if i != axis] for x in (into, part)]
    if len(set(places.tolist())) != len(places) or others[0] != others[1]:
        return None
    stored = _stored(graph, places, "places", into)
    picked = graph.call_function(aten.index_select.default, (into, axis, stored))
    total = graph.call_function(aten.add.Tensor, (picked, part), {"alpha": factor})
    return _placed(graph, into, total, axis, size, places)


def _stored(graph: Graph, value: Tensor, name: str, beside: object) -> Node:
    """Return a node of a tensor stored in the graph, on the device of ``beside``.

    Not persistent: it is not part of the network's state.
    """
    module, form = graph.owning_module, form_of(beside)
    assert module is not None
    assert form is not None
    number = 0
    while hasattr(module, f"{name}_{number}"):
        number += 1
    module.register_buffer(f"{name}_{number}", value.to(form.device), persistent=False)
    return graph.get_attr(f"{name}_{number}")


def _fixed(index: object) -> Tensor | None:
    """Return the stored integers that a node stands for; None if it is not stored."""
    while isinstance(index, Node) and op_name(index) in _COPIES:
        index = index.args[0]
    if not isinstance(index, Node) or index.op != "get_attr":
        return None
    module: GraphModule | None = index.graph.owning_module
    value: object = module
    for name in str(index.target).split("."):
        value = getattr(value, name)
    fits = isinstance(value, Tensor) and not value.is_floating_point()
    return value.cpu() if fits else None  # type: ignore[attr-defined]


def _repeated(index: object, axis: int) -> Tensor | None:
    """Return stored integers along one axis that are expanded along all others."""
    size = shape_of(index)[axis]
    if isinstance(index, Node) and op_name(index) == "expand":
        before = shape_of(index.args[0])
        place = axis - len(shape_of(index)) + len(before)
        if place < 0 or before[place] != size:
            return None
        index = index.args[0]
    while isinstance(index, Node) and _count(index) == size and op_name(index) in _RESHAPES:
        index = index.args[0]
    places = _fixed(index)
    return None if places is None or places.numel() != size else places.reshape(-1)


def _count(index: Node) -> int:
    """Return the number of elements of a node; 0 if it depends on the batch."""
    return math.prod(n if isinstance(n, int) else 0 for n in shape_of(index))

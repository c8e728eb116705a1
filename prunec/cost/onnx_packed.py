"""Weights that stand in an ONNX file without their zeros, put together by standard operators.

A packed tensor of n values, k of which are stored, is four stored tensors and six operators::

    gaps [k] u8|u16 ─ Cast ─ CumSum ──┐
    values [k] ─ (Cast if halves) ────┤
    count [1] ─ ConstantOfShape ── ScatterElements ─ Reshape(shape) ─▶ the weight, under its name

``gaps`` are the distances between stored values, the first one's from the start. Where zeros go on
for longer than a gap can say, a zero is stored in between. Nothing depends on an input, so runtimes
work it out once, when they load the file.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from prunec.errors import PrunecError

OLDEST_OPSET = 11
"""The first opset that has CumSum and ScatterElements."""
LARGEST = 2**31
"""Bytes that all packed weights of a file may take: more than a file could hold without packing."""
_AXIS = "packed_axis"
_GAPS = frozenset({TensorProto.UINT8, TensorProto.UINT16})


@dataclass(frozen=True)
class Packed:
    """A tensor without its zeros.

    Attributes:
        values: those that are stored, [k].
        gaps: the distance of each from the one before, the first one's from the start, [k].
        shape: of the tensor.
    """

    values: np.ndarray
    gaps: np.ndarray
    shape: tuple[int, ...]


def pack(array: np.ndarray, gap: type[np.unsignedinteger]) -> Packed:
    """Leave the zeros out of an array, bit for bit: −0 is none of them.

    Args:
        array: of at least one value.
        gap: type of the gaps.
    """
    flat = array.reshape(-1)
    most = int(np.iinfo(gap).max)
    places = np.flatnonzero(flat.view(f"u{array.itemsize}"))
    steps = np.diff(places, prepend=0)
    fillers = np.maximum(steps - 1, 0) // most  # each of them `most` further
    if not len(places):
        return Packed(flat[:1].copy(), np.zeros(1, gap), array.shape)
    ends = np.cumsum(fillers + 1) - 1
    gaps = np.full(int(ends[-1]) + 1, most, np.int64)
    gaps[ends] = steps - fillers * most
    values = np.zeros(len(gaps), array.dtype)
    values[ends] = flat[places]
    return Packed(values, gaps.astype(gap), array.shape)


def unpack(packed: Packed) -> np.ndarray:
    """Return the array of a packed tensor.

    Raises:
        ValueError: a value lies outside it, or two lie at one place.
    """
    size = math.prod(packed.shape)
    places = np.cumsum(packed.gaps, dtype=np.int64)
    if packed.values.shape != packed.gaps.shape or packed.values.ndim != 1:
        raise ValueError(f"it has {packed.values.size} values and {packed.gaps.size} gaps")
    if (packed.gaps[1:] == 0).any():
        raise ValueError("two of its values lie at one place")
    if len(places) and places[-1] >= size:
        raise ValueError(f"a value lies at {places[-1]:,}, and it has {size:,}")
    flat = np.zeros(size, packed.values.dtype)
    flat[places] = packed.values
    return flat.reshape(packed.shape)


def packed_nodes(
    name: str, packed: Packed, dtype: int, number: int
) -> tuple[list[TensorProto], list[NodeProto]]:
    """Return what a packed tensor is in a file: stored tensors, its values first, and operators.

    Args:
        name: of the tensor.
        packed: its values may be halves of a tensor of another type.
        dtype: ONNX's number of the tensor's type.
        number: tells the names of several packed tensors apart.
    """
    halves = helper.np_dtype_to_tensor_dtype(packed.values.dtype) != dtype
    v, g, n, d, a, b, c, e, f = (f"p{number}{letter}" for letter in "vgndabcef")
    size = np.array([math.prod(packed.shape)], np.int64)
    stored = [
        numpy_helper.from_array(packed.values, v),
        numpy_helper.from_array(packed.gaps, g),
        numpy_helper.from_array(size, n),
        numpy_helper.from_array(np.array(packed.shape, np.int64), d),
    ]
    zero = helper.make_tensor("", dtype, [1], [0])
    fill = {} if dtype == TensorProto.FLOAT else {"value": zero}
    nodes = [
        helper.make_node("Cast", [g], [a], to=TensorProto.INT64),
        helper.make_node("CumSum", [a, _AXIS], [b]),
        helper.make_node("ConstantOfShape", [n], [c], **fill),
        *([helper.make_node("Cast", [v], [e], to=dtype)] if halves else []),
        helper.make_node("ScatterElements", [c, b, e if halves else v], [f]),
        helper.make_node("Reshape", [f, d], [name]),
    ]
    return stored, nodes


def axis_of_sums() -> TensorProto:
    """Return the stored tensor that all packed tensors of a file share."""
    return numpy_helper.from_array(np.zeros((), np.int64), _AXIS)


def unpack_weights(model: onnx.ModelProto) -> None:
    """Put every packed tensor of a model back in place, where its values stood.

    Raises:
        PrunecError: one is damaged; names it.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    chains = {}
    for node in graph.node:
        chain = _chain(node, makers, stored) if node.op_type == "Reshape" else None
        if chain is not None:
            chains[node.output[0]] = chain
    if chains:
        _require_room([stored[chain.values] for chain in chains.values()], chains)
        for name, chain in chains.items():
            stored[chain.values].CopyFrom(_dense(name, chain, stored))
        _drop(graph, [node for chain in chains.values() for node in chain.nodes])


@dataclass(frozen=True)
class _Chain:
    """The operators of a packed tensor, the names of what they read, its shape and its type."""

    nodes: tuple[NodeProto, ...]
    values: str
    gaps: str
    shape: tuple[int, ...]
    dtype: int


def _chain(
    last: NodeProto, makers: dict[str, NodeProto], stored: dict[str, TensorProto]
) -> _Chain | None:
    """Return the operators that end in a reshape, if they are those of a packed tensor."""
    scatter = makers.get(last.input[0])
    if scatter is None or scatter.op_type != "ScatterElements" or scatter.attribute:
        return None
    fill, summed, values = (makers.get(name) for name in scatter.input)
    gaps = makers.get(summed.input[0]) if summed and summed.op_type == "CumSum" else None
    if not fill or fill.op_type != "ConstantOfShape" or not summed or summed.attribute:
        return None
    if not gaps or gaps.op_type != "Cast" or (values and values.op_type != "Cast"):
        return None
    nodes = (*(n for n in (gaps, summed, fill, values) if n), scatter, last)
    ends = [gaps.input[0], values.input[0] if values else scatter.input[2]]
    given = [*ends, summed.input[1], fill.input[0], last.input[1]]
    if any(name not in stored for name in given) or len(last.attribute):
        return None
    if stored[ends[0]].data_type not in _GAPS:
        return None
    axis, count, shape = (numpy_helper.to_array(stored[name]) for name in given[2:])
    if axis.any() or count.shape != (1,) or shape.min(initial=0) < 0:
        return None
    sizes = tuple(int(size) for size in shape)
    if math.prod(sizes) != int(count[0]):
        return None
    return _Chain(nodes, ends[1], ends[0], sizes, _type_of(fill))


def _type_of(fill: NodeProto) -> int:
    return fill.attribute[0].t.data_type if fill.attribute else int(TensorProto.FLOAT)


def _require_room(values: list[TensorProto], chains: dict[str, _Chain]) -> None:
    """Refuse what only pretends to be weights: no file could hold them."""
    needed = sum(
        math.prod(chain.shape) * helper.tensor_dtype_to_np_dtype(chain.dtype).itemsize
        for chain in chains.values()
    )
    if needed > LARGEST:
        raise PrunecError(
            f"its {len(values)} packed weights would take {needed:,} bytes; {LARGEST:,} are the "
            "most that one file holds"
        )


def _dense(name: str, chain: _Chain, stored: dict[str, TensorProto]) -> TensorProto:
    values, gaps = (numpy_helper.to_array(stored[key]) for key in (chain.values, chain.gaps))
    kind = helper.tensor_dtype_to_np_dtype(chain.dtype)
    try:
        array = unpack(Packed(values.astype(kind), gaps, chain.shape))
    except ValueError as error:
        raise PrunecError(f"the packed tensor {name} is damaged: {error}") from error
    tensor = numpy_helper.from_array(array, name)
    tensor.metadata_props.extend(stored[chain.values].metadata_props)
    return tensor


def _drop(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """Remove operators, and the stored tensors that only they read."""
    gone = {id(node) for node in nodes}
    reads = Counter(name for node in graph.node for name in node.input)
    reads.subtract(name for node in nodes for name in node.input)
    left = [node for node in graph.node if id(node) not in gone]
    read = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name not in read or reads[t.name] > 0]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(left)
    graph.initializer.extend(kept)

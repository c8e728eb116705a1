"""Packed weights: tensors stored without their zeros, restored by standard ONNX operators.

A packed tensor of n values, of which k are stored, consists of four tensors and six operators::

    gaps [k] u8|u16 ─ Cast ─ CumSum ──┐
    values [k] ─ (Cast if halves) ────┤
    count [1] ─ ConstantOfShape ── ScatterElements ─ Reshape(shape) ─▶ the weight, under its name

``gaps`` are the distances between stored values, the first one's from the start. Runs of zeros
longer than the largest gap are bridged by stored zeros. Nothing depends on an input, so runtimes
fold it once, when they load the file.
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
"""First opset with CumSum and ScatterElements."""
LARGEST = 2**31
"""Largest size in bytes of all unpacked weights of a file: protobuf's limit for an ONNX file."""
_AXIS = "packed_axis"
_GAPS = frozenset({TensorProto.UINT8, TensorProto.UINT16})


@dataclass(frozen=True)
class Packed:
    """Tensor without its zeros.

    Attributes:
        values: stored values, shape (k,).
        gaps: distance of each from its predecessor, of the first from the start, shape (k,).
        shape: shape of the tensor.
    """

    values: np.ndarray
    gaps: np.ndarray
    shape: tuple[int, ...]


def pack(array: np.ndarray, gap: type[np.unsignedinteger]) -> Packed:
    """Return an array without its zeros, bit for bit: −0 is kept.

    Args:
        array: array of at least one value.
        gap: integer type of the gaps.
    """
    flat = array.reshape(-1)
    most = int(np.iinfo(gap).max)
    # Compared as bits: −0 has a bit set.
    places = np.flatnonzero(flat.view(f"u{array.itemsize}"))
    steps = np.diff(places, prepend=0)
    fillers = np.maximum(steps - 1, 0) // most  # stored zeros, each `most` after the last value
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
        ValueError: a value lies outside the tensor, or two have the same position.
    """
    size = math.prod(packed.shape)
    places = np.cumsum(packed.gaps, dtype=np.int64)
    if packed.values.shape != packed.gaps.shape or packed.values.ndim != 1:
        raise ValueError(f"it has {packed.values.size} values and {packed.gaps.size} gaps")
    if (packed.gaps[1:] == 0).any():
        raise ValueError("two of its values have the same position")
    if len(places) and places[-1] >= size:
        raise ValueError(f"a value lies at position {places[-1]:,} of {size:,}")
    flat = np.zeros(size, packed.values.dtype)
    flat[places] = packed.values
    return flat.reshape(packed.shape)


def packed_nodes(
    name: str, packed: Packed, dtype: int, number: int
) -> tuple[list[TensorProto], list[NodeProto]]:
    """Return the stored tensors (values first) and operators of a packed tensor in a file.

    Args:
        name: name of the tensor.
        packed: packed tensor; its values may be of half precision if the tensor's type is not.
        dtype: ONNX's number of the tensor's type.
        number: number of the packed tensor in the file, which makes the names unique.
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
    """Return the axis of CumSum, a stored tensor that all packed tensors of a file share."""
    return numpy_helper.from_array(np.zeros((), np.int64), _AXIS)


def unpack_weights(model: onnx.ModelProto) -> None:
    """Replace every packed tensor of a model by a dense one.

    Raises:
        PrunecError: a packed tensor is damaged; the message names it.
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
    """Operators of a packed tensor, names of its values and gaps, its shape and type."""

    nodes: tuple[NodeProto, ...]
    values: str
    gaps: str
    shape: tuple[int, ...]
    dtype: int


def _chain(
    last: NodeProto, makers: dict[str, NodeProto], stored: dict[str, TensorProto]
) -> _Chain | None:
    """Return the operators that end in a reshape, if they form a packed tensor."""
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
    # Only the exact form that pack writes is undone; anything else stays an ordinary graph.
    if axis.any() or count.shape != (1,) or shape.min(initial=0) < 0:
        return None
    sizes = tuple(int(size) for size in shape)
    if math.prod(sizes) != int(count[0]):
        return None
    return _Chain(nodes, ends[1], ends[0], sizes, _type_of(fill))


def _type_of(fill: NodeProto) -> int:
    return fill.attribute[0].t.data_type if fill.attribute else int(TensorProto.FLOAT)


def _require_room(values: list[TensorProto], chains: dict[str, _Chain]) -> None:
    """Refuse tensors that claim to be larger than any file could hold."""
    needed = sum(
        math.prod(chain.shape) * helper.tensor_dtype_to_np_dtype(chain.dtype).itemsize
        for chain in chains.values()
    )
    if needed > LARGEST:
        raise PrunecError(
            f"its {len(values)} packed weights would take {needed:,} bytes; one file holds "
            f"at most {LARGEST:,}"
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
    """Remove operators, and the stored tensors that no other operator reads."""
    gone = {id(node) for node in nodes}
    reads = Counter(name for node in graph.node for name in node.input)
    reads.subtract(name for node in nodes for name in node.input)
    left = [node for node in graph.node if id(node) not in gone]
    read = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name not in read or reads[t.name] > 0]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(left)
    graph.initializer.extend(kept)

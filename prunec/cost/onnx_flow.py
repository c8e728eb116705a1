"""Activations of an ONNX graph for one sample, and the nodes that hold them.

Integer graphs are read as runtimes execute them: everything between DequantizeLinear and
QuantizeLinear is one integer kernel, so the floats at its ends have no buffers of their own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import helper

from prunec.cost.lifetimes import Flow, Operation
from prunec.cost.onnx_plain import is_standard, plain, where
from prunec.cost.onnx_shapes import infer
from prunec.errors import PrunecError

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Operators whose first output shares the buffer of their first input."""
_BRANCHING = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_TO_INTEGERS, _TO_FLOATS = "QuantizeLinear", "DequantizeLinear"


def onnx_flow(model: onnx.ModelProto) -> Flow:
    """Return the activations of a graph; a dynamic batch is bound to one sample.

    Args:
        model: model, with or without its weights.

    Raises:
        PrunecError: a size is unknown, or the executed operators depend on the input.
    """
    proto = plain(model)
    branching = next((node for node in proto.graph.node if node.op_type in _BRANCHING), None)
    if branching is not None:
        raise PrunecError(
            f"{branching.op_type} at {where(branching)}: the held values depend on the input",
            remedy="Export the network without it.",
        )
    nodes, inputs = that_depend(proto.graph)
    shapes = infer(proto)
    operations = tuple(
        Operation(where(node), node.op_type, tuple(node.input), tuple(filter(None, node.output)))
        for node in nodes
    )
    outputs = tuple(value.name for value in proto.graph.output)
    names = [*inputs, *(name for operation in operations for name in operation.writes)]
    sizes = {name: _bytes(name, shapes.sizes, shapes.types) for name in names}
    shows = _views(nodes, sizes) | _integers(nodes, outputs, sizes)
    return Flow(inputs, outputs, operations, sizes, shows)


def that_depend(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], tuple[str, ...]]:
    """Return the nodes that an input reaches, and the inputs; other nodes are computed once."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in stored)
    known, nodes = set(inputs), []
    for node in graph.node:
        if known & set(node.input):
            nodes.append(node)
            known |= set(node.output)
    return nodes, inputs


def _bytes(name: str, sizes: Mapping[str, tuple[int, ...]], types: Mapping[str, int]) -> int:
    if name not in sizes or name not in types:
        raise PrunecError(
            f"the shape of {name} cannot be inferred",
            remedy="Export with all sizes fixed except the batch.",
        )
    return math.prod(sizes[name]) * int(helper.tensor_dtype_to_np_dtype(types[name]).itemsize)


def _views(nodes: Sequence[onnx.NodeProto], sizes: Mapping[str, int]) -> dict[str, str]:
    return {
        node.output[0]: node.input[0]
        for node in nodes
        if is_standard(node) and node.op_type in VIEWS and node.input[0] in sizes
    }


def _integers(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], sizes: Mapping[str, int]
) -> dict[str, str]:
    """Return floats at the ends of integer kernels → the integers that are held instead."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = Counter(outputs)

    def becomes(name: str) -> bool:
        kinds = {reader.op_type for reader in readers.get(name, ())}
        return kinds == {_TO_INTEGERS} and not kept[name]

    def ends(name: str) -> Iterator[str]:
        for reader in readers.get(name, ()):
            yield from reader.output if reader.op_type != _TO_INTEGERS else ()

    held = {}
    for node in nodes:
        first, made = node.input[0], node.output[0]
        if node.op_type == _TO_INTEGERS and becomes(first) and len(readers[first]) == 1:
            held[first] = made
        # An output of the graph is held as floats.
        inside = node.op_type == _TO_FLOATS and first in sizes and not kept[made]
        if inside and all(map(becomes, ends(made))):
            held[made] = first
    return {value: integers for value, integers in held.items() if value in sizes}

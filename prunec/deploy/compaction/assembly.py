"""Assembly of a graph from written operators, unchanged ones, and the tensors they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from prunec.deploy.compaction.source import SourceFile
from prunec.deploy.compaction.tensors import names_in


def assemble(
    model: onnx.ModelProto,
    source: SourceFile,
    written: Mapping[int, list[onnx.NodeProto]],
    inputs: Mapping[str, tuple[int, ...]],
    cut: Mapping[str, tuple[int, int]],
) -> None:
    """Put the operators in order, and drop everything that is no longer read.

    Args:
        model: model with the new tensors, changed in place.
        source: original file.
        written: number of an operator in the file → its replacement.
        inputs: cut stored tensor → its shape, for files that list them as inputs.
        cut: value → (axis along which it was cut, remaining length).
    """
    graph, known = model.graph, source.observed
    nodes: list[onnx.NodeProto] = []
    for number, proto in enumerate(graph.node):
        outputs = [name for name in proto.output if name]
        as_it_was = all(name in known.constant or name in known.shaped for name in outputs)
        for node in [proto] if as_it_was else written.get(number, []):
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            nodes.append(copied)
    nodes = _read(nodes, graph, _names_read(source.model.graph))
    del graph.node[:]
    graph.node.extend(nodes)
    read_after = _names_read(graph)
    read_before = _names_read(source.model.graph)
    old = {tensor.name for tensor in source.model.graph.initializer}
    # Tensors that were unread before stay as they were.
    stored = [t for t in graph.initializer if t.name in read_after or (t.name in old - read_before)]
    gone = {t.name for t in graph.initializer} - {t.name for t in stored}
    _replace(graph.initializer, stored)
    _replace(graph.input, [value for value in graph.input if value.name not in gone])
    made = {name for node in nodes for name in node.output} | {v.name for v in graph.input}
    made |= {tensor.name for tensor in stored}
    _replace(graph.value_info, [value for value in graph.value_info if value.name in made])
    for value in (*graph.input, *graph.value_info):
        if value.name in inputs:
            for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
                dim.dim_value = size
    for value in graph.value_info:
        if value.name in cut:
            axis, length = cut[value.name]
            dims = value.type.tensor_type.shape.dim
            if axis < len(dims):
                dims[axis].dim_value = length


def _read(
    nodes: list[onnx.NodeProto], graph: onnx.GraphProto, before: set[str]
) -> list[onnx.NodeProto]:
    """Return the nodes whose values are read; nodes that were unread before stay as they were."""
    asked = {value.name for value in graph.output}
    kept = []
    # From the end: only later nodes read a node.
    for node in reversed(nodes):
        if any(name in asked for name in node.output) or before.isdisjoint(node.output):
            kept.append(node)
            asked.update(names_in(node))
    return kept[::-1]


def _names_read(graph: onnx.GraphProto) -> set[str]:
    read = {name for node in graph.node for name in names_in(node)}
    return read | {value.name for value in graph.output}


def _replace(field: Any, items: Sequence[Any]) -> None:
    """Replace the items of a repeated field by copies."""
    copies = []
    for item in items:
        copied = type(item)()
        copied.CopyFrom(item)
        copies.append(copied)
    del field[:]
    field.extend(copies)

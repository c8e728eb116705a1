"""Plain form of an ONNX model: one graph without functions, constant nodes and branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from prunec.cost.onnx_fused import unfused
from prunec.errors import PrunecError
from prunec.wording import first_line


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an equivalent model as one graph of operators and initialisers.

    - Functions of the file are inlined.
    - Constants, sparse ones included, become initialisers.
    - An ``If`` with a constant condition becomes the branch that is taken.

    Raises:
        PrunecError: the graph cannot be put into this form.

    Raises:
        PrunecError: the graph cannot be put into this form.
    """
    graph, kinds = model.graph, {node.op_type for node in model.graph.node}
    if not (model.functions or graph.sparse_initializer or kinds & {"Constant", "If"}):
        return unfused(model)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if copied.functions:
        copied = _inlined(copied)
    store_constants(copied.graph)
    resolve_branches(copied.graph, {})
    return unfused(copied)


def resolve_branches(graph: onnx.GraphProto, known: Mapping[str, bool]) -> None:
    """Replace each ``If`` with a constant condition by the branch that is taken.

    Args:
        graph: graph, changed in place.
        known: condition → value, for constants that no initialiser holds.
    """
    while node := next((n for n in graph.node if _condition(graph, n, known) is not None), None):
        _take(graph, node, bool(_condition(graph, node, known)))


def _condition(
    graph: onnx.GraphProto, node: onnx.NodeProto, known: Mapping[str, bool]
) -> bool | None:
    """Return the condition of an ``If``; None if it is unknown, and for other operators."""
    if node.op_type != "If":
        return None
    name = node.input[0]
    stored = next((t for t in graph.initializer if t.name == name), None)
    if stored is None:
        return known.get(name)
    return bool(numpy_helper.to_array(stored).reshape(-1)[0])


def store_constants(graph: onnx.GraphProto) -> None:
    """Turn the constants of a graph into initialisers, in place."""
    graph.initializer.extend(dense(tensor) for tensor in graph.sparse_initializer)
    del graph.sparse_initializer[:]
    kept = []
    for node in graph.node:
        tensor = _stored(node) if node.op_type == "Constant" and is_standard(node) else None
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    if len(kept) < len(graph.node):
        kept = [_copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)


def is_standard(node: onnx.NodeProto) -> bool:
    """Return whether an operator belongs to the standard ONNX domain."""
    return node.domain in ("", "ai.onnx")


def where(node: onnx.NodeProto) -> str:
    """Return the name of a node, or of its first output."""
    return node.name or next(iter(node.output), node.op_type)


def dense(tensor: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return a sparse tensor in dense form.

    Raises:
        PrunecError: its indices do not fit its shape.
    """
    values = numpy_helper.to_array(tensor.values)
    indices = numpy_helper.to_array(tensor.indices)
    full = np.zeros(tuple(tensor.dims), values.dtype)
    try:
        if indices.ndim == 1:
            full.reshape(-1)[indices] = values
        else:
            full[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise PrunecError(
            f"the sparse tensor {tensor.values.name} does not fit its shape: {error}",
            remedy="Export it again.",
        ) from error
    return numpy_helper.from_array(full, tensor.values.name)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise PrunecError(
            f"the functions of the file cannot be read: {first_line(error)}",
            remedy="Export it again.",
        ) from error


def _stored(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a constant node; None for text."""
    for attribute in node.attribute:
        if attribute.name == "sparse_value":
            tensor = dense(attribute.sparse_tensor)
        elif attribute.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(attribute.t)
        elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
            kind = np.int64 if "int" in attribute.name else np.float32
            value = helper.get_attribute_value(attribute)
            tensor = numpy_helper.from_array(np.asarray(value, kind))
        else:
            continue
        tensor.name = node.output[0]
        return tensor
    return None


def _take(graph: onnx.GraphProto, node: onnx.NodeProto, condition: bool) -> None:
    name = "then_branch" if condition else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == name)
    place = list(graph.node).index(node)
    inner, tensors = _renamed(branch, f"{where(node)}/", list(node.output))
    nodes = [_copy(other) for other in graph.node]
    nodes[place : place + 1] = inner
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _renamed(
    branch: onnx.GraphProto, prefix: str, outputs: list[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and initialisers of a branch under unique names, ending in ``outputs``."""
    inner = onnx.GraphProto()
    inner.CopyFrom(branch)
    store_constants(inner)
    own = {t.name for t in inner.initializer} | {o for n in inner.node for o in n.output if o}
    names = {name: prefix + name for name in own}
    _rename(inner, names)
    for tensor in inner.initializer:
        tensor.name = names[tensor.name]
    ends = [names.get(value.name, value.name) for value in branch.output]
    last = [
        helper.make_node("Identity", [end], [output])
        for end, output in zip(ends, outputs, strict=True)
    ]
    return [*map(_copy, inner.node), *last], list(inner.initializer)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
        for inner in _graphs(node):
            # Names of an inner graph hide those of the outer one.
            own = {v.name for v in inner.input} | {o for n in inner.node for o in n.output}
            own |= {t.name for t in inner.initializer}
            _rename(inner, {a: b for a, b in names.items() if a not in own})
            for value in inner.output:
                if value.name not in own:
                    value.name = names.get(value.name, value.name)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied

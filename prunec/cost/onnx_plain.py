"""One graph without functions, constant nodes and branches: the form in which a file is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from prunec.cost.onnx_fused import unfused
from prunec.errors import PrunecError
from prunec.wording import first_line


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes the same, as one graph of operators and initialisers.

    - Functions that the file holds are put in place of their calls.
    - Constants, sparse ones too, become initialisers.
    - An ``If`` whose condition is a constant becomes the branch that is taken.

    Raises:
        PrunecError: the graph cannot be put into this form.
    """
    graph, kinds = model.graph, {node.op_type for node in model.graph.node}
    if not (model.functions or graph.sparse_initializer or kinds & {"Constant", "If"}):
        return unfused(model)
    found = onnx.ModelProto()
    found.CopyFrom(model)
    if found.functions:
        found = _inlined(found)
    store_constants(found.graph)
    resolve_branches(found.graph, {})
    return unfused(found)


def resolve_branches(graph: onnx.GraphProto, known: Mapping[str, bool]) -> None:
    """Put the branch that is taken in place of each ``If`` whose condition is a constant.

    Args:
        graph: changed in place.
        known: conditions that are constants although no initialiser holds them.
    """
    while node := next((n for n in graph.node if _condition(graph, n, known) is not None), None):
        _take(graph, node, bool(_condition(graph, node, known)))


def _condition(
    graph: onnx.GraphProto, node: onnx.NodeProto, known: Mapping[str, bool]
) -> bool | None:
    """The condition of an ``If``; None where it is not known, and for other operators."""
    if node.op_type != "If":
        return None
    name = node.input[0]
    stored = next((t for t in graph.initializer if t.name == name), None)
    if stored is None:
        return known.get(name)
    return bool(numpy_helper.to_array(stored).reshape(-1)[0])


def store_constants(graph: onnx.GraphProto) -> None:
    """Make initialisers of a graph's constants, in place."""
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
    """Say whether an operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def where(node: onnx.NodeProto) -> str:
    """Return the name of a node, or of what it computes."""
    return node.name or next(iter(node.output), node.op_type)


def dense(tensor: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return a sparse tensor with its zeros.

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
    """The tensor of a constant; None where it holds text."""
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
    """The nodes and initialisers of a branch, their names nobody else's, outputs those given."""
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

"""Operations of an ONNX graph in a comparable form, independent of the names of values."""

from __future__ import annotations

import hashlib

import onnx
from onnx import numpy_helper

from prunec.cost import ROLE
from prunec.deploy.signature import MADE_WITH, metadata_of
from prunec.deploy.written import WrittenGraph, WrittenOperation

_SHOWN = 8  # values of a constant that are shown; longer ones by digest


def graph_of(model: onnx.ModelProto) -> WrittenGraph:
    """Return the operations of a model, in the order of its nodes."""
    graph = model.graph
    places = {value.name: f"input {value.name}" for value in graph.input}
    places |= {tensor.name: _stored(tensor) for tensor in graph.initializer}
    sparse = [entry.values.name for entry in graph.sparse_initializer]
    places |= {name: f"sparse {name}" for name in sparse}
    weights = {tensor.name for tensor in graph.initializer if _is_weight(tensor)}
    layers: dict[str, str] = {}
    operations = []
    for index, node in enumerate(graph.node):
        own = [name for name in node.input if name in weights]
        before = [layers[name] for name in node.input if layers.get(name)]
        layer = (own or before or [""])[0]
        operations.append(
            WrittenOperation(
                name=node.name or f"node {index}",
                layer=layer,
                operator=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
                reads=tuple(places.get(name, f"unknown {name}") for name in node.input),
                options={a.name: _option(a) for a in node.attribute},
            )
        )
        for number, name in enumerate(node.output):
            places[name] = f"output {number} of node {index}"
            layers[name] = layer
    outputs = tuple(places.get(value.name, "nothing") for value in graph.output)
    extra = {f"function {f.name}": f.SerializeToString().hex() for f in model.functions}
    last = WrittenOperation("outputs", "", "outputs", outputs, extra)
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=0)
    return WrittenGraph(opset, (*operations, last), metadata_of(model).get(MADE_WITH, ""))


def _is_weight(tensor: onnx.TensorProto) -> bool:
    roles = {entry.value for entry in tensor.metadata_props if entry.key == ROLE}
    return bool(roles & {"parameter", "buffer"})


def _stored(tensor: onnx.TensorProto) -> str:
    """Return a weight by name (its values have a check of their own), a constant by content."""
    if _is_weight(tensor):
        return tensor.name
    return f"constant {_contents(tensor)}"


def _contents(tensor: onnx.TensorProto) -> str:
    values = numpy_helper.to_array(tensor)
    kind = f"{values.dtype.name}{list(values.shape)}"
    if values.size <= _SHOWN:
        return f"{kind} {values.tolist()}"
    return f"{kind} {hashlib.sha256(values.tobytes()).hexdigest()[:12]}"


def _option(attribute: onnx.AttributeProto) -> str:
    if attribute.HasField("t"):
        return _contents(attribute.t)
    if attribute.HasField("g") or attribute.graphs or attribute.tensors:
        return hashlib.sha256(attribute.SerializeToString(deterministic=True)).hexdigest()[:12]
    return str(onnx.helper.get_attribute_value(attribute))

"""Clean-up of an exported ONNX graph: small, and the same bytes every time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from prunec.cost import ROLE
from prunec.deploy.signature import output_names


def tidy(model: onnx.ModelProto, roles: Mapping[str, str]) -> onnx.ModelProto:
    """Return ``model``, changed in place: the same function without leftovers of the exporter.

    - Outputs have their names; an output that repeats an input, a stored tensor or another output
    becomes
      a value of its own.
    - Convolutions without a bias lose the zero bias that the exporter adds.
    - Equal constants are merged; constants and nodes are numbered in order of use.
    - The batch axis is called ``batch`` everywhere.
    - Each initialiser is marked as parameter, buffer or constant.

    Args:
        model: model whose constants are all initialisers.
        roles: tensor of the network → ``parameter`` or ``buffer``.
    """
    graph = model.graph
    # First: later steps must not drop or rename outputs.
    _name_outputs(graph, output_names(len(graph.output)))
    _drop_zero_biases(graph, roles)
    _merge_constants(graph, roles)
    _drop_unread(graph)
    _name_batch(graph)
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
    for value in (*graph.input, *graph.value_info, *graph.output):
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.metadata_props.add(key=ROLE, value=roles.get(tensor.name, "constant"))
    model.producer_name, model.producer_version = "prunec", ""
    return model


def _name_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    made = {name for node in graph.node for name in node.output}
    renamed: dict[str, str] = {}
    copies = []
    for value, name in zip(graph.output, names, strict=True):
        source = value.name
        if source in made and source not in renamed:
            renamed[source] = name
        else:
            copies.append((source, name))
        value.name = name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
    graph.node.extend(
        onnx.helper.make_node("Identity", [renamed.get(source, source)], [name])
        for source, name in copies
    )


def _drop_zero_biases(graph: onnx.GraphProto, roles: Mapping[str, str]) -> None:
    constants = {t.name: t for t in graph.initializer if t.name not in roles}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
            continue
        bias = constants.get(node.input[2])
        if bias is not None and not np.any(numpy_helper.to_array(bias)):
            del node.input[2]


def _merge_constants(graph: onnx.GraphProto, roles: Mapping[str, str]) -> None:
    """Give equal constants one name, numbered in the order in which nodes read them."""
    constants = {t.name: t for t in graph.initializer if t.name not in roles}
    contents = {name: _content(tensor) for name, tensor in constants.items()}
    names: dict[tuple[object, ...], str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in contents:
                kept = names.setdefault(contents[name], f"constant_{len(names)}")
                node.input[index] = kept
    for name, tensor in constants.items():
        tensor.name = names.pop(contents[name], "")


def _content(tensor: onnx.TensorProto) -> tuple[object, ...]:
    return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Drop initialisers without readers, and shapes of removed values."""
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name and tensor.name in read]
    made = {name for node in graph.node for name in node.output}
    shapes = [value for value in graph.value_info if value.name in made]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(sorted(kept, key=lambda tensor: tensor.name))
    graph.value_info.extend(shapes)


def _name_batch(graph: onnx.GraphProto) -> None:
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        return
    whole_word = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = whole_word.sub("batch", dim.dim_param)

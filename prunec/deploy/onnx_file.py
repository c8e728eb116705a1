"""Reading of ONNX files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import numpy_helper

from prunec.cost import Cost
from prunec.cost.lifetimes import Flow
from prunec.cost.onnx_flow import onnx_flow, that_depend
from prunec.cost.onnx_graph import count_known, operator_of
from prunec.cost.onnx_plain import where
from prunec.cost.onnx_reading import foreign_bytes, read_model
from prunec.deploy.onnx_operations import graph_of
from prunec.deploy.signature import graph_digest, metadata_of
from prunec.deploy.written import Written
from prunec.errors import PrunecError


def read_onnx(path: Path) -> Written:
    """Return the content of an ONNX file.

    Raises:
        PrunecError: the file is damaged; the message names the tensor or node.
    """
    model = read_model(path)
    cost, uncounted = _cost(model)
    with foreign_bytes(path):
        # Before IR version 4 every initialiser is listed among the inputs, too.
        initialised = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in initialised]
        return Written(
            inputs={value.name: _sizes(value) for value in inputs},
            outputs=tuple(value.name for value in model.graph.output),
            metadata=metadata_of(model),
            weights={t.name: numpy_helper.to_array(t) for t in model.graph.initializer},
            cost=cost,
            uncounted=uncounted,
            graph_digest=graph_digest(model),
            graph=graph_of(model),
        )


def onnx_activations(path: Path) -> Flow:
    """Return the activations of an ONNX file.

    Raises:
        PrunecError: the file cannot be read, a size is unknown, or the executed operators depend on
            the input.
    """
    model = read_model(path)
    with foreign_bytes(path):
        return onnx_flow(model)


def onnx_operators(path: Path, *, computed: bool = False) -> list[tuple[str, str]]:
    """Return (name, operator) of every node of an ONNX file, in functions and branches too.

    Args:
        path: the file.
        computed: whether to leave out nodes of the main graph that no input reaches.

    Raises:
        PrunecError: the file is damaged.
    """
    model = read_model(path)
    own = {(function.domain, function.name) for function in model.functions}
    main = that_depend(model.graph)[0] if computed else model.graph.node
    bodies = [main, *(function.node for function in model.functions)]
    nodes = [node for body in bodies for node in _with_branches(body)]
    return [(where(n), operator_of(n)) for n in nodes if (n.domain, n.op_type) not in own]


def _with_branches(body: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in body:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_branches(attribute.g.node)


def _cost(model: onnx.ModelProto) -> tuple[Cost | None, str]:
    try:
        return count_known(model), ""
    except PrunecError as error:
        return None, error.message


def _sizes(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)

"""Reads an ONNX file back."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from prunec.cost import Cost
from prunec.cost.onnx_graph import count_known
from prunec.cost.onnx_reading import foreign_bytes, read_model
from prunec.deploy.onnx_operations import graph_of
from prunec.deploy.signature import graph_digest, metadata_of
from prunec.deploy.written import Written
from prunec.errors import PrunecError


def read_onnx(path: Path) -> Written:
    """Return what an ONNX file holds.

    Raises:
        PrunecError: it is not a whole and valid file; names the tensor or the node.
    """
    model = read_model(path)
    cost, uncounted = _cost(model)
    with foreign_bytes(path):
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


def _cost(model: onnx.ModelProto) -> tuple[Cost | None, str]:
    try:
        return count_known(model), ""
    except PrunecError as error:
        return None, error.message


def _sizes(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)

"""Graph in an ``.ort`` file: nodes in an order of execution, and the sizes of their values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import helper
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
    InferenceSession,
)
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.TensorTypeAndShape import (
    TensorTypeAndShape,
)

from prunec.cost.lifetimes import Flow, Operation
from prunec.cost.onnx_flow import VIEWS
from prunec.errors import PrunecError
from prunec.wording import first_line


def ort_flow(path: Path) -> Flow:
    """Return the activations of one sample: a first axis without a fixed size counts as 1.

    Raises:
        PrunecError: the file cannot be read, or a size is unknown.
    """
    graph = _graph(path)
    operations = list(_in_order(graph))
    inputs, outputs = (tuple(_texts(graph, side)) for side in ("Inputs", "Outputs"))
    entries = (graph.NodeArgs(place) for place in range(graph.NodeArgsLength()))
    types = {entry.Name().decode(): entry.Type() for entry in entries}
    names = [*inputs, *(name for operation in operations for name in operation.writes)]
    held = {name: _bytes(name, types.get(name)) for name in names}
    views = {op.writes[0]: op.reads[0] for op in operations if op.operator in VIEWS}
    return Flow(inputs, outputs, tuple(operations), held, views)


def ort_operators(path: Path) -> list[tuple[str, str]]:
    """Return (name, operator) of every node, operators of other domains with their domain.

    Raises:
        PrunecError: the file cannot be read.
    """
    return [(op.name, op.operator) for op in _in_order(_graph(path))]


def _graph(path: Path) -> Any:
    try:
        return InferenceSession.GetRootAs(path.read_bytes(), 0).Model().Graph()
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error


def _in_order(graph: Any) -> Iterator[Operation]:
    """Yield nodes such that each comes after those it reads; the file stores fused ones first."""
    nodes = [graph.Nodes(place) for place in range(graph.NodesLength())]
    left = sorted(nodes, key=lambda node: node.Index())
    made = {name for node in nodes for name in _texts(node, "Outputs")}
    while left:
        ready = next((n for n in left if made.isdisjoint(_texts(n, "Inputs"))), left[0])
        left.remove(ready)
        made -= set(_texts(ready, "Outputs"))
        domain = ready.Domain().decode()
        operator = f"{domain}.{ready.OpType().decode()}" if domain else ready.OpType().decode()
        reads, writes = (tuple(filter(None, _texts(ready, s))) for s in ("Inputs", "Outputs"))
        yield Operation(ready.Name().decode() or writes[0], operator, reads, writes)


def _texts(entry: Any, side: str) -> Iterator[str]:
    return (getattr(entry, side)(i).decode() for i in range(getattr(entry, f"{side}Length")()))


def _bytes(name: str, kind: Any) -> int:
    shaped = TensorTypeAndShape()
    if kind is not None and kind.Value() is not None:
        shaped.Init(kind.Value().Bytes, kind.Value().Pos)
    if kind is None or shaped.Shape() is None:
        raise PrunecError(f"the shape of {name} is not in the file")
    shape = shaped.Shape()
    dims = [shape.Dim(axis).Value() for axis in range(shape.DimLength())]
    sizes = [dim.DimValue() if dim is not None and not dim.DimParam() else 0 for dim in dims]
    if sizes and sizes[0] < 1:
        sizes[0] = 1
    if any(size < 1 for size in sizes):
        raise PrunecError(f"the shape of {name} is not fixed in the file")
    return math.prod(sizes) * int(helper.tensor_dtype_to_np_dtype(shaped.ElemType()).itemsize)

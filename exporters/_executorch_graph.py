"""Graph in an ExecuTorch program: its kernels, and the XNNPACK graphs that it delegates to."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import executorch
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir._serialize._program import deserialize_pte_binary

from prunec.cost.lifetimes import Flow, Operation
from prunec.errors import PrunecError
from prunec.wording import first_line

_SCHEMA = "backends/xnnpack/serialization/schema.fbs"
_MAGIC = b"XH00"  # of the header before an XNNPACK graph; at 10 and 14 its offset and size follow
_VIEWS = frozenset({"XNNStaticReshape"})
_INFINITE = re.compile(r"(?<=[ :-])inf(?=[,\s}])")
_WRITTEN = re.compile(r"output.*_id$")


def executorch_flow(path: Path) -> Flow | None:
    """Return the activations of a program; None unless it is one XNNPACK graph.

    Raises:
        PrunecError: the program cannot be read.
    """
    plan, graphs = _program(path)
    if plan.operators or len(graphs) != 1:
        return None
    graph = graphs[0]
    values = {value["id_out"]: value for value in map(_tensor, graph["xvalues"])}
    active = {key for key, value in values.items() if not value["constant_buffer_idx"]}
    operations = tuple(
        Operation(f"node {place}", kind, *_ends(node, active))
        for place, (kind, node) in enumerate(_nodes(graph))
    )
    views = {op.writes[0]: op.reads[0] for op in operations if op.operator in _VIEWS}
    held = {str(key): _bytes(values[key]) for key in active}
    inputs, outputs = (tuple(map(str, graph[key])) for key in ("input_ids", "output_ids"))
    return Flow(inputs, outputs, operations, held, views)


def executorch_operators(path: Path) -> list[tuple[str, str]]:
    """Return (place, operator): ``XNN…`` within XNNPACK, ``aten::…`` for the runtime's kernels.

    Raises:
        PrunecError: the program cannot be read.
    """
    plan, graphs = _program(path)
    inside = [
        (f"node {place}", kind) for graph in graphs for place, (kind, _) in enumerate(_nodes(graph))
    ]
    return [*inside, *((f"kernel {op.name}", op.name) for op in plan.operators)]


def _program(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    try:
        program = deserialize_pte_binary(path.read_bytes()).program
        data = [bytes(entry.data) for entry in program.backend_delegate_data]
        return program.execution_plan[0], [_graph(entry) for entry in data]
    except PrunecError:
        raise
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error


def _graph(data: bytes) -> dict[str, Any]:
    if data[4:8] != _MAGIC:
        raise PrunecError("a part of the program belongs to another backend than XNNPACK")
    first, size = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14))
    schema = next(Path(root) / _SCHEMA for root in executorch.__path__)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (
            ("graph.bin", data[first : first + size]),
            ("schema.fbs", schema.read_bytes()),
        ):
            (Path(folder) / name).write_bytes(content)
        _flatc_decompile(folder, f"{folder}/schema.fbs", f"{folder}/graph.bin")
        text = (Path(folder) / "graph.json").read_text()
    # flatc writes the bounds of an open clamp as inf, which JSON does not know.
    graph: dict[str, Any] = json.loads(_INFINITE.sub("Infinity", text))
    return graph


def _nodes(graph: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((node["xnode_union_type"], node["xnode_union"]) for node in graph["xnodes"])


def _tensor(value: Mapping[str, Any]) -> Mapping[str, Any]:
    inner: Mapping[str, Any] = value["xvalue_union"]
    tensor: Mapping[str, Any] = inner.get("tensor_value", inner)
    return tensor


def _ends(node: Mapping[str, Any], active: set[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the activations that a node reads and writes: its fields that end in ``_id``."""
    ids = {key: value for key, value in node.items() if key.endswith("_id") and value in active}
    writes = {key for key in ids if _WRITTEN.match(key)}
    return (
        tuple(str(ids[key]) for key in ids if key not in writes),
        tuple(str(ids[key]) for key in ids if key in writes),
    )


def _bytes(value: Mapping[str, Any]) -> int:
    # XNNPACK names types by their bits: xnn_datatype_fp32, xnn_datatype_qint8.
    bits = int(re.findall(r"\d+", value["datatype"])[-1])
    sizes: list[int] = value["dims"]
    return -(-bits * math.prod(sizes) // 8)

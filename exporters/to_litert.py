"""Exporter of LiteRT's flatbuffer (``.tflite``), for one sample, in float32."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import litert_torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from prunec.cost.lifetimes import Flow, Operation
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._one_sample import one_sample, require_eval
from prunec.wording import first_line

_VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})


@dataclass(frozen=True)
class ToLitert(Exact):
    """Convert the network for LiteRT."""

    suffix: ClassVar[str] = ".tflite"
    reads: ClassVar[str] = "onnx"

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            PassError: the network is in training mode, or LiteRT cannot express it.
        """
        require_eval(source.module, "LiteRT's")
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                litert_torch.convert(source.module, one_sample(source.example)).export(str(path))
        except Exception as error:
            raise PassError(
                f"litert-torch cannot express the network: {first_line(error)}",
                remedy="Replace the operator in the network, or ship another form.",
            ) from error

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form has names of its own."""
        try:
            Interpreter(str(path), num_threads=1).allocate_tensors()
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        return Written(graph_digest=file_digest(path.read_bytes()))

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        model = _model(path)
        if len(model.subgraphs) != 1:
            raise PrunecError(f"{path}: the held values depend on the input")
        graph = model.subgraphs[0]
        stored = {i for i, t in enumerate(graph.tensors) if _is_stored(model, t)}
        names = _names(graph)
        held = {names[i]: _bytes(t) for i, t in enumerate(graph.tensors) if i not in stored}
        operations = tuple(
            Operation(names[op.outputs[0]], kind, *(tuple(names[i] for i in indices if i >= 0)
                      for indices in (op.inputs, op.outputs)))
            for op, kind in zip(graph.operators, _kinds(model), strict=True)
        )  # fmt: skip
        views = {op.writes[0]: op.reads[0] for op in operations if op.operator in _VIEWS}
        inputs, outputs = (tuple(names[i] for i in x) for x in (graph.inputs, graph.outputs))
        return Flow(inputs, outputs, operations, held, views)

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name of its first output, operator) of every node."""
        model = _model(path)
        graph, names = model.subgraphs[0], _names(model.subgraphs[0])
        made = [names[op.outputs[0]] for op in graph.operators]
        return list(zip(made, _kinds(model), strict=True))


def _model(path: Path) -> Any:
    try:
        return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error


def _names(graph: Any) -> list[str]:
    """Return names of all tensors: the module at the end of LiteRT's path, and the index."""
    ends = (tensor.name.decode().rpartition("/")[2].strip(";") for tensor in graph.tensors)
    return [f"{end.rpartition('.')[2]} (tensor {index})" for index, end in enumerate(ends)]


def _kinds(model: Any) -> list[str]:
    """Return the operator of every node of the first graph; custom ones by their own names."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    codes = [
        code.customCode.decode()
        if code.customCode
        # An old field of one byte ends at 127; TensorFlow reads the larger of both, too.
        else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    return [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]


def _is_stored(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _bytes(tensor: Any) -> int:
    names = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    digits = re.search(r"\d+$", names[tensor.type])
    # BOOL names no bits and takes a byte.
    size = -(-int(digits[0]) // 8) if digits else 1
    shape = [] if tensor.shape is None else [int(n) for n in tensor.shape]
    return size * math.prod(shape)

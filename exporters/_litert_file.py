"""LiteRT's flatbuffer: its conversion from a network, its graph, and reading it back."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

from prunec.cost.lifetimes import Flow, Operation
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.wording import first_line

_VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})


@contextlib.contextmanager
def expressing() -> Iterator[None]:
    """Turn any exception of LiteRT's tools into a PassError, and silence what they print.

    Raises:
        PassError: the network cannot be expressed.
    """
    try:
        silent = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),  # bars of progress
        ):
            warnings.simplefilter("ignore")
            yield
    except PrunecError:
        raise
    except Exception as error:
        raise PassError(
            f"litert-torch cannot express the network: {first_line(error)}",
            remedy="Replace the operator in the network, or ship another form.",
        ) from error


def convert(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Write a module for one sample, in float32."""
    litert_torch.convert(module, example).export(str(path))


def read_file(path: Path) -> Written:
    """Return a digest of a file that loads; it has names of its own.

    Raises:
        PrunecError: it does not load.
    """
    try:
        Interpreter(str(path), num_threads=1).allocate_tensors()
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
    return Written(graph_digest=file_digest(path.read_bytes()))


def litert_flow(path: Path) -> Flow:
    """Return the activations of a file.

    Raises:
        PrunecError: the file cannot be read, or chooses operators by its input.
    """
    model = read_model(path)
    if len(model.subgraphs) != 1:
        raise PrunecError(f"{path}: the held values depend on the input")
    graph = model.subgraphs[0]
    stored = {i for i, t in enumerate(graph.tensors) if is_stored(model, t)}
    names = _names(graph)
    held = {names[i]: _bytes(t) for i, t in enumerate(graph.tensors) if i not in stored}
    operations = tuple(
        Operation(names[op.outputs[0]], kind, *(tuple(names[i] for i in indices if i >= 0)
                  for indices in (op.inputs, op.outputs)))
        for op, kind in zip(graph.operators, kinds_of(model), strict=True)
    )  # fmt: skip
    views = {op.writes[0]: op.reads[0] for op in operations if op.operator in _VIEWS}
    inputs, outputs = (tuple(names[i] for i in x) for x in (graph.inputs, graph.outputs))
    return Flow(inputs, outputs, operations, held, views)


def litert_operators(path: Path) -> list[tuple[str, str]]:
    """Return (name of its first output, operator) of every node.

    Raises:
        PrunecError: the file cannot be read.
    """
    model = read_model(path)
    graph, names = model.subgraphs[0], _names(model.subgraphs[0])
    made = [names[op.outputs[0]] for op in graph.operators]
    return list(zip(made, kinds_of(model), strict=True))


def read_model(path: Path) -> Any:
    """Return the content of a file.

    Raises:
        PrunecError: it cannot be read.
    """
    try:
        return unpack(path.read_bytes())
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error


def unpack(content: bytes) -> Any:
    """Return the content of a file, with values that lie behind its flatbuffer in their places."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset and buffer.size:
            data = content[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(data, np.uint8), 0, 0
    return model


def _names(graph: Any) -> list[str]:
    """Return names of all tensors: the module at the end of LiteRT's path, and the index."""
    ends = (tensor.name.decode().rpartition("/")[2].strip(";") for tensor in graph.tensors)
    return [f"{end.rpartition('.')[2]} (tensor {index})" for index, end in enumerate(ends)]


def kinds_of(model: Any) -> list[str]:
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


def is_stored(model: Any, tensor: Any) -> bool:
    """Return whether the file holds the values of a tensor."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _bytes(tensor: Any) -> int:
    names = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    digits = re.search(r"\d+$", names[tensor.type])
    # BOOL names no bits and takes a byte.
    size = -(-int(digits[0]) // 8) if digits else 1
    shape = [] if tensor.shape is None else [int(n) for n in tensor.shape]
    return size * math.prod(shape)

"""Observation of a file's values by running it: shapes, types, constants.

The file runs at two sizes of its open axes (the batch, an image's height), and returns every value:
axes whose length differs are open, and integers computed from shapes alone are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from prunec.cost.onnx_plain import is_standard
from prunec.errors import PrunecError
from prunec.wording import first_line

Sizes = Mapping[str, tuple[int, ...]]
"""Input → its sizes."""

_SHAPES = frozenset({"Shape", "Size"})
_RANDOM = ("Random", "Multinomial", "Bernoulli")
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class ObservedValue:
    """One value of the graph.

    Attributes:
        shape: sizes in the first run.
        dtype: type; None if torch has no such type.
        open: axes whose length differs between the runs.
        array: content, if it depends on inputs at most by their shapes; else None.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    open: frozenset[int] = frozenset()
    array: np.ndarray | None = None


@dataclass(frozen=True)
class Observed:
    """Values of a graph.

    Attributes:
        values: name → value; tensors only.
        constant: names of values that do not depend on any input.
        shaped: names of values that depend on inputs by their shapes alone.
    """

    values: Mapping[str, ObservedValue]
    constant: frozenset[str]
    shaped: frozenset[str]


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the inner graphs of a node: bodies of loops, branches of conditions."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names_read(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node reads, including reads of its inner graphs from the outer
    one.
    """
    read = [name for name in node.input if name]
    for graph in inner_graphs(node):
        own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        inside = [name for inner in graph.node for name in names_read(inner)]
        inside += [value.name for value in graph.output]
        read += [name for name in inside if name not in own]
    return list(dict.fromkeys(read))


def observe(model: onnx.ModelProto, first: Sizes, second: Sizes | None) -> Observed:
    """Run a model at two sizes of its inputs and return its values.

    Raises:
        PrunecError: onnxruntime does not run the model at the first sizes.
    """
    constant, shaped = _known(model.graph)
    asked = _asked(model.graph)
    session = _session(model, asked)
    one = _run(session, asked, first, model.graph)
    other = _run(session, asked, second, model.graph) if second else one
    values: dict[str, ObservedValue] = {}
    for name, array in one.items():
        changed = other.get(name, array)
        same = array.ndim == changed.ndim
        differing = (i for i in range(array.ndim) if array.shape[i] != changed.shape[i])
        values[name] = ObservedValue(
            tuple(array.shape),
            torch_type(array.dtype),
            frozenset(differing) if same else frozenset(range(array.ndim)),
            # Other values may take any amount of memory.
            array if name in constant or name in shaped else None,
        )
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        kind = torch_type(array.dtype)
        # numpy's bfloat16 is a type of another library, which torch does not take.
        held = array if kind is not None and kind != torch.bfloat16 else None
        values[tensor.name] = ObservedValue(tuple(array.shape), kind, frozenset(), held)
    return Observed(values, frozenset(constant), frozenset(shaped))


def torch_type(kind: np.dtype) -> torch.dtype | None:
    """Return the torch type of the same name, or None."""
    dtype = getattr(torch, kind.name, None)
    return dtype if isinstance(dtype, torch.dtype) else None


def sample(value: onnx.ValueInfoProto, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """Return random numbers of an input's type; integers are small."""
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if sizes and not value.type.tensor_type.shape.dim:
        return np.asarray(sizes[0], kind)
    generator = np.random.default_rng(seed)
    if np.issubdtype(kind, np.floating):
        return np.asarray(generator.standard_normal(sizes)).astype(kind)
    if kind == np.bool_:
        return np.asarray(generator.integers(0, 2, sizes)).astype(bool)
    return np.asarray(generator.integers(0, 3, sizes)).astype(kind)


def _known(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Return the names that do not depend on inputs, and those that depend on shapes alone."""
    constant = {t.name for t in graph.initializer}
    shaped: set[str] = set()
    for node in graph.node:
        read = names_read(node)
        if node.op_type == "CastLike":
            read = read[:1]  # of the second operand only the type is used
        standard = is_standard(node) and node.op_type not in _QUANTISED
        if not standard or node.op_type.startswith(_RANDOM) or any(inner_graphs(node)):
            continue
        if all(name in constant for name in read):
            constant.update(node.output)
        elif node.op_type in _SHAPES or all(n in constant or n in shaped for n in read):
            shaped.update(node.output)
    return constant, shaped


def _asked(graph: onnx.GraphProto) -> list[str]:
    return list(dict.fromkeys(name for node in graph.node for name in node.output if name))


def _session(model: onnx.ModelProto, asked: list[str]) -> onnxruntime.InferenceSession:
    """Return a session that returns every value of the unoptimised graph."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    known = {value.name for value in whole.graph.output}
    # Without types: onnxruntime infers those of outputs.
    whole.graph.output.extend(onnx.ValueInfoProto(name=n) for n in asked if n not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise PrunecError(
            f"onnxruntime cannot load the file: {first_line(error)}",
            remedy="Only a file that onnxruntime runs can be proven.",
        ) from error


def _run(
    session: onnxruntime.InferenceSession, asked: list[str], sizes: Sizes, graph: onnx.GraphProto
) -> dict[str, np.ndarray]:
    given = {v.name: sample(v, sizes[v.name], 1) for v in graph.input if v.name in sizes}
    try:
        outputs = session.run(asked, given)
    except Exception as error:
        shown = ", ".join(f"{name}={'x'.join(map(str, size))}" for name, size in sizes.items())
        raise PrunecError(
            f"the file does not run on inputs of {shown}: {first_line(error)}",
            remedy="Give sizes that it takes: --input NAME=1x3x224x224.",
        ) from error
    made = {n: x for n, x in zip(asked, outputs, strict=True) if isinstance(x, np.ndarray)}
    return given | made

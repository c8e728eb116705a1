"""Shapes that ONNX's inference cannot determine, from two runs of the file under onnxruntime.

Inference knows neither computed paddings nor the sizes of an ``Expand`` behind a selection, and is
wrong about some operators. The file runs twice, on different numbers: a shape that depends on
values, such as a number of detected boxes, is not used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import helper

_BY_VALUE = frozenset(
    {"NonZero", "Unique", "NonMaxSuppression", "Compress", "Loop", "Scan", "If", "SequenceMap"}
)
"""Operators whose results may have shapes that depend on values."""
_SIZES = frozenset({"Shape", "Size"})
_RANDOM = ("Random", "Multinomial", "Bernoulli")


def sizes_by_running(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], names: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Return shapes on which two runs under onnxruntime agree; none if the file does not run.

    Args:
        model: model with its weights.
        inputs: inputs of the graph, all sizes fixed.
        names: requested values.
    """
    asked = [name for name in _of_sizes(model.graph) if name in names]
    if not asked:
        return {}
    runs = [_made(model, inputs, asked, turn) for turn in (1, 2)]
    return {
        name: tuple(one.shape)
        for name, one, other in zip(asked, *runs, strict=True)
        if isinstance(one, np.ndarray) and one.shape == getattr(other, "shape", None)
    }


def constants_by_running(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], names: Collection[str]
) -> dict[str, np.ndarray]:
    """Return values that depend on sizes alone; none if the file does not run.

    Args:
        model: model with its weights.
        inputs: inputs of the graph, all sizes fixed.
        names: requested values.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        inner = any(attribute.HasField("g") for attribute in node.attribute)
        by_sizes = node.op_type in _SIZES or known.issuperset(filter(None, node.input))
        if by_sizes and not inner and not node.op_type.startswith(_RANDOM):
            known.update(node.output)
    asked = [name for name in names if name in known]
    values = _made(model, inputs, asked, 1) if asked else []
    return {n: x for n, x in zip(asked, values, strict=True) if isinstance(x, np.ndarray)}


def _made(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], asked: Sequence[str], turn: int
) -> list[object]:
    """Return the requested values of a run; None for each if the file does not run."""
    import onnxruntime

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # fatal errors only: failures are expected here
    try:
        session = onnxruntime.InferenceSession(
            whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(list(asked), _given(inputs, turn)))
    except Exception:  # any error of a foreign file: its shapes stay unknown
        return [None] * len(asked)


def _of_sizes(graph: onnx.GraphProto) -> list[str]:
    """Return the values whose shapes do not depend on values."""
    by_value: set[str] = set()
    names = []
    for node in graph.node:
        if node.op_type in _BY_VALUE or not by_value.isdisjoint(node.input):
            by_value.update(node.output)
        else:
            names += [name for name in node.output if name]
    return names


def _given(inputs: Sequence[onnx.ValueInfoProto], turn: int) -> dict[str, np.ndarray]:
    """Return normal random inputs; integer inputs are 1 in the first run and 2 in the second."""
    generator = np.random.default_rng(turn)
    inputs_by_name = {}
    for value in inputs:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        numbers = np.full(sizes, turn, kind)
        if np.issubdtype(kind, np.floating):
            numbers = np.asarray(generator.standard_normal(sizes)).astype(kind)
        inputs_by_name[value.name] = numbers
    return inputs_by_name

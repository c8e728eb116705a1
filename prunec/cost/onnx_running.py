"""Shapes that ONNX's inference cannot tell, from two runs of the file under onnxruntime.

Inference knows neither a padding that is computed nor the sizes of an ``Expand`` behind a choice,
and is wrong about some operators. What the file makes of other numbers is looked at twice: a shape
that follows from values, as the number of boxes found, is not taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import helper

_BY_VALUE = frozenset(
    {"NonZero", "Unique", "NonMaxSuppression", "Compress", "Loop", "Scan", "If", "SequenceMap"}
)
"""Operators whose results may have a shape that follows from values."""
_SIZES = frozenset({"Shape", "Size"})
_RANDOM = ("Random", "Multinomial", "Bernoulli")


def sizes_by_running(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], names: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of those of some values that onnxruntime finds twice; none if it fails.

    Args:
        model: the file, its weights in it.
        inputs: what a caller gives, all sizes fixed.
        names: the values that are asked for.
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
    """Return those of some values that follow from sizes alone; none if the file does not run.

    Args:
        model: the file, its weights in it.
        inputs: what a caller gives, all sizes fixed.
        names: the values that are asked for.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        inner = any(attribute.HasField("g") for attribute in node.attribute)
        by_sizes = node.op_type in _SIZES or known.issuperset(filter(None, node.input))
        if by_sizes and not inner and not node.op_type.startswith(_RANDOM):
            known.update(node.output)
    asked = [name for name in names if name in known]
    found = _made(model, inputs, asked, 1) if asked else []
    return {n: x for n, x in zip(asked, found, strict=True) if isinstance(x, np.ndarray)}


def _made(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], asked: Sequence[str], turn: int
) -> list[object]:
    """What a run makes of some values; None for each if the file does not run."""
    import onnxruntime

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(list(asked), _given(inputs, turn)))
    except Exception:  # whatever a foreign file leads to: its shapes stay unknown
        return [None] * len(asked)


def _of_sizes(graph: onnx.GraphProto) -> list[str]:
    """The values whose shapes cannot follow from values by one of the operators above."""
    by_value: set[str] = set()
    found = []
    for node in graph.node:
        if node.op_type in _BY_VALUE or not by_value.isdisjoint(node.input):
            by_value.update(node.output)
        else:
            found += [name for name in node.output if name]
    return found


def _given(inputs: Sequence[onnx.ValueInfoProto], turn: int) -> dict[str, np.ndarray]:
    """Normal numbers; whole ones are 1 in the first run and 2 in the second."""
    generator = np.random.default_rng(turn)
    found = {}
    for value in inputs:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        numbers = np.full(sizes, turn, kind)
        if np.issubdtype(kind, np.floating):
            numbers = np.asarray(generator.standard_normal(sizes)).astype(kind)
        found[value.name] = numbers
    return found

"""Reading of an ONNX file for C: batch size 1, static shapes, constants folded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from prunec.errors import PassError
from prunec.wording import first_line

_KEPT = (
    "ConvAddFusion ConvMulFusion ConvBNFusion FuseReluClip GemmSumFusion MatMulAddFusion".split()
)
"""Optimisations of onnxruntime that fold operators into weights: the weights must stay the
network's own."""
OLDEST_OPSET = 13
"""From opset 13 on, axes and limits of the operators here are operands, not attributes."""
REMEDY = "Export another form, or replace the operator in the network."


@dataclass(frozen=True)
class Call:
    """One node of the graph.

    Attributes:
        operator: its ONNX operator.
        name: name of the node, for messages.
        operands: names of its inputs; empty where an optional one is left out.
        results: names of its outputs.
        options: its attributes.
    """

    operator: str
    name: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    options: Mapping[str, object]

    def refuse(self, what: str) -> PassError:
        """Return the error for a node that has no kernel; ``what`` follows the operator."""
        reason = " ".join(f"C has no {self.operator} {what}".split())
        return PassError(f"{reason} (node {self.name!r})", remedy=REMEDY)

    def whole(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self.options.get(name, default)
        assert isinstance(value, int)
        return value

    def real(self, name: str, default: float) -> float:
        """Return a float attribute."""
        value = self.options.get(name, default)
        assert isinstance(value, int | float)
        return float(value)

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        value = self.options.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def numbers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return a list attribute of integers."""
        value = self.options.get(name)
        return tuple(value) if isinstance(value, list | tuple) else tuple(default)


@dataclass(frozen=True)
class Network:
    """A graph of batch size 1.

    Attributes:
        inputs, outputs: names in order.
        calls: nodes in order of computation.
        constants: name → values known before the run.
        shapes: name → shape of every computed tensor.
        whole: names of inputs and outputs without a batch axis, the same for every batch.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    whole: frozenset[str]


def read_network(path: Path) -> Network:
    """Return the graph of an ONNX file at batch size 1.

    Raises:
        PassError: a shape is unknown, a tensor is not float32, or onnxruntime cannot load the file.
    """
    model = onnx.load(path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise PassError(
            f"C needs opset {OLDEST_OPSET} or later, the ONNX file has {opset}",
            remedy=f"Export ONNX at a later one ([[export]] opset, --opset {OLDEST_OPSET}).",
        )
    whole = frozenset(_without_samples(model))
    folded = _folded(model)
    graph = folded.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    calls = tuple(_calls(graph, constants))
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    shapes = _shapes(folded, calls, inputs, constants)
    outputs = tuple(value.name for value in graph.output)
    _each_of_one_sample(calls, inputs, outputs, whole)
    return Network(inputs, outputs, calls, constants, shapes, whole)


def _each_of_one_sample(
    calls: Sequence[Call], inputs: Sequence[str], outputs: Sequence[str], whole: frozenset[str]
) -> None:
    """Refuse outputs computed over the whole batch: C computes one sample at a time."""
    makers: dict[str, Call] = {}
    by_samples = set(inputs) - whole
    for call in calls:
        makers |= dict.fromkeys(call.results, call)
        if by_samples & set(call.operands):
            by_samples |= set(call.results)
    for name in outputs:
        if name in whole & by_samples:
            raise makers[name].refuse(f"which computes {name!r} of all samples together")


def _without_samples(model: onnx.ModelProto) -> Iterator[str]:
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or not dims[0].dim_param:
            yield value.name


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model at batch size 1 with its constants folded by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Basic ones fold constants and write no operators of onnxruntime's own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1
    # Shapes that were inferred for an open batch would contradict the one that is set.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    # data_prop follows the values of shapes, so that computed sizes are known.
    return onnx.shape_inference.infer_shapes(_optimised(model, options), data_prop=True)


def _optimised(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(saved)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_KEPT,
            )
        except Exception as error:
            raise PassError(
                f"onnxruntime cannot load the ONNX file for one sample: {first_line(error)}",
                remedy="Try another opset ([[export]] opset, --opset).",
            ) from error
        return onnx.load(saved)


def _calls(graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> Iterator[Call]:
    for number, node in enumerate(graph.node):
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in options:
            constants[node.output[0]] = numpy_helper.to_array(options["value"])
            continue
        name = node.name or f"{node.op_type}_{number}"
        yield Call(node.op_type, name, tuple(node.input), tuple(node.output), options)


_COMPUTED = (onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL)
"""Types of computed tensors; bools are stored as 1.0 and 0.0 and never leave the network."""


def _shapes(
    model: onnx.ModelProto,
    calls: Sequence[Call],
    inputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
) -> dict[str, tuple[int, ...]]:
    graph, known = model.graph, {}
    outputs = {value.name for value in graph.output}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = (kind.elem_type, tuple(dim.dim_value for dim in dims))
    read = {name for call in calls for name in call.operands} | outputs
    makers = {name: call for call in calls for name in call.results if name in read}
    for name in (*inputs, *makers):
        if name not in known:
            raise makers[name].refuse(f"with a result {name!r} of unknown shape")
        # Only inside the network may a bool stand as a float.
        kinds = _COMPUTED if name in makers and name not in outputs else _COMPUTED[:1]
        if known[name][0] not in kinds:
            raise _not_float(name, known[name][0], makers)
    return {name: sizes for name, (_, sizes) in known.items() if name not in constants}


def _not_float(name: str, kind: int, makers: Mapping[str, Call]) -> PassError:
    kind_name = onnx.TensorProto.DataType.Name(kind).lower()
    if name in makers:
        return makers[name].refuse(f"with a result of {kind_name}, not float32")
    return PassError(f"C takes float32 inputs, {name!r} is {kind_name}", remedy=REMEDY)

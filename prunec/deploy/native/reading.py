"""An ONNX file as C computes it: of one sample, every size a number, constants folded."""

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
"""What onnxruntime would fuse into weights: they stay the network's."""
OLDEST_OPSET = 13
"""Since then axes and limits are operands."""
REMEDY = "Ship another form, or replace the operator in the network."


@dataclass(frozen=True)
class Call:
    """One operator of the graph.

    Attributes:
        operator: its name in the standard.
        name: of the node, for messages.
        operands: names of what it reads; empty where an optional one is left out.
        results: names of what it makes.
        options: its attributes.
    """

    operator: str
    name: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    options: Mapping[str, object]

    def refuse(self, what: str) -> PassError:
        """Return the error for a call that C does not compute."""
        said = " ".join(f"C has no {self.operator} {what}".split())
        return PassError(f"{said} (node {self.name!r})", remedy=REMEDY)

    def whole(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        found = self.options.get(name, default)
        assert isinstance(found, int)
        return found

    def real(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        found = self.options.get(name, default)
        assert isinstance(found, int | float)
        return float(found)

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a word."""
        found = self.options.get(name, default)
        return found.decode() if isinstance(found, bytes) else str(found)

    def numbers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        found = self.options.get(name)
        return tuple(found) if isinstance(found, list | tuple) else tuple(default)


@dataclass(frozen=True)
class Network:
    """A graph of one sample.

    Attributes:
        inputs: names in order.
        outputs: names in order.
        calls: in order of computation.
        constants: name → values that are known.
        shapes: name → sizes of every tensor that is computed.
        whole: names of inputs and outputs that hold no sample, the same in every batch.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    whole: frozenset[str]


def read_network(path: Path) -> Network:
    """Return the graph of an ONNX file, of one sample.

    Raises:
        PassError: a size is not known, a number is no float32, or onnxruntime cannot load the file.
    """
    model = onnx.load(path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise PassError(
            f"C is made of opset {OLDEST_OPSET} or later, and the ONNX file has opset {opset}",
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
    """Refuse an output that is one for all samples: C computes them one by one."""
    makers: dict[str, Call] = {}
    by_samples = set(inputs) - whole
    for call in calls:
        makers |= dict.fromkeys(call.results, call)
        if by_samples & set(call.operands):
            by_samples |= set(call.results)
    for name in outputs:
        if name in whole & by_samples:
            raise makers[name].refuse(f"that makes {name!r} of all samples together")


def _without_samples(model: onnx.ModelProto) -> Iterator[str]:
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or not dims[0].dim_param:
            yield value.name


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every named size 1, as onnxruntime folds its constants."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
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
"""Types of what is computed: true and false are 1.0 and 0.0, and stay within the network."""


def _shapes(
    model: onnx.ModelProto,
    calls: Sequence[Call],
    inputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
) -> dict[str, tuple[int, ...]]:
    graph, found = model.graph, {}
    outputs = {value.name for value in graph.output}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = (kind.elem_type, tuple(dim.dim_value for dim in dims))
    read = {name for call in calls for name in call.operands} | outputs
    makers = {name: call for call in calls for name in call.results if name in read}
    for name in (*inputs, *makers):
        if name not in found:
            raise makers[name].refuse(f"whose result {name!r} has a size that is not known")
        kinds = _COMPUTED if name in makers and name not in outputs else _COMPUTED[:1]
        if found[name][0] not in kinds:
            raise _not_float(name, found[name][0], makers)
    return {name: sizes for name, (_, sizes) in found.items() if name not in constants}


def _not_float(name: str, kind: int, makers: Mapping[str, Call]) -> PassError:
    said = onnx.TensorProto.DataType.Name(kind).lower()
    if name in makers:
        return makers[name].refuse(f"that makes {said}, not float32")
    return PassError(f"C takes inputs of float32, and {name!r} is {said}", remedy=REMEDY)

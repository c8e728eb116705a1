"""Exporter of OpenVINO's intermediate representation: a graph as XML, with its weights beside
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import openvino

from prunec.cost.lifetimes import Flow, Operation
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.wording import first_line

_SECTION = "prunec"
_NO_OPERATORS = frozenset({"Parameter", "Const", "Result"})
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Result"})


@dataclass(frozen=True)
class ToOpenvino(Exact):
    """Convert the ONNX file for OpenVINO, with weights in float32.

    OpenVINO's default stores halves: 65504 for larger values, and 0 for smaller ones.
    """

    suffix: ClassVar[str] = ".xml"
    beside: ClassVar[tuple[str, ...]] = (".bin",)
    reads: ClassVar[str] = "onnx"

    def write(self, source: Source, path: Path) -> None:
        """Write the graph, and the weights as ``.bin`` beside it.

        Raises:
            PassError: OpenVINO cannot express the network.
        """
        try:
            model = openvino.convert_model(source.files[self.reads])
        except Exception as error:
            raise PassError(
                f"OpenVINO {openvino.__version__} cannot read the ONNX file: {first_line(error)}",
                remedy="Try another opset ([[export]] opset, --opset).",
            ) from error
        for key, value in sorted(source.metadata.items()):
            model.set_rt_info(value, [_SECTION, key])
        openvino.save_model(model, path, compress_to_fp16=False)

    def read_back(self, path: Path) -> Written:
        """Return the interface of a file, and a digest of it and its weights."""
        try:
            model = openvino.Core().read_model(path)
            data = path.read_bytes() + path.with_suffix(".bin").read_bytes()
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        return Written(
            inputs={x.get_any_name(): _sizes(x.get_partial_shape()) for x in model.inputs},
            outputs=tuple(x.get_any_name() for x in model.outputs),
            graph_digest=file_digest(data),
        )

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        try:
            model = openvino.Core().read_model(path)
            return _flow(model)
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name, operator) of every node, those of branches and loops included.

        An operator is named with the operator set that its definition is from: ``opset8.MaxPool``.
        """
        try:
            layers = list(ElementTree.parse(path).iter("layer"))
        except (OSError, ElementTree.ParseError) as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        return [
            (layer.get("name", ""), f"{layer.get('version')}.{layer.get('type')}")
            for layer in layers
            if layer.get("type") not in _NO_OPERATORS
        ]


def _flow(model: openvino.Model) -> Flow:
    """Return the activations of one sample; constants and values computed from them are not
    activations.
    """
    if model.is_dynamic():
        model.reshape({x: [1, *list(x.get_partial_shape())[1:]] for x in model.inputs})
    inputs = tuple(_value(x) for x in model.inputs)
    held = {_value(x): _bytes(x) for x in model.inputs}
    operations: list[Operation] = []
    for node in model.get_ordered_ops():
        reads = tuple(_value(entry.get_source_output()) for entry in node.inputs())
        if not any(read in held for read in reads):
            continue
        held |= {_value(x): _bytes(x) for x in node.outputs()}
        writes = tuple(map(_value, node.outputs()))
        operations.append(Operation(node.get_friendly_name(), node.get_type_name(), reads, writes))
    views = {op.writes[0]: op.reads[0] for op in operations if op.operator in _VIEWS}
    outputs = tuple(_value(x.output(0)) for x in model.get_results())
    return Flow(inputs, outputs, tuple(operations), held, views)


def _value(output: openvino.Output) -> str:
    return f"{output.get_node().get_friendly_name()}.{output.get_index()}"


def _bytes(output: openvino.Output) -> int:
    sizes = [int(size) for size in output.get_shape()]
    return int(output.get_element_type().size) * math.prod(sizes)


def _sizes(shape: openvino.PartialShape) -> tuple[str | int, ...]:
    return tuple("batch" if size.is_dynamic else size.get_length() for size in shape)

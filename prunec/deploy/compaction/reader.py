"""Conversion of a finished file to the nodes of the analyses."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from prunec.cost.onnx_plain import is_standard
from prunec.cost.onnx_sizes import inputs_of
from prunec.deploy.compaction.observed import Observed, inner_graphs, names_read
from prunec.deploy.compaction.operators import TRANSLATIONS
from prunec.deploy.compaction.reading import Call, Reading
from prunec.deploy.compaction.shape_of import OPERATOR, ShapeReaders
from prunec.deploy.compaction.source import SourceFile
from prunec.graph.capture import Captured
from prunec.graph.capture.node import Node

_SHAPES = ("Shape", "Size")


def captured_file(model: onnx.ModelProto, observed: Observed) -> Captured:
    """Return a file as a captured network, whose source is the file.

    Args:
        model: model with its weights.
        observed: values of the file.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    reading = Reading(observed, opset)
    for value in inputs_of(model.graph):
        _give(reading, value.name)
    readers = ShapeReaders(model.graph, observed)
    counted: set[int] = set()
    shapes: list[Node] = []
    for number, proto in enumerate(model.graph.node):
        outputs = [name for name in proto.output if name]
        if all(name in observed.constant for name in outputs):
            continue
        if all(name in observed.shaped for name in outputs):
            if proto.op_type in _SHAPES and proto.input[0] in reading.by_name:
                source = reading.by_name[proto.input[0]]
                rank = len(source.shape) if source.is_tensor else 0
                axes, sized = readers.axes_that_matter(proto, rank)
                counted |= sized
                node = Node(
                    name=proto.name or outputs[0], kind="call", operator=OPERATOR,
                    arguments={"input": source, "axes": axes},
                )  # fmt: skip
                reading.nodes.append(node)
                shapes.append(node)
            continue
        _translate(Call(reading, proto, number))
    ends = tuple(reading.value(value.name) for value in model.graph.output)
    output = Node(name="output", kind="output", arguments={"output": ends, "shapes": tuple(shapes)})
    source_file = SourceFile(
        model, observed, reading.numbers, reading.operands, reading.named, reading.places,
        frozenset(counted),
    )  # fmt: skip
    stored = [node for node in reading.nodes if node.kind == "stored" and node.users]
    others = [node for node in reading.nodes if node.kind != "stored"]
    state = {node.stored: node.tensor for node in stored if node.tensor is not None}
    return Captured((*stored, *others, output), state, (), source_file)


def _give(reading: Reading, name: str) -> None:
    seen = reading.observed.values[name]
    node = Node(
        name=name, kind="input", value=seen.shape, dtype=seen.dtype, dynamic=seen.open,
    )  # fmt: skip
    reading.nodes.append(node)
    reading.by_name[name] = node
    reading.named[node] = name


def _translate(call: Call) -> None:
    """Create the node of an operator, translated if it is understood."""
    translation: Callable[[Call], Node | None] | None = None
    plain = is_standard(call.proto) and not any(inner_graphs(call.proto))
    if plain and all(
        name in call.reading.observed.values
        for name in (*call.proto.input, *call.proto.output)
        if name
    ):
        translation = TRANSLATIONS.get(call.proto.op_type)
    if translation is not None and translation(call) is not None:
        return
    known = call.reading.observed
    read = [name for name in names_read(call.proto) if name not in known.constant]
    named = {}
    for name in read:
        node = call.reading.value(name)
        named[name] = node
        for index, given in enumerate(call.proto.input):
            if given == name:
                call.keep(index, node)
    call.call(call.proto.op_type, named)

"""A copy of an ONNX file that outputs every intermediate value."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import shape_inference


def with_all_outputs(path: Path) -> tuple[bytes, list[dict[str, str]]]:
    """Return a copy of a file with every intermediate value as an output.

    Constants and values computed from constants alone are left out; so are values without a type.

    Returns:
        The copy, serialised; name, operator and node of each of its outputs, in order of
        computation.
    """
    model = onnx.load(path)
    typed = shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in (*typed.value_info, *typed.output)}
    stored = {tensor.name for tensor in model.graph.initializer}
    reached = {value.name for value in model.graph.input} - stored
    layers, outputs = [], []
    for node in model.graph.node:
        # What follows from weights alone is no layer's value, and may be folded away by a runtime.
        if not reached & set(node.input):
            continue
        reached |= set(node.output)
        for name in node.output:
            # Outputs of a graph need a type; a value without one is left out.
            if name in known:
                outputs.append(known[name])
                layers.append({"name": name, "operator": node.op_type, "node": node.name})
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model.SerializeToString(deterministic=True), layers

"""Intermediate values of an ONNX file: a copy of it has them all as outputs.

A device runs that copy with its runtime alone, and ``check.py --layers`` names the first value that
differs from the one computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import shape_inference

LAYERS = "layers"
"""Stem of the copy beside the form's file, and name of the folder with the values."""


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


def values_between(copy: bytes, given: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the intermediate values of the first sample, computed by onnxruntime on one thread.

    Args:
        copy: the file of :func:`with_all_outputs`.
        given: one array per input, batch first.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: warnings would go to the user's screen
    session = onnxruntime.InferenceSession(copy, options, ["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    # One sample: the values between layers are many times larger than the inputs.
    feed = {n: np.ascontiguousarray(x[:1]) for n, x in zip(names, given, strict=True)}
    return list(session.run(None, feed))

"""Names and digests that identify a shipped file."""

from __future__ import annotations

import hashlib

import onnx

from prunec.cost import ROLE

WEIGHTS_DIGEST = "prunec.weights_digest"
GRAPH_DIGEST = "prunec.graph_digest"
RECIPE_DIGEST = "prunec.recipe_digest"
MACS = "prunec.macs"
MADE_WITH = "prunec.made_with"
FEEDING = "prunec.feeding"
"""Key of the input description, as JSON: inputs, mean, std, preprocessing of images, labels."""


def input_names(count: int) -> tuple[str, ...]:
    """Return the names of a file's inputs: ``input``, or ``input_0``, ``input_1`` and so on."""
    return ("input",) if count == 1 else tuple(f"input_{i}" for i in range(count))


def output_names(count: int) -> tuple[str, ...]:
    """Return the names of a file's outputs: ``logits``, or ``output_0``, ``output_1`` and so on."""
    return ("logits",) if count == 1 else tuple(f"output_{i}" for i in range(count))


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of a file."""
    return {entry.key: entry.value for entry in model.metadata_props}


def graph_digest(model: onnx.ModelProto) -> str:
    """Return the sha256 of the graph of a file, without the values of its weights.

    It covers operators, attributes, wiring, inputs, outputs, opset and small constants; of weights
    and buffers (initialisers marked so) only name, type and shape. Metadata and comments do not
    count.
    """
    digest = hashlib.sha256()
    graph = model.graph
    messages = [*model.opset_import, *graph.input, *graph.output, *graph.node, *model.functions]
    for message in messages:
        digest.update(message.SerializeToString(deterministic=True) + b"\n")
    for tensor in graph.initializer:
        role = {entry.key: entry.value for entry in tensor.metadata_props}.get(ROLE, "")
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)} {role}\n".encode())
        if role not in ("parameter", "buffer"):
            digest.update(tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def file_digest(data: bytes) -> str:
    """Return the sha256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()

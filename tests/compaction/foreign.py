"""Finished files in the forms that other exporters write, and what they compute."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn


def exported(module: nn.Module, example: tuple[torch.Tensor, ...], opset: int) -> onnx.ModelProto:
    """A network as torch's older exporter writes it, its norms left in, its batch open."""
    names = [f"x{i}" for i in range(len(example))]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, example, file, dynamo=False, opset_version=opset, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, input_names=names,
            dynamic_axes={name: {0: "n"} for name in names},
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def run(model: onnx.ModelProto, *arrays: np.ndarray) -> list[np.ndarray]:
    """Outputs of a file for inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in session.get_inputs()]
    return [np.asarray(y) for y in session.run(None, dict(zip(names, arrays, strict=True)))]


def weights(*shape: int, seed: int = 0, dead: int = 0) -> np.ndarray:
    """Normal numbers; the first filters are zero."""
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    array[:dead] = 0
    return array


def file_of(
    nodes: list[onnx.NodeProto],
    tensors: dict[str, np.ndarray],
    *,
    inputs: dict[str, tuple[int | str, ...]] | None = None,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    """A file of nodes and stored tensors; its input is an image ``x`` if nothing else is said."""
    shapes = inputs or {"x": ("n", 3, 8, 8)}
    given = [helper.make_tensor_value_info(n, kind, shape) for n, shape in shapes.items()]
    made = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
    stored = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", given, made, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def image(batch: int = 2, size: int = 8, kind: type = np.float32) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(9).standard_normal((batch, 3, size, size)).astype(kind)

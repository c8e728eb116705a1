"""Filters of exact zeros in an int8 file, and the values its integers represent.

The quantiser gives such a filter a scale of 1. Its bias is stored in steps of input scale × filter
scale, and so is rounded to steps of the input: 0.4 becomes 0 for inputs from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from prunec.exporters._int8_calibration import LAYERS

Held = Mapping[str, onnx.TensorProto]

_LEAST = 2.0**-100  # smallest step of a bias; its scale is still a normal float32
_BITS = 24  # kept bits of a bias: the precision of float32
_LOWEST = "lowest"
_SUFFIX = "_quantized"  # added by the quantiser to names of tensors


@dataclass
class IntegerLayer:
    """Integer layer with its stored kernel and bias."""

    node: onnx.NodeProto
    kernel: onnx.NodeProto
    bias: onnx.NodeProto | None
    input_scale: float


def mend_zero_filters(model: onnx.ModelProto, weights: Held) -> int:
    """Give filters of exact zeros a scale that preserves their bias; return their number.

    Args:
        model: int8 model, changed in place.
        weights: tensors of the float model.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    return sum(_mend(layer, held, weights) for layer in integer_layers(model))


def keep_float(model: onnx.ModelProto, layers: Iterable[str]) -> None:
    """Insert a maximum with the lowest number after layers, which changes nothing.

    onnxruntime would turn a float layer between integers into an integer layer at load time, with
    its kernel rounded; a node between the layer and the next quantisation prevents that.
    """
    graph = model.graph
    lowest = np.array(np.finfo(np.float32).min, np.float32)
    left = set(layers)
    if left:
        graph.initializer.append(numpy_helper.from_array(lowest, _LOWEST))
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if node.name in left:
            name = node.output[0]
            node.output[0] = f"{name}_float"
            kept = onnx.helper.make_node(
                "Max", [node.output[0], _LOWEST], [name], f"{node.name}_float"
            )
            graph.node.insert(place + 1, kept)


def integer_layers(model: onnx.ModelProto) -> Iterator[IntegerLayer]:
    """Yield the layers with integer kernel and input."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type not in LAYERS or not {*node.input[:2]} <= made.keys():
            continue
        given, kernel = made[node.input[0]], made[node.input[1]]
        if kernel.input[0] in held:
            bias = made.get(node.input[2]) if len(node.input) > 2 else None
            scale = float(numpy_helper.to_array(held[given.input[1]]).reshape(-1)[0])
            yield IntegerLayer(node, kernel, bias, scale)


def dequantised(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return tensor of the network → (represented values, step of each value)."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    represented = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in held:
            continue
        stored = numpy_helper.to_array(held[node.input[0]]).astype(np.float64)
        step = _along(node, numpy_helper.to_array(held[node.input[1]]), stored.ndim)
        zero = _along(node, numpy_helper.to_array(held[node.input[2]]), stored.ndim)
        values = (stored - zero.astype(np.float64)) * step
        represented[node.input[0].removesuffix(_SUFFIX)] = (
            values,
            np.broadcast_to(step, values.shape),
        )
    return represented


def _along(node: onnx.NodeProto, values: np.ndarray, axes: int) -> np.ndarray:
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % axes
    return values.reshape([-1 if a == axis else 1 for a in range(axes)])


def _mend(layer: IntegerLayer, held: Held, weights: Held) -> int:
    kernel = numpy_helper.to_array(held[layer.kernel.input[0]])
    scales = numpy_helper.to_array(held[layer.kernel.input[1]]).copy()
    axis = next((a.i for a in layer.kernel.attribute if a.name == "axis"), 0) % kernel.ndim
    if scales.ndim == 0 or scales.size != kernel.shape[axis]:
        return 0
    zero = np.asarray(~kernel.any(axis=tuple(a for a in range(kernel.ndim) if a != axis)))
    if not zero.any():
        return 0
    # Any scale represents zeros; below, a bias that is not 0 replaces it.
    scales[zero] = float(scales[~zero].max()) if not zero.all() else 2.0**-7
    if layer.bias is not None:
        _keep_bias(layer, held, weights, scales, zero)
    _store(held[layer.kernel.input[1]], scales)
    return int(zero.sum())


def _keep_bias(
    layer: IntegerLayer, held: Held, weights: Held, scales: np.ndarray, zero: np.ndarray
) -> None:
    """Choose the scale of each zero filter such that its bias uses all bits; both change in
    place.
    """
    assert layer.bias is not None
    stored = numpy_helper.to_array(held[layer.bias.input[0]]).copy()
    steps = numpy_helper.to_array(held[layer.bias.input[1]]).copy()
    original = weights[layer.bias.input[0].removesuffix(_SUFFIX)]
    values = numpy_helper.to_array(original).astype(np.float64)[zero]
    # Bias = integer · (input scale · filter scale), so its own scale follows from the filter's.
    wanted = np.maximum(np.abs(values) / 2.0**_BITS, _LEAST) / layer.input_scale
    scales[zero] = np.where(values != 0, wanted, scales[zero])
    steps[zero] = scales[zero] * np.float32(layer.input_scale)
    stored[zero] = np.round(values / steps[zero].astype(np.float64))
    _store(held[layer.bias.input[0]], stored)
    _store(held[layer.bias.input[1]], steps)


def _store(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    kind = numpy_helper.to_array(tensor).dtype
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, kind), tensor.name))

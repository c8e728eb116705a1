"""Kernels and biases in a LiteRT file: found among the network's, and rounded to integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn

from prunec.deploy.losses import Stored
from prunec.exporters._int8_scales import LARGEST, filter_scales

# Orders of torch's axes in which LiteRT stores kernels: filters first, or last.
_ORDERS = {2: ((0, 1),), 3: ((0, 2, 1), (1, 2, 0)), 4: ((0, 2, 3, 1), (1, 2, 3, 0))}


@dataclass(frozen=True)
class Layer:
    """Layer of the float file.

    Attributes:
        name: name of its kernel in the network, or in the file.
        kernel: weights as the file stores them.
        bias: one number per filter; None if there is none.
        axis: axis of the filters in ``kernel``.
        shape: sizes of the kernel in the network; empty if it is not one of the network.
        order: torch's axes in the order of the file.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None
    axis: int
    shape: tuple[int, ...]
    order: tuple[int, ...]


def write_integers(model: Any, kernel: Any, bias: Any, layer: Layer, step: float) -> Stored:
    """Write the integers of a layer.

    Args:
        model: content of the file, changed in place.
        kernel: its tensor of the kernel.
        bias: its tensor of the bias; None if there is none.
        layer: the layer.
        step: scale of its input.

    Returns:
        The kernel that they represent, with the axes of the network's.
    """
    filters = np.moveaxis(layer.kernel, layer.axis, 0)
    scales = filter_scales(filters, layer.bias, step).astype(np.float32)
    along = scales.reshape([-1 if a == layer.axis else 1 for a in range(layer.kernel.ndim)])
    rounded = np.round(layer.kernel.astype(np.float64) / along.astype(np.float64))
    integers = np.clip(rounded, -LARGEST, LARGEST).astype(np.int8)
    store_values(model, kernel, integers)
    _scale(kernel, scales, layer.axis)
    if bias is not None and layer.bias is not None:
        steps = scales * np.float32(step)
        store_values(model, bias, np.round(layer.bias / steps.astype(np.float64)).astype(np.int32))
        _scale(bias, steps, 0)
    steps = np.broadcast_to(along.astype(np.float64), integers.shape)
    if not layer.shape:
        return Stored(integers * steps, steps)
    sizes = [layer.shape[a] for a in layer.order]
    back = np.argsort(layer.order)
    return Stored(*(x.reshape(sizes).transpose(back) for x in (integers * steps, steps)))


def _scale(tensor: Any, scales: np.ndarray, axis: int) -> None:
    tensor.quantization.scale = scales
    tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
    tensor.quantization.quantizedDimension = axis


def store_values(model: Any, tensor: Any, values: np.ndarray) -> None:
    """Store values of a tensor in a place of their own: tensors may share a buffer."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def drop_unread(model: Any) -> None:
    """Remove the values that no tensor reads any more."""
    read = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    read |= {entry.buffer for entry in model.metadata or ()}
    for place, buffer in enumerate(model.buffers):
        if place not in read:
            buffer.data = None


def packed(model: Any) -> bytes:
    """Return the bytes of a file."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def stored_kernels(module: nn.Module) -> dict[bytes, tuple[Any, ...]]:
    """Return bytes as LiteRT stores them → (name, sizes, order of axes) of every kernel."""
    kernels: dict[bytes, tuple[Any, ...]] = {}
    for name, parameter in module.named_parameters():
        values = parameter.detach().cpu().numpy()
        for order in _ORDERS.get(values.ndim, ()):
            data = np.ascontiguousarray(values.transpose(order)).tobytes()
            kernels.setdefault(data, (name, values.shape, order))
    return kernels

"""Sums of integer products that a processor may cut off.

Integer kernels of AVX2 and AVX-512 without VNNI add two neighbouring products of an unsigned and a
signed byte in 16 bits, and cut off what is larger (the instruction VPMADDUBSW). VNNI and ARM's dot
product add in 32 bits. So a file whose pairs fit 16 bits computes the same everywhere; another one
may answer correctly on one processor and wrongly on the next.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from prunec.exporters._int8_filters import integer_layers

_BYTE = 255  # largest activation
_LARGEST = 2**15 - 1  # largest sum in 16 bits


def cut_off(model: onnx.ModelProto) -> dict[str, int]:
    """Return node name → number of filters with two weights whose products may exceed 16 bits.

    Runtimes pack the weights of a filter in orders of their own, so any two of a filter may be
    neighbours. The largest sum takes inputs of 255 at the two largest or the two lowest weights,
    and of 0 at a single one.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    layers: dict[str, int] = {}
    for layer in integer_layers(model):
        kernel = numpy_helper.to_array(held[layer.kernel.input[0]])
        axis = next((a.i for a in layer.kernel.attribute if a.name == "axis"), 0) % kernel.ndim
        filters = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1).astype(np.int64)
        zeros = np.zeros((len(filters), 2), np.int64)
        ordered = np.sort(np.concatenate([filters, zeros], 1), axis=1)
        sums = np.maximum(ordered[:, -2:].sum(1), -ordered[:, :2].sum(1))
        if count := int((_BYTE * sums > _LARGEST).sum()):
            layers[layer.node.name] = count
    return layers


def cut_off_remarks(model: onnx.ModelProto) -> list[str]:
    """Return a sentence that names these layers; none if there are none."""
    layers = cut_off(model)
    if not layers:
        return []
    shown = ", ".join(f"{name} ({count} filters)" for name, count in list(layers.items())[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return [
        f"sums of two products may exceed 16 bits in {shown}{more}: processors without VNNI or "
        "ARM's dot product cut them off, and answer differently; weight_bits = 7 fits everywhere"
    ]

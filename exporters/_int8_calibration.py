"""Values of a file on real images: their ranges, and the error of integers in each layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from torch import Tensor

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators with integer kernels in an int8 file."""

Range = tuple[float, float]
Inputs = tuple[np.ndarray, ...]

_AT_ONCE = 8  # images per run, which bounds the memory for all their values
_LEVELS = 255  # steps of an unsigned byte
_SAMPLE = 2**17  # values of a tensor from which a percentile is computed, at least


class Values(Protocol):
    """Float network of which every value can be read."""

    def values(self, batches: Sequence[Inputs]) -> Iterator[dict[str, np.ndarray]]:
        """Yield name → value, for a few images at a time."""


class Session:
    """Model in memory, run on one thread."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._names = [entry.name for entry in self._session.get_inputs()]

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs."""
        outputs = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        return [np.asarray(values) for values in outputs]


class Probe:
    """Model of which every float value can be read."""

    def __init__(self, model: onnx.ModelProto) -> None:
        probed = onnx.shape_inference.infer_shapes(model)
        known = {value.name: value for value in probed.graph.value_info}
        outputs = {value.name for value in probed.graph.output}
        inside = [
            known[name]
            for node in probed.graph.node
            for name in node.output
            if name in known and name not in outputs and _is_float(known[name])
        ]
        self._inputs = [value.name for value in probed.graph.input]
        self._names = [*(value.name for value in probed.graph.output), *(v.name for v in inside)]
        probed.graph.output.extend(inside)
        self._session = Session(probed)

    def values(self, batches: Sequence[Inputs]) -> Iterator[dict[str, np.ndarray]]:
        """Yield name → value of every float, for a few images at a time."""
        for batch in batches:
            for first in range(0, len(batch[0]), _AT_ONCE):
                part = [x[first : first + _AT_ONCE] for x in batch]
                outputs = self._session.run(part)
                yield dict(zip((*self._inputs, *self._names), (*part, *outputs), strict=True))


def arrays_of(batches: Iterable[tuple[Tensor, ...]]) -> list[Inputs]:
    """Return batches as arrays."""
    return [tuple(x.cpu().numpy() for x in batch) for batch in batches]


def samples_at_once(
    batches: Sequence[Inputs], values_of: Callable[[Inputs], dict[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield name → values of a few samples, from a network that takes one.

    Args:
        batches: inputs, batch first; an input shorter than the longest belongs to all samples.
        values_of: function of the inputs of one sample: name → value.
    """
    for batch in batches:
        count = max(len(x) for x in batch)
        for first in range(0, count, _AT_ONCE):
            parts = [
                values_of(tuple(x[i : i + 1] if len(x) == count else x for x in batch))
                for i in range(first, min(first + _AT_ONCE, count))
            ]
            yield {
                name: np.concatenate([part[name].reshape(-1) for part in parts])
                for name in parts[0]
            }


def ranges_of(
    probe: Values, batches: Sequence[Inputs], percentiles: Sequence[float]
) -> dict[float, dict[str, Range]]:
    """Return percentile → tensor → (low, high), the mean over parts of the images."""
    ranges: dict[float, dict[str, list[Range]]] = {share: {} for share in percentiles}
    wanted = [100 - share for share in percentiles] + list(percentiles)
    for values in probe.values(batches):
        for name, tensor in values.items():
            if not tensor.size or tensor.dtype != np.float32:
                continue
            ends = _ends(tensor, wanted)
            for share, low, high in zip(percentiles, ends, ends[len(percentiles) :], strict=False):
                # Ranges contain 0, so that it has an exact integer.
                ranges[share].setdefault(name, []).append((min(low, 0.0), max(high, 0.0)))
    return {share: {n: _mean(pairs) for n, pairs in of.items()} for share, of in ranges.items()}


def _ends(tensor: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Return percentiles of a tensor: the extremes of all values, others from a part of the
    values.
    """
    flat = tensor.reshape(-1)
    stride = max(1, flat.size // _SAMPLE)
    # An odd stride does not fall into step with rows of even length.
    ends: list[float] = np.percentile(flat[:: stride | 1], shares).tolist()
    outermost = {0.0: float(flat.min()), 100.0: float(flat.max())}
    return [outermost.get(share, end) for share, end in zip(shares, ends, strict=True)]


def _mean(pairs: Sequence[Range]) -> Range:
    low, high = np.mean(pairs, axis=0).tolist()
    return low, high


def layers_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return node name → name of its kernel, for every layer that can be int8."""
    held = {tensor.name for tensor in model.graph.initializer}
    return {
        node.name: node.input[1]
        for node in model.graph.node
        if node.op_type in LAYERS and node.input[1] in held
    }


def errors_of(
    model: onnx.ModelProto,
    probe: Probe,
    images: Inputs,
    ranges: Mapping[str, Range],
    *,
    bits: int,
) -> dict[str, float]:
    """Return node name → relative error (L2) of its outputs if this layer alone is integer.

    Args:
        model: float network.
        probe: probe of it.
        images: real images; the first few are used.
        ranges: tensor → range of its values.
        bits: bits of a weight.
    """
    values = next(probe.values([images]))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = layers_of(model)
    return {
        node.name: _error(model, node, held, values, ranges, 2 ** (bits - 1) - 1)
        for node in model.graph.node
        if node.name in layers
    }


def _error(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    held: Mapping[str, onnx.TensorProto],
    values: Mapping[str, np.ndarray],
    ranges: Mapping[str, Range],
    largest: int,
) -> float:
    given, right = values[node.input[0]], values[node.output[0]]
    kernel = numpy_helper.to_array(held[node.input[1]])
    alone = copy.deepcopy(node)
    stored = [held[name] for name in node.input[2:]]
    axis = _axis(node)
    stored.append(numpy_helper.from_array(_rounded_kernel(kernel, axis, largest), node.input[1]))
    graph = onnx.helper.make_graph(
        [alone],
        "layer",
        [_value(node.input[0], given)],
        [_value(node.output[0], right)],
        stored,
    )
    layer = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    layer.ir_version = model.ir_version
    rounded = Session(layer).run([_rounded(given, ranges[node.input[0]])])[0]
    size = float(np.square(right.astype(np.float64)).sum())
    gap = float(np.square(rounded.astype(np.float64) - right).sum())
    # Outputs that are all zero have no relative error: any that moves counts as very large.
    return float(np.sqrt(gap / max(size, 1e-300)))


def _axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in a layer's kernel."""
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else -1


def _rounded(values: np.ndarray, ends: Range) -> np.ndarray:
    # A range of 0 alone has no step; any step represents 0.
    step = (ends[1] - ends[0]) / _LEVELS or 1.0
    zero = np.round(-ends[0] / step)
    levels = np.clip(np.round(values / step) + zero, 0, _LEVELS)
    return np.asarray((levels - zero) * step, np.float32)


def _rounded_kernel(kernel: np.ndarray, axis: int, largest: int) -> np.ndarray:
    others = tuple(a for a in range(kernel.ndim) if a != axis % kernel.ndim)
    step = np.abs(kernel).max(axis=others, keepdims=True) / largest
    step = np.where(step > 0, step, 1.0)
    return np.asarray(np.round(kernel / step) * step, np.float32)


def _value(name: str, values: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)

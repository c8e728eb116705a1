"""Counts MACs and parameters of an ONNX file by ONNX's own shape inference, without torch.

Definition, per sample:

- ``Conv`` and ``Gemm``/``MatMul``: one MAC for each output element and each weight it reads;
  positions of the zero padding count as all others do. ``ConvTranspose``: one MAC for each input
  element and each weight it meets. ``Einsum`` of two operands: the product of all index sizes.
- Non-zero MACs: the same with the weights that are not 0. A product of two activations counts
  whole, and so does a weight that is computed in the graph (by ``DequantizeLinear``, say).
- Every other operator of the known list counts nothing; one that is not listed is refused.
- Parameters: floating-point initialisers, each once however often it is read, except running
  statistics of batch norm, limits of ``Clip``, scales of ``Resize`` and the like, single numbers in
  arithmetic, and whatever the exporter marked as buffer or constant. Integers (axes, shapes) never
  count, but for quantised weights under ``DequantizeLinear``.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper

from prunec.cost import Cost, LayerCost
from prunec.cost.onnx_operators import FREE, macs_of
from prunec.cost.onnx_parameters import is_parameter, uses
from prunec.cost.onnx_shapes import Shapes, infer
from prunec.errors import PrunecError

# These move weights about without adding or dropping one, so zeros can be counted at the source.
_MOVES = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def count_onnx(model: Path | str | onnx.ModelProto) -> Cost:
    """Return the cost of one sample of an ONNX network.

    Args:
        model: a file, or a model with its weights in it. The first axis of every input is the
            batch: bound to 1 when it is dynamic, divided out when it is fixed.

    Raises:
        PrunecError: the file cannot be read, a size other than the batch is not fixed, or the graph
            holds an operator whose MACs are not known.
    """
    proto = model if isinstance(model, onnx.ModelProto) else _load(Path(model))
    _refuse_unknown(proto)
    shapes = infer(proto)
    constants = _Constants(proto.graph)
    layers = [_layer(node, shapes, constants) for node in proto.graph.node]
    sizes = _parameter_sizes(proto.graph, constants)
    return Cost(
        layers=tuple(layer for layer in layers if layer is not None),
        params=sum(size for size, _ in sizes),
        nonzero_params=sum(nonzero for _, nonzero in sizes),
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise PrunecError(
            f"{path} cannot be read as an ONNX file: {error}", remedy="Export it again."
        ) from error


class _Constants:
    """The initialisers of a graph, found also behind operators that only move them about."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._moved = {
            node.output[0]: node.input[0] for node in graph.node if node.op_type in _MOVES
        }
        self._nonzero: dict[str, int] = {}

    def source(self, name: str) -> onnx.TensorProto | None:
        while name in self._moved:
            name = self._moved[name]
        return self._tensors.get(name)

    def nonzero(self, tensor: onnx.TensorProto) -> int:
        if tensor.name not in self._nonzero:
            self._nonzero[tensor.name] = int(np.count_nonzero(_array(tensor)))
        return self._nonzero[tensor.name]


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    if external_data_helper.uses_external_data(tensor):
        raise PrunecError(
            f"the weights of {tensor.name} lie in another file and were not loaded",
            remedy="Give the path of the .onnx file instead of the parsed model.",
        )
    return numpy_helper.to_array(tensor)


def _refuse_unknown(model: onnx.ModelProto) -> None:
    if model.graph.sparse_initializer:
        raise PrunecError("the graph holds sparse initialisers, which ONNX cannot infer shapes of")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in FREE | macs_of.keys():
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise PrunecError(
                f"operator {operator} at {_where(node)}: its MACs are not known",
                remedy="Count this network by hand, or teach prunec/cost/onnx_operators.py the "
                "operator.",
            )


def _layer(node: onnx.NodeProto, shapes: Shapes, constants: _Constants) -> LayerCost | None:
    if node.op_type not in macs_of:
        return None
    total = macs_of[node.op_type](node, shapes)
    if total % shapes.batch:
        raise PrunecError(
            f"{_where(node)}: {total:,} MACs do not divide by the fixed batch of {shapes.batch}",
            remedy="Export with a dynamic batch.",
        )
    macs = total // shapes.batch
    found = [tensor for name in reversed(node.input[:2]) if (tensor := constants.source(name))]
    if not found:
        return LayerCost(_where(node), node.op_type, macs, macs, 0, 0)
    weight, size = found[0], math.prod(found[0].dims)
    nonzero = constants.nonzero(weight)
    return LayerCost(
        name=weight.name.removesuffix(".weight"),
        operator=node.op_type,
        macs=macs,
        nonzero_macs=macs // size * nonzero if size else 0,
        params=size,
        nonzero_params=nonzero,
    )


def _parameter_sizes(graph: onnx.GraphProto, constants: _Constants) -> list[tuple[int, int]]:
    read = uses(graph)
    return [
        (math.prod(tensor.dims), constants.nonzero(tensor))
        for tensor in graph.initializer
        if is_parameter(tensor, read.get(tensor.name, ()))
    ]


def _where(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]

"""Counts MACs and parameters of an ONNX file by ONNX's own shape inference, without torch.

Definition, per sample:

- ``Conv`` and ``Gemm``/``MatMul``: one MAC for each output element and each weight it reads;
  positions of the zero padding count as all others do. ``ConvTranspose``: one MAC for each input
  element and each weight it meets. ``Einsum`` of two operands: the product of all index sizes.
  ``LSTM``, ``GRU``, ``RNN``: one MAC for each time step and each entry of W and R.
- What depends on no input of the graph, not even on the size of its batch, counts nothing: it is
  computed once, not once a sample.
- Non-zero MACs: the same with the weights that are not 0. Weights are initialisers, also behind
  operators that only move values. A product of two activations counts whole, and so does a weight
  that is computed in the graph (by ``DequantizeLinear``, say).
- Every other operator of the known list counts nothing; one that is not listed is refused.
- Parameters: floating-point initialisers, each once however often it is read, except running
  statistics of batch norm, limits of ``Clip``, scales of ``Resize`` and the like, single numbers in
  arithmetic, and whatever the exporter marked as buffer or constant. Integers (axes, shapes) never
  count, but for quantised weights under ``DequantizeLinear``.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx

from prunec.cost import Cost, LayerCost
from prunec.cost.onnx_constants import Constants
from prunec.cost.onnx_operators import FREE, RECURRENT, macs_of, weights_of
from prunec.cost.onnx_parameters import is_parameter, uses
from prunec.cost.onnx_reading import foreign_bytes, read_model
from prunec.cost.onnx_shapes import Shapes, infer
from prunec.errors import PrunecError


def count_onnx(model: Path | str | onnx.ModelProto) -> Cost:
    """Return the cost of one sample of an ONNX network.

    Args:
        model: a file, or a model with its weights in it. The first axis of every input is the
            batch: bound to 1 when it is dynamic, divided out when it is fixed.

    Raises:
        PrunecError: the file cannot be read, a size other than the batch is not fixed, or the graph
            holds an operator whose MACs are not known.
    """
    if isinstance(model, onnx.ModelProto):
        with foreign_bytes("the ONNX graph"):
            return _counted(model)
    with foreign_bytes(model):
        return _counted(read_model(Path(model)))


def _counted(proto: onnx.ModelProto) -> Cost:
    _refuse_unknown(proto)
    shapes = infer(proto)
    constants = Constants(proto)
    counted: set[object] = set()
    layers = [_layer(node, shapes, constants, counted) for node in proto.graph.node]
    sizes = _parameter_sizes(proto.graph, constants)
    return Cost(
        layers=tuple(layer for layer in layers if layer is not None),
        params=sum(size for size, _ in sizes),
        nonzero_params=sum(nonzero for _, nonzero in sizes),
    )


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


def _layer(
    node: onnx.NodeProto, shapes: Shapes, constants: Constants, counted: set[object]
) -> LayerCost | None:
    if node.op_type not in macs_of:
        return None
    total = macs_of[node.op_type](node, shapes) if constants.per_sample(node) else 0
    if total % shapes.batch:
        raise PrunecError(
            f"{_where(node)}: {total:,} MACs do not divide by the fixed batch of {shapes.batch}",
            remedy="Export with a dynamic batch.",
        )
    macs = total // shapes.batch
    found = [w for name in weights_of(node) if name and (w := constants.weight(name))]
    if not found:
        return LayerCost(_where(node), node.op_type, macs, macs, 0, 0)
    size, nonzero = sum(w.size for w in found), sum(w.nonzero for w in found)
    new = [w for w in found if w.key not in counted]
    counted.update(w.key for w in found)
    name = found[0].sources[0]
    return LayerCost(
        name=name.rpartition(".")[0] if node.op_type in RECURRENT else name.removesuffix(".weight"),
        operator=node.op_type,
        macs=macs,
        nonzero_macs=macs // size * nonzero if size else 0,
        params=sum(w.size for w in new),
        nonzero_params=sum(w.nonzero for w in new),
    )


def _parameter_sizes(graph: onnx.GraphProto, constants: Constants) -> list[tuple[int, int]]:
    read = uses(graph)
    return [
        (math.prod(tensor.dims), constants.nonzero(tensor))
        for tensor in graph.initializer
        if is_parameter(tensor, read.get(tensor.name, ()))
    ]


def _where(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]

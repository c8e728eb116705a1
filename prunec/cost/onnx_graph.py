"""Counter of MACs and parameters of an ONNX file, by ONNX's shape inference, without torch.

Definition, per sample:

- ``Conv``, ``DeformConv``, ``Gemm``, ``MatMul`` and their integer variants: one MAC per output
  element and weight that it reads; positions in zero padding count like all others.
  ``ConvTranspose``: one MAC per input element and weight that it meets. ``Einsum`` of two operands:
  the product of all index sizes. ``LSTM``, ``GRU``, ``RNN``: one MAC per time step and entry of W
  and R.
- Operators that do not depend on an input, not even on its batch size, count 0: they are computed
  once, not once per sample.
- Non-zero MACs: the same with non-zero weights only. Weights are initialisers and constants, also
  behind operators that only move or (de)quantise values. Products of two activations, and weights
  computed in the graph, count in full.
- All other listed operators count 0; operators that are not listed are reported.
- Functions of the file are inlined, and branches whose condition is known are resolved.
- Parameters: floating-point initialisers, each once however often it is read, except running
  statistics of batch norms, limits of ``Clip``, scales of ``Resize`` and similar settings, single
  numbers in arithmetic, and everything that the exporter marked as buffer or constant. Integers
  (axes, shapes) never count, except quantised weights read by ``DequantizeLinear``.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx

from prunec.cost import UNKNOWN, Cost, LayerCost, Uncounted
from prunec.cost.onnx_constants import Constants
from prunec.cost.onnx_operators import FREE, RECURRENT, macs_of, weights_of, zero_point
from prunec.cost.onnx_parameters import is_parameter, uses
from prunec.cost.onnx_plain import is_standard, plain, resolve_branches, where
from prunec.cost.onnx_reading import foreign_bytes, read_model
from prunec.cost.onnx_shapes import Shapes, UnknownShape, constants_of, infer
from prunec.cost.onnx_sizes import Sizes, sized
from prunec.errors import PrunecError

_MOST = 4  # operators named in an error besides the first, so that it stays readable

_FLOW = {
    "If": "which branch is taken depends on the input",
    "Loop": "how often its body runs is not in the graph",
    "Scan": "how often its body runs is not in the graph",
    "SequenceMap": "how often its body runs is not in the graph",
}


def count_onnx(model: Path | str | onnx.ModelProto, sizes: Sizes | None = None) -> Cost:
    """Return the cost of one sample of an ONNX network.

    Args:
        model: file, or model with its weights. The first axis of every input is the batch: bound
            to 1 if it is dynamic, divided out if it is fixed.
        sizes: input → all its sizes, batch first, if the file leaves any open; for an input that is
            a single number, the number.

    Raises:
        PrunecError: the file cannot be read, a size other than the batch is not fixed, or the graph
            holds an operator whose MACs are not known.
    """
    cost = count_known(model, sizes)
    if cost.uncounted:
        first, *others = cost.uncounted
        more = "".join(f"; {other}" for other in others[:_MOST])
        more += f"; and {len(others) - _MOST} more" if len(others) > _MOST else ""
        raise PrunecError(
            f"{first}{more}",
            remedy="`prunec count` shows the cost of the rest. Count the named operators by hand, "
            "export known ones instead, or add them to prunec/cost/onnx_operators.py.",
        )
    return cost


def count_known(model: Path | str | onnx.ModelProto, sizes: Sizes | None = None) -> Cost:
    """Return the cost of one sample; operators with unknown MACs are listed in it.

    Args:
        model: as for :func:`count_onnx`.
        sizes: as for :func:`count_onnx`.

    Raises:
        PrunecError: the file cannot be read, or a size other than the batch is not fixed.
    """
    if isinstance(model, onnx.ModelProto):
        with foreign_bytes("the ONNX graph"):
            return _counted(sized(model, sizes or {}))
    with foreign_bytes(model):
        return _counted(sized(read_model(Path(model)), sizes or {}))


def _counted(model: onnx.ModelProto) -> Cost:
    proto = _without_branches(plain(model))
    shapes = infer(proto, _measured(proto.graph))
    constants = Constants(proto)
    counted: set[object] = set()
    layers, uncounted = [], []
    for node in proto.graph.node:
        reason = _unknown(node)
        try:
            layer = None if reason else _layer(node, shapes, constants, counted)
        # One unknown shape must not hide the cost of all other layers.
        except UnknownShape as error:
            reason, layer = error.message, None
        if reason:
            uncounted.append(Uncounted(where(node), operator_of(node), reason))
        elif layer:
            layers.append(layer)
    sizes = _parameter_sizes(proto.graph, constants)
    return Cost(
        layers=tuple(layers),
        params=sum(size for size, _ in sizes),
        nonzero_params=sum(nonzero for _, nonzero in sizes),
        uncounted=tuple(uncounted),
    )


def _measured(graph: onnx.GraphProto) -> set[str]:
    """Return the values read and written by operators with MACs, whose shapes are needed."""
    nodes = [node for node in graph.node if node.op_type in macs_of]
    return {name for node in nodes for name in (*node.input, *node.output) if name}


def _without_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """Resolve branches whose condition the graph computes from fixed sizes."""
    conditions = [node.input[0] for node in model.graph.node if node.op_type == "If"]
    while conditions:
        known = constants_of(model, conditions)
        if not known:
            break
        resolve_branches(model.graph, {k: bool(v.reshape(-1)[0]) for k, v in known.items()})
        conditions = [node.input[0] for node in model.graph.node if node.op_type == "If"]
    return model


def _unknown(node: onnx.NodeProto) -> str:
    """Return why the MACs of an operator are unknown; empty if they are known."""
    if not is_standard(node):
        return UNKNOWN
    if node.op_type in FREE or node.op_type in macs_of:
        return ""
    return _FLOW.get(node.op_type, UNKNOWN)


def operator_of(node: onnx.NodeProto) -> str:
    """Return an operator's name, prefixed with its domain unless it is standard ONNX."""
    return node.op_type if is_standard(node) else f"{node.domain}.{node.op_type}"


def _layer(
    node: onnx.NodeProto, shapes: Shapes, constants: Constants, counted: set[object]
) -> LayerCost | None:
    if node.op_type not in macs_of:
        return None
    total = macs_of[node.op_type](node, shapes) if constants.per_sample(node) else 0
    if total % shapes.batch:
        raise PrunecError(
            f"{where(node)}: {total:,} MACs are not divisible by the batch size {shapes.batch}",
            remedy="Export with a dynamic batch.",
        )
    macs = total // shapes.batch
    candidates = [constants.weight(n, zero_point(node, n)) for n in weights_of(node) if n]
    weights = [weight for weight in candidates if weight is not None]
    if not weights:
        return LayerCost(where(node), node.op_type, macs, macs, 0, 0)
    size, nonzero = sum(w.size for w in weights), sum(w.nonzero for w in weights)
    new = [w for w in weights if w.key not in counted]
    # Shared weights count as parameters at their first reader only, as MACs at each.
    counted.update(w.key for w in weights)
    name = weights[0].sources[0]
    return LayerCost(
        name=_layer_name(node, name),
        operator=node.op_type,
        macs=macs,
        # Every weight takes part in equally many MACs.
        nonzero_macs=macs // size * nonzero if size else 0,
        params=sum(w.size for w in new),
        nonzero_params=sum(w.nonzero for w in new),
    )


def _layer_name(node: onnx.NodeProto, weight: str) -> str:
    """Return the layer that holds a weight, by the weight's name; else the operator's name."""
    if node.op_type in RECURRENT:
        return weight.rpartition(".")[0] or where(node)
    return weight.removesuffix(".weight")


def _parameter_sizes(graph: onnx.GraphProto, constants: Constants) -> list[tuple[int, int]]:
    read = uses(graph)
    return [
        (math.prod(tensor.dims), constants.nonzero_as_read(tensor, read[tensor.name]))
        for tensor in graph.initializer
        if is_parameter(tensor, read[tensor.name])
    ]

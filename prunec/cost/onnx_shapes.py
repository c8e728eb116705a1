"""Shapes of every value of an ONNX graph for one sample, by ONNX's own inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import helper, shape_inference

from prunec.errors import PrunecError

# Above this an initialiser cannot be a shape or an axis; inference needs its type alone.
_LARGEST_SHAPE = 1024


@dataclass(frozen=True)
class Shapes:
    """Sizes by value name, and the batch that they were taken with (1 unless the file fixes it)."""

    batch: int
    sizes: dict[str, tuple[int, ...]]

    def of(self, name: str, node: onnx.NodeProto) -> tuple[int, ...]:
        """Return the shape of a value that ``node`` reads or writes.

        Raises:
            PrunecError: shape inference could not tell it.
        """
        if name not in self.sizes:
            raise PrunecError(
                f"the shape of {name} at {node.op_type} {node.name} cannot be inferred",
                remedy="Export with fixed sizes but for the batch.",
            )
        return self.sizes[name]


def infer(model: onnx.ModelProto) -> Shapes:
    """Bind a dynamic batch to 1 and infer all shapes.

    Raises:
        PrunecError: an input has another dynamic size, or the graph contradicts itself.
    """
    bare, batch = _without_weights(model)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    sizes |= _inferred(bare)
    unknown = [n for node in model.graph.node for n in node.output if n and n not in sizes]
    if unknown:
        # A shape that the graph computes from its input's is a constant once the batch is bound.
        # Being an output keeps a value that is folded away.
        known = {value.name for value in bare.graph.output}
        bare.graph.output.extend(onnx.ValueInfoProto(name=n) for n in unknown if n not in known)
        from onnxscript import optimizer  # half a second, for few files

        optimizer.fold_constants(bare, onnx_shape_inference=True)
        sizes |= _inferred(bare)
    return Shapes(batch, sizes)


def _inferred(bare: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    try:
        graph = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise PrunecError(
            f"the shapes of the ONNX graph contradict each other: {error}",
            remedy="Export it again.",
        ) from error
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: size for value in values if (size := _fixed(value)) is not None}


def _without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return the model with large weights and recorded shapes left out, and its batch."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    large = [t for t in graph.initializer if math.prod(t.dims) > _LARGEST_SHAPE]
    bare = helper.make_model(
        helper.make_graph(
            graph.node,
            graph.name or "graph",
            [*map(_one_sample, inputs), *map(_type_of, large)],
            [_shapeless(value) for value in graph.output],
            [t for t in graph.initializer if math.prod(t.dims) <= _LARGEST_SHAPE],
        ),
        opset_imports=model.opset_import,
        ir_version=max(model.ir_version, 4),
    )
    sizes = [value.type.tensor_type.shape.dim for value in inputs]
    return bare, max((dims[0].dim_value for dims in sizes if len(dims) > 1), default=1) or 1


def _one_sample(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    bound = onnx.ValueInfoProto()
    bound.CopyFrom(value)
    for axis, dim in enumerate(bound.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            continue
        if axis:
            raise PrunecError(
                f"input {value.name} has no fixed size on axis {axis} ({dim.dim_param or '?'})",
                remedy="Export with fixed sizes but for the batch.",
            )
        dim.dim_value = 1
    return bound


def _type_of(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def _shapeless(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None)


def _fixed(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)

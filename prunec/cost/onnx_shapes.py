"""Shapes of all values of an ONNX graph for one sample, by ONNX's shape inference."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from prunec.cost.onnx_plain import store_constants
from prunec.cost.onnx_running import constants_by_running, sizes_by_running
from prunec.cost.onnx_sizes import BATCH, dims_of
from prunec.errors import PrunecError
from prunec.wording import first_line

# Larger initialisers (in elements) cannot be a shape or an axis; inference needs only their type.
_LARGEST_SHAPE = 1024


class UnknownShape(PrunecError):
    """The shape of a value cannot be inferred."""


@dataclass(frozen=True)
class Shapes:
    """Sizes by value name, and the batch size they were inferred with (1 unless the file fixes it).

    ``types`` are ONNX's type numbers by value name, without stored tensors.
    """

    batch: int
    sizes: dict[str, tuple[int, ...]]
    types: dict[str, int]

    def of(self, name: str, node: onnx.NodeProto) -> tuple[int, ...]:
        """Return the shape of a value that ``node`` reads or writes.

        Raises:
            UnknownShape: the shape cannot be inferred.
        """
        if name not in self.sizes:
            raise UnknownShape(
                f"the shape of {name} at {node.op_type} {node.name} cannot be inferred",
                remedy="Export with all sizes fixed except the batch.",
            )
        return self.sizes[name]


def infer(model: onnx.ModelProto, needed: Collection[str] = ()) -> Shapes:
    """Bind a dynamic batch to 1 and infer all shapes.

    Args:
        model: model with its weights.
        needed: values for whose shapes the file is run if inference fails.

    Raises:
        PrunecError: an input has another dynamic size, or the graph contradicts itself.
    """
    bare, batch = _without_weights(model)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inputs = [value for value in bare.graph.input if value.name not in sizes]
    try:
        graph = _inferred(bare)
    except PrunecError:  # the graph contradicts itself, or inference is wrong: running decides
        ran = sizes_by_running(model, inputs, needed)
        if not ran:
            raise
        return Shapes(batch, sizes | ran, _types(bare.graph))
    sizes |= _sizes(graph)
    unknown = [n for node in model.graph.node for n in node.output if n and n not in sizes]
    if unknown:
        # Shapes computed from input shapes are constants once the batch is bound.
        _fold(bare, unknown)
        graph = _inferred(bare)
        sizes |= _sizes(graph)
        missing = {name for name in needed if name not in sizes}
        sizes |= sizes_by_running(model, inputs, missing)
    return Shapes(batch, sizes, _types(graph))


def constants_of(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the values that are constants once the batch is bound to 1.

    Raises:
        PrunecError: as :func:`infer`.
    """
    bare, _ = _without_weights(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in bare.graph.input if value.name not in weights]
    _fold(bare, names)
    stored = {tensor.name: tensor for tensor in bare.graph.initializer}
    constants = {name: numpy_helper.to_array(stored[name]) for name in names if name in stored}
    return constants or constants_by_running(model, inputs, names)


def _fold(bare: onnx.ModelProto, names: Sequence[str]) -> None:
    """Fold constants in place; values made outputs survive the folding."""
    known = {value.name for value in bare.graph.output}
    bare.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    from onnxscript import optimizer  # imported late: half a second, and few files need it

    optimizer.fold_constants(bare, onnx_shape_inference=True)
    store_constants(bare.graph)  # the optimiser writes opset-13 constants into any opset


def _inferred(bare: onnx.ModelProto) -> onnx.GraphProto:
    try:
        return shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise PrunecError(
            f"the shapes of the ONNX graph contradict each other: {first_line(error)}",
            remedy="Export it again.",
        ) from error


def _values(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*graph.input, *graph.value_info, *graph.output)


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in _values(graph)}


def _sizes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    return {v.name: size for v in _values(graph) if (size := _fixed(v)) is not None}


def _without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return the model without large weights and recorded shapes, and its batch size."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = graph.output
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
        # From IR 4 on, initialisers need not be listed as inputs.
        ir_version=max(model.ir_version, 4),
    )
    return bare, _batch(inputs, outputs)


def _batch(inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> int:
    """Return the batch size of the inputs; 1 if it is dynamic.

    If the inputs disagree, for example because a state has its layers first, the size is the one
    that was open in the file; else the one that the first output has too.
    """
    dims = [value.type.tensor_type.shape.dim for value in inputs]
    first = {max(sizes[0].dim_value, 0): value for sizes, value in zip(dims, inputs, strict=True)
             if len(sizes) > 1}  # fmt: skip
    if len(first) > 1 and 0 not in first:
        given = [d[0].dim_value for d in dims if d and d[0].denotation == BATCH]
        if given:
            return int(given[0])
        made = outputs[0].type.tensor_type.shape.dim if outputs else []
        if made and made[0].dim_value in first:
            return int(made[0].dim_value)
        stated = " and ".join(f"{size} of {value.name}" for size, value in sorted(first.items()))
        raise PrunecError(
            f"the inputs disagree on the batch size, their first axis: {stated}",
            remedy="Export with a dynamic batch.",
        )
    return min(first, default=1) or 1


def _one_sample(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """Return an input with its batch bound to 1; exporters write unknown sizes as 0 or −1."""
    sizes = dims_of(value)
    bound = onnx.ValueInfoProto()
    bound.CopyFrom(value)
    for axis, dim in enumerate(bound.type.tensor_type.shape.dim):
        if sizes[axis] is not None:
            continue
        if axis:
            size = dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "?")
            raise PrunecError(
                f"input {value.name} has no fixed size on axis {axis} ({size})",
                remedy=f"Give all its sizes: {_example(value.name, sizes)}.",
            )
        dim.dim_value = 1
    return bound


def _example(name: str, sizes: Sequence[int | None]) -> str:
    """Return an example of the option with the sizes that the file fixes."""
    shown = [1 if axis == 0 else 224 for axis in range(len(sizes))]  # ImageNet's usual size
    text = "x".join(str(size or shown[axis]) for axis, size in enumerate(sizes))
    return f"--input {name}={text}"


def _type_of(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def _shapeless(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None)


def _fixed(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    sizes = tuple(dim.dim_value for dim in tensor.shape.dim)
    # Inference may return −1 for unknown sizes.
    return sizes if min(sizes, default=0) >= 0 else None

"""Sizes of the inputs of an ONNX file: fixed by the file, or given by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prunec.errors import PrunecError, UsageError
from prunec.wording import did_you_mean

Sizes = Mapping[str, tuple[int, ...]]
"""Input → all its sizes; for an input that is a single number, the number."""

BATCH = "DATA_BATCH"
"""ONNX's denotation of a batch axis; marks the axis that was open before its size was given."""


def parse_sizes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return input → sizes of texts such as ``x=1x3x224x224``.

    Raises:
        UsageError: a text has another form.
        PrunecError: an input is named twice.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    for text in given:
        parts = re.fullmatch(r"(.+)=([1-9]\d*(?:[x×,][1-9]\d*)*|0)", text.strip())
        if not parts:
            raise UsageError(
                f"--input {text!r} does not name an input with its sizes",
                remedy="Write all sizes, the batch first: --input x=1x3x224x224.",
            )
        if parts[1] in sizes:
            raise PrunecError(
                f"--input names {parts[1]} twice", remedy="Give the sizes of each input once."
            )
        sizes[parts[1]] = tuple(map(int, re.split("[x×,]", parts[2])))
    return sizes


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a graph that are not stored tensors."""
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


def dims_of(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the sizes of an input; None for sizes that are open, or written as 0 or −1.

    Raises:
        PrunecError: the file does not give its number of axes, or it is not a tensor.
    """
    if not value.type.HasField("tensor_type"):
        kind = (value.type.WhichOneof("value") or "unknown").removesuffix("_type")
        raise PrunecError(
            f"input {value.name} is not a tensor: its type is {kind}",
            remedy="Export the network with tensors as inputs.",
        )
    if not value.type.tensor_type.HasField("shape"):
        raise PrunecError(
            f"input {value.name} has no shape", remedy="Export the file with shapes for its inputs."
        )
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else None for dim in dims]


def require_fit(graph: onnx.GraphProto, given: Sizes) -> None:
    """Check given sizes against the inputs of the file.

    Raises:
        PrunecError: there is no such input, or it has another number of axes or another fixed size.
    """
    inputs = {value.name: value for value in inputs_of(graph)}
    for name, sizes in given.items():
        if name not in inputs:
            raise PrunecError(
                f"the file has no input {name}",
                remedy=f"{did_you_mean(name, list(inputs))}Its inputs: {', '.join(inputs)}.",
            )
        own = dims_of(inputs[name])
        number = not own and len(sizes) == 1
        alike = len(own) == len(sizes) and all(sizes)
        if not number and not (alike and _agree(own, sizes)):
            expected = "x".join("?" if size is None else str(size) for size in own) or "one number"
            raise PrunecError(
                f"--input {name}={'x'.join(map(str, sizes))} does not fit {expected}",
                remedy="Give a size for every axis; keep those that the file fixes.",
            )


def _agree(own: Sequence[int | None], sizes: Sequence[int]) -> bool:
    return all(size in (None, asked) for size, asked in zip(own, sizes, strict=True))


def sized(model: onnx.ModelProto, given: Sizes) -> onnx.ModelProto:
    """Return a model whose inputs have the given sizes, and number inputs the given values.

    Raises:
        PrunecError: the sizes do not fit the file.
    """
    if not given:
        return model
    require_fit(model.graph, given)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for value in list(copied.graph.input):
        if value.name not in given:
            continue
        if not dims_of(value):
            copied.graph.initializer.append(_number(value, given[value.name][0]))
            continue
        dims = value.type.tensor_type.shape.dim
        if dims[0].dim_value <= 0 and len(dims) > 1:
            dims[0].denotation = BATCH
        for dim, size in zip(dims, given[value.name], strict=True):
            dim.dim_value = size
    return copied


def _number(value: onnx.ValueInfoProto, number: int) -> onnx.TensorProto:
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return numpy_helper.from_array(np.asarray(number, kind), value.name)

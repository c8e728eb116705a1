"""Lowering of an ONNX graph to kernel calls, one function per operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from onnx import TensorProto

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.choices import (
    folded,
    largest,
    picked,
    put,
    summed,
    tiled,
    triangle,
    where,
)
from prunec.deploy.native.convolutions import convolution
from prunec.deploy.native.einsum import einsum
from prunec.deploy.native.geometry import borders
from prunec.deploy.native.layout import contiguous, joined, padded
from prunec.deploy.native.linear import gemm, product
from prunec.deploy.native.positions import NUMBERED, ONES, PAIRS, bounded, normalised, one, pair
from prunec.deploy.native.reading import Call, Network
from prunec.deploy.native.resizing import resized, sampled
from prunec.deploy.native.shapes import (
    concatenated,
    depth_to_space,
    expanded,
    gathered,
    padding,
    reshaped,
    sliced,
    split,
    transposed,
)
from prunec.deploy.native.volumes import is_volume, pooled_volume, volume
from prunec.deploy.native.windows import (
    REDUCTIONS,
    along,
    instance_norm,
    pooled,
    reduced,
)


def filtered(builder: Builder, call: Call) -> None:
    """Append a convolution of images, sequences or volumes."""
    (volume if is_volume(builder, call) else convolution)(builder, call)


def windowed(builder: Builder, call: Call) -> None:
    """Append pooling of images, sequences or volumes."""
    (pooled_volume if is_volume(builder, call) else pooled)(builder, call)


def taken(builder: Builder, call: Call) -> None:
    """Append ``Gather`` or ``GatherND``: constant indices of one axis, or of several."""
    numbers = builder.constant(call, 1)
    several = numbers is not None and numbers.ndim > 1
    (picked if several else gathered)(builder, call)


def cast(builder: Builder, call: Call) -> None:
    """Append ``Cast``: a test for nonzero to bool, a no-op to float (bools are stored as 0
    and 1).
    """
    (one if call.whole("to", 0) == TensorProto.BOOL else reshaped)(builder, call)


Lower = Callable[[Builder, Call], None]
OPERATORS: dict[str, Lower] = {
    "Conv": filtered,
    "ConvTranspose": filtered,
    "BatchNormalization": normalised,
    "Relu": bounded,
    "Clip": bounded,
    "Gelu": one,
    "Gemm": gemm,
    "MatMul": product,
    "MaxPool": windowed,
    "AveragePool": windowed,
    "Einsum": einsum,
    "Where": where,
    "Tile": tiled,
    "Trilu": triangle,
    "GridSample": sampled,
    "GatherND": picked,
    "GatherElements": picked,
    "ScatterND": put,
    "ScatterElements": put,
    "Col2Im": folded,
    "CumSum": summed,
    "TopK": largest,
    "Softmax": along,
    "LogSoftmax": along,
    "LayerNormalization": along,
    "InstanceNormalization": instance_norm,
    "Transpose": transposed,
    "Concat": concatenated,
    "Split": split,
    "Slice": sliced,
    "Expand": expanded,
    "Pad": padding,
    "Cast": cast,
    "Gather": taken,
    "Resize": resized,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": depth_to_space,
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"), reshaped
    ),
    **dict.fromkeys((*ONES, *NUMBERED), one),
    **dict.fromkeys(PAIRS, pair),
    **dict.fromkeys(REDUCTIONS, reduced),
}
"""ONNX operator → the function that appends its kernel calls."""


def lower(network: Network, chosen: Mapping[str, str] | None = None) -> Builder:
    """Return the program of a network.

    Args:
        network: its graph.
        chosen: tensor → the kernel that shall compute it, where it can.

    Raises:
        PassError: an operator, an attribute or one of its forms has no kernel.
    """
    return lowered(Builder(network, borders(network), chosen=chosen or {}), OPERATORS)


def lowered(builder: Builder, operators: Mapping[str, Lower]) -> Builder:
    """Append the program of a builder's network; return the builder.

    Args:
        builder: the empty program.
        operators: ONNX operator → the function that appends its kernel calls.

    Raises:
        PassError: an operator, an attribute or one of its forms has no kernel.
    """
    network = builder.network
    for call in network.calls:
        if call.operator not in operators:
            raise call.refuse("")
    for number, name in enumerate(network.inputs):
        _outside(builder, name, f"pn_of_each(&S, inputs[{number}] + {{first}}, w);", given=True)
    for call in network.calls:
        first = len(builder.steps)
        operators[call.operator](builder, call)
        builder.spans[call.results[0]] = (first, len(builder.steps))
    for number, name in enumerate(network.outputs):
        _outside(builder, name, f"pn_of_each(&S, w, outputs[{number}] + {{first}});", given=False)
    return builder


def _outside(builder: Builder, name: str, code: str, *, given: bool) -> None:
    """Append the copy of an input into its buffer, or of an output out of it."""
    view = builder.layout(name).view
    buffer = builder.new(name) if given else builder.buffer(name)
    sizes, (own, row) = joined(view.sizes, [view.steps, contiguous(view.sizes)])
    # Without a batch axis every sample has the same values.
    first = 0 if name in builder.network.whole else math.prod(view.sizes)
    inner, outer = ("out", "a") if given else ("a", "out")
    fields: Fields = {
        inner: Place(buffer, view.at), f"{inner}_steps": padded(sizes, own)[1], outer: 0,
        f"{outer}_steps": padded(sizes, row)[1], "sizes": padded(sizes, own)[0],
    }  # fmt: skip
    code = code.format(first=f"sample * {first}" if first else "0")
    reads, writes = ([], buffer) if given else ([buffer], "")
    builder.add(code, "pn_walk", fields, reads, writes, name)
    if given:
        builder.clean(name)

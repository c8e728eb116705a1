"""MACs of each ATen and torchvision operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prunec.graph.capture import Node


class Counted(NamedTuple):
    """MACs of an operator and its possible weights.

    Attributes:
        macs: MACs of all samples.
        operands: operands that may be weights.
        whole: MACs among ``macs`` that involve no weight.
    """

    macs: int
    operands: Sequence[Node]
    whole: int = 0


def _convolution(node: Node) -> Counted:
    """Count a convolution; interpolation of deformable kernels counts 0."""
    named = node.arguments
    weight = named["weight"]
    transposed = "transpose" in node.operator or named.get("transposed")
    shape = (named["input"] if transposed else node).shape
    return Counted(shape[0] * math.prod(shape[2:]) * math.prod(weight.shape), [weight])


def _convolution_over_time(node: Node) -> Counted:
    """Count conv_tbc: input (time, batch, channels), kernel (width, inputs, outputs)."""
    weight = node.arguments["weight"]
    return Counted(math.prod(node.shape[:2]) * math.prod(weight.shape), [weight])


def _linear(node: Node) -> Counted:
    weight = node.arguments["weight"]
    return Counted(math.prod(node.shape[:-1]) * math.prod(weight.shape), [weight])


def _bilinear(node: Node) -> Counted:
    """Count the weights times the first input, and the result times the second."""
    weight = node.arguments["weight"]
    positions = math.prod(node.shape[:-1])
    outputs, _, second = weight.shape
    whole = positions * outputs * second
    return Counted(positions * math.prod(weight.shape) + whole, [weight], whole)


def _product(node: Node) -> Counted:
    first, second = [n for n in node.arguments.values() if isinstance(n, Node)][-2:]
    return Counted(math.prod(node.shape) * first.shape[-1], [second, first])


def _product_of_all(node: Node) -> Counted:
    """Count addbmm: the matrix products of a batch, summed."""
    first, second = node.arguments["batch1"], node.arguments["batch2"]
    return Counted(math.prod(first.shape) * second.shape[-1], [second, first])


def _outer(node: Node) -> Counted:
    return Counted(math.prod(node.shape), [node.arguments["vec2"], node.arguments["vec1"]])


def _tensordot(node: Node) -> Counted:
    named = node.arguments
    first, second = named["self"], named["other"]
    axes = named.get("dims_self", [-1])  # inner sums over the last axis
    summed = math.prod(first.shape[axis] for axis in axes)
    return Counted(math.prod(node.shape) * summed, [second, first])


def _einsum(node: Node) -> Counted:
    """Count operands combined from left to right, dropping letters that are no longer used.

    A single operand is only moved or summed, which counts 0.
    """
    equation, operands = list(node.arguments.values())[:2]
    listed = [n for n in operands if isinstance(n, Node)]
    left, _, right = equation.replace(" ", "").partition("->")
    words: list[list[str]] = []
    sizes: dict[str, int] = {}
    for term, operand in zip(left.split(","), listed, strict=True):
        shape = operand.shape
        words.append(_letters(term, len(shape)))
        for letter, size in zip(words[-1], shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    asked = set(right) if "->" in equation else {c for c in left if left.count(c) == 1}
    asked |= {letter for letter in sizes if len(letter) > 1}  # axes of an ellipsis
    macs, held = 0, set(words[0])
    for place, word in enumerate(words[1:], 2):
        held |= set(word)
        macs += math.prod(sizes[letter] for letter in held)
        held &= asked.union(*words[place:])
    # Of three operands, each step has other factors, so no single one is the weight.
    return Counted(macs, listed if len(listed) == 2 else [])


def _letters(word: str, dims: int) -> list[str]:
    """Return one letter per axis; axes of an ellipsis are numbered from the last."""
    before, dots, after = word.partition("...")
    covered = dims - len(before) - len(after) if dots else 0
    return [*before, *(f"...{i}" for i in range(covered, 0, -1)), *after]


def _attention(node: Node) -> Counted:
    named = node.arguments
    query, key, value = (named[k].shape for k in ("query", "key", "value"))
    pairs = math.prod(query[:-1]) * key[-2]
    return Counted(pairs * query[-1] + pairs * value[-1], [])


def _recurrent(node: Node) -> Counted:
    named = node.arguments
    first = next(n for n in node.operands if n.is_tensor)
    steps = math.prod(first.shape[:-1])  # time × batch
    kernels = [n for n in named["params"] if len(n.shape) == 2]
    return Counted(steps * sum(math.prod(n.shape) for n in kernels), kernels)


def _cell(node: Node) -> Counted:
    """Count one step of a recurrent cell."""
    named = node.arguments
    kernels = [named["w_ih"], named["w_hh"]]
    rows = named["input"].shape[0]
    return Counted(rows * sum(math.prod(n.shape) for n in kernels), kernels)


_CONVOLUTIONS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolution", "_convolution", "deform_conv2d",
)  # fmt: skip
_PRODUCTS = ("matmul", "mm", "bmm", "mv", "dot", "vdot", "addmm", "addmv", "baddbmm")
_CELLS = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})
_LAYERS = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})

MOVES = frozenset(
    (
        "view reshape _unsafe_view flatten unflatten permute transpose t movedim swapaxes squeeze "
        "unsqueeze expand cat concat stack chunk split split_with_sizes tensor_split slice select "
        "narrow index_select index unbind roll flip repeat repeat_interleave tile channel_shuffle "
        "native_channel_shuffle getitem numpy_T mT adjoint contiguous clone alias detach to "
        "_to_copy type_as float"
    ).split()
)
"""Operators that only move values: behind them a weight is still a weight."""

RECURRENT = _LAYERS | _CELLS
"""Operators that hold several weights each."""

macs_of: dict[str, Callable[[Node], Counted]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    "conv_tbc": _convolution_over_time,
    "linear": _linear,
    "bilinear": _bilinear,
    **dict.fromkeys(_PRODUCTS, _product),
    "addbmm": _product_of_all,
    "addr": _outer,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("inner", "tensordot"), _tensordot),
    "einsum": _einsum,
    **dict.fromkeys(_LAYERS, _recurrent),
    **dict.fromkeys(_CELLS, _cell),
}
"""Operator → function that returns the MACs of the whole batch and the possible weights."""

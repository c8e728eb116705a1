"""What each ATen operator multiplies and accumulates; one that is not here does neither."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.fx import Node

from prunec.graph.capture import Captured
from prunec.graph.capture.aten import CONVOLUTIONS, arguments, op_name

Counted = tuple[int, list[Node]]
"""MACs of all samples, and the operands that may be weights."""


def _convolution(captured: Captured, node: Node) -> Counted:
    named = arguments(node)
    weight = named["weight"]
    counted = named["input"] if "transpose" in op_name(node) else node
    shape = captured.shape(counted)
    return shape[0] * math.prod(shape[2:]) * math.prod(captured.shape(weight)), [weight]


def _linear(captured: Captured, node: Node) -> Counted:
    weight = arguments(node)["weight"]
    return math.prod(captured.shape(node)[:-1]) * math.prod(captured.shape(weight)), [weight]


def _product(captured: Captured, node: Node) -> Counted:
    first, second = [n for n in node.args if isinstance(n, Node)][-2:]
    return math.prod(captured.shape(node)) * captured.shape(first)[-1], [second, first]


def _tensordot(captured: Captured, node: Node) -> Counted:
    named = arguments(node)
    first, second = named["self"], named["other"]
    axes = named.get("dims_self", [-1])  # of inner: the last
    summed = math.prod(captured.shape(first)[axis] for axis in axes)
    return math.prod(captured.shape(node)) * summed, [second, first]


def _einsum(captured: Captured, node: Node) -> Counted:
    """Operands are taken in from left to right; a product keeps the letters that are asked later.

    One operand alone is only moved or summed.
    """
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str)
    assert isinstance(operands, (list, tuple))
    listed = [n for n in operands if isinstance(n, Node)]
    left, _, right = equation.replace(" ", "").partition("->")
    words: list[list[str]] = []
    sizes: dict[str, int] = {}
    for term, operand in zip(left.split(","), listed, strict=True):
        shape = captured.shape(operand)
        words.append(_letters(term, len(shape)))
        for letter, size in zip(words[-1], shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    asked = set(right) if "->" in equation else {c for c in left if left.count(c) == 1}
    asked |= {letter for letter in sizes if len(letter) > 1}  # of an ellipsis
    macs, held = 0, set(words[0])
    for place, word in enumerate(words[1:], 2):
        held |= set(word)
        macs += math.prod(sizes[letter] for letter in held)
        held &= asked.union(*words[place:])
    return macs, listed if len(listed) == 2 else []


def _letters(word: str, dims: int) -> list[str]:
    """One letter an axis; those of an ellipsis are numbered from the last."""
    before, dots, after = word.partition("...")
    covered = dims - len(before) - len(after) if dots else 0
    return [*before, *(f"...{i}" for i in range(covered, 0, -1)), *after]


def _attention(captured: Captured, node: Node) -> Counted:
    named = arguments(node)
    query, key, value = (captured.shape(named[k]) for k in ("query", "key", "value"))
    pairs = math.prod(query[:-1]) * key[-2]
    return pairs * query[-1] + pairs * value[-1], []


def _recurrent(captured: Captured, node: Node) -> Counted:
    named = arguments(node)
    first = next(n for n in node.all_input_nodes if captured.is_tensor(n))
    steps = math.prod(captured.shape(first)[:-1])  # of all samples
    kernels = [n for n in named["params"] if len(captured.shape(n)) == 2]
    return steps * sum(math.prod(captured.shape(n)) for n in kernels), kernels


def _cell(captured: Captured, node: Node) -> Counted:
    """One step."""
    named = arguments(node)
    kernels = [named["w_ih"], named["w_hh"]]
    rows = captured.shape(named["input"])[0]
    return rows * sum(math.prod(captured.shape(n)) for n in kernels), kernels


_CELLS = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})
_LAYERS = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})

RECURRENT = _LAYERS | _CELLS
"""Those that hold several weights each."""

macs_of: dict[str, Callable[[Captured, Node], Counted]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"), _product),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("inner", "tensordot"), _tensordot),
    "einsum": _einsum,
    **dict.fromkeys(_LAYERS, _recurrent),
    **dict.fromkeys(_CELLS, _cell),
}
"""Operator → MACs of the whole batch, and its weights."""

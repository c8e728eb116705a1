"""MACs and parameters of a torch network, counted over its captured graph.

Each call is counted from the shapes that went through it when the example ran:

- convolution: (output positions) · (weights); transposed: (input positions) · (weights);
- linear: (positions) · (weights);
- matmul, bmm, mm, addmm, attention: (elements of the result) · (length of the sum);
- einsum of two operands: the product of the sizes of all its letters;
- LSTM, GRU, RNN: (time steps) · (weights), biases left out.

Everything else counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx import Node

from prunec.cost import Cost, LayerCost
from prunec.graph.capture import Captured, capture
from prunec.graph.gates import absorbed
from prunec.graph.operators import CONVOLUTIONS, arguments, op_name


def count(module: nn.Module, example: tuple[Tensor, ...]) -> Cost:
    """Cost of one sample.

    Args:
        module: the network; it is not changed. Gates count as part of their kernels.
        example: its positional inputs, batch first, at least two samples.

    Raises:
        UntraceableModel: the network cannot be captured.
    """
    module = absorbed(module)
    captured = capture(module, example)
    batch = example[0].shape[0]
    counted: set[str] = set()
    calls = [n for n in captured.nodes if n.op == "call_function" and op_name(n) in _RULES]
    layers = [_layer(captured, node, batch, counted) for node in calls]
    parameters = list(module.parameters())
    return Cost(
        tuple(layers),
        sum(p.numel() for p in parameters),
        sum(int(torch.count_nonzero(p)) for p in parameters),
    )


def _layer(captured: Captured, node: Node, batch: int, counted: set[str]) -> LayerCost:
    macs, weight = _RULES[op_name(node)](captured, node)
    macs //= batch
    if weight is None or weight.op != "get_attr":
        return LayerCost(node.name, op_name(node), macs, macs, 0, 0)
    name = str(weight.target)
    tensor = captured.tensor(name)
    params, nonzero = tensor.numel(), int(torch.count_nonzero(tensor))
    first = name not in counted
    counted.add(name)
    return LayerCost(
        name.removesuffix(".weight"),
        op_name(node),
        macs,
        macs // params * nonzero,
        params if first else 0,
        nonzero if first else 0,
    )


def _convolution(captured: Captured, node: Node) -> tuple[int, Node]:
    named = arguments(node)
    weight = named["weight"]
    counted = named["input"] if "transpose" in op_name(node) else node
    shape = captured.shape(counted)
    return shape[0] * math.prod(shape[2:]) * math.prod(captured.shape(weight)), weight


def _linear(captured: Captured, node: Node) -> tuple[int, Node]:
    weight = arguments(node)["weight"]
    return math.prod(captured.shape(node)[:-1]) * math.prod(captured.shape(weight)), weight


def _product(captured: Captured, node: Node) -> tuple[int, Node | None]:
    first, second = [n for n in node.args if isinstance(n, Node)][-2:]
    weight = next((n for n in (second, first) if n.op == "get_attr"), None)
    return math.prod(captured.shape(node)) * captured.shape(first)[-1], weight


def _einsum(captured: Captured, node: Node) -> tuple[int, Node | None]:
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str)
    assert isinstance(operands, (list, tuple))
    listed = [n for n in operands if isinstance(n, Node)]
    letters = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for word, operand in zip(letters, listed, strict=True):
        sizes |= dict(zip(word, captured.shape(operand), strict=True))
    weight = next((n for n in listed if n.op == "get_attr"), None)
    return math.prod(sizes.values()), weight


def _attention(captured: Captured, node: Node) -> tuple[int, None]:
    named = arguments(node)
    query, key, value = (captured.shape(named[k]) for k in ("query", "key", "value"))
    pairs = math.prod(query[:-1]) * key[-2]
    return pairs * query[-1] + pairs * value[-1], None


def _recurrent(captured: Captured, node: Node) -> tuple[int, None]:
    named = arguments(node)
    first = next(n for n in node.all_input_nodes if captured.is_tensor(n))
    steps = math.prod(captured.shape(first)[:-1])  # of all samples
    shapes = [captured.shape(n) for n in named["params"]]
    return steps * sum(math.prod(shape) for shape in shapes if len(shape) == 2), None


_RULES: dict[str, Callable[[Captured, Node], tuple[int, Node | None]]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), _product),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}

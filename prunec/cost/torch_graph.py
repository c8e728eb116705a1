"""Counter of MACs and parameters of a torch network, over its captured graph.

Each call is counted from its shapes for the example:

- convolution, deformable too: (output positions) · (weights); transposed: (input positions) ·
  (weights);
- linear: (positions) · (weights); bilinear: the same plus (outputs) · (second input) per position;
- matmul, mm, bmm, mv, dot, their variants that add, attention: (elements of the result) · (length
of
  the sum);
- einsum of two operands: the product of the sizes of all its letters;
- LSTM, GRU, RNN: (time steps) · (weights of inputs, states and projections), biases left out.

Operators known to multiply nothing of this kind count 0; operators in neither list are reported in
``uncounted``. Operators that do not depend on an input, not even on its batch size, count 0: they
are computed once, not once per sample.

Non-zero MACs are the share of non-zero weights. Weights are parameters, buffers and constants, also
behind operators that only move values; products of two activations, and computed weights, count in
full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunec.cost import UNKNOWN, Cost, LayerCost, Uncounted, Weight
from prunec.cost.torch_free import counts_nothing
from prunec.cost.torch_operators import MOVES, RECURRENT, macs_of
from prunec.graph.capture import Captured, Node, capture
from prunec.graph.capture.node import is_number, replaced
from prunec.models.gates import absorbed


def count(module: nn.Module, example: tuple[Tensor, ...]) -> Cost:
    """Return the cost of one sample.

    Args:
        module: network; it is not changed. Gates count as part of their kernels.
        example: positional inputs, batch first, at least two samples.

    Raises:
        UntraceableModel: the network cannot be captured.
    """
    module = absorbed(module)
    return count_captured(capture(module, example), module)


def count_captured(
    captured: Captured, module: nn.Module, masks: Mapping[str, Tensor] | None = None
) -> Cost:
    """Return the cost of one sample of a network that is already captured.

    Args:
        captured: graph of the network; it is not changed.
        module: network with gates absorbed into their kernels; its parameters are counted.
        masks: parameter name → bool tensor of its shape; False counts as weight zero.
    """
    masks = masks or {}
    named = dict(module.named_parameters(remove_duplicate=False))
    masked = {
        id(named[name]): torch.where(mask, named[name].detach(), 0) for name, mask in masks.items()
    }
    weights = _Weights(captured, {n: masked[id(p)] for n, p in named.items() if id(p) in masked})
    samples = next(n.shape[0] for n in captured.nodes if n.kind == "input")
    counted: set[object] = set()
    uncounted = [
        Uncounted(node.module or node.name, node.operator, UNKNOWN)
        for node in captured.nodes
        # What is computed once counts 0, understood or not.
        if _unknown(node) and node in weights.per_sample
    ]
    layers = [
        _layer(weights, node, samples, counted)
        for node in captured.nodes
        if node.operator in macs_of
    ]
    # By identity: a shared parameter has several names.
    read = {id(named[n.stored]) for n in captured.nodes if n.stored in named and n.users}
    parameters = {id(p): masked.get(id(p), p) for p in module.parameters()}
    unread = [p for number, p in parameters.items() if number not in read]
    return Cost(tuple(layers), *_sizes(parameters.values()), tuple(uncounted), *_sizes(unread))


def _sizes(parameters: Iterable[Tensor]) -> tuple[int, int]:
    """Return the numbers of values and of non-zero values of parameters."""
    sizes = [(p.numel(), int(torch.count_nonzero(p))) for p in parameters]
    return sum(size for size, _ in sizes), sum(nonzero for _, nonzero in sizes)


def _unknown(node: Node) -> bool:
    """Return whether the MACs of an operator are unknown; operators that return numbers have
    none.
    """
    if node.kind != "call" or node.operator in macs_of or is_number(node.value):
        return False
    return not counts_nothing(node.operator)


class _Weights:
    """Stored tensors of a captured network, also behind operators that only move them."""

    def __init__(self, captured: Captured, masked: Mapping[str, Tensor]) -> None:
        self._captured = captured
        self._masked = masked
        self._values: dict[Node, Tensor] = {}
        self._sources: dict[Node, tuple[str, ...]] = {}
        self._weights: dict[Node, Weight | None] = {}
        self.per_sample: set[Node] = set()
        for node in captured.nodes:
            inputs = node.operands
            if node.kind == "input" or not self.per_sample.isdisjoint(inputs):
                self.per_sample.add(node)
            elif node.kind == "stored":
                self._sources[node] = (node.stored,)
            elif node.operator in MOVES and all(n in self._sources for n in inputs):
                listed = [name for n in inputs for name in self._sources[n]]
                self._sources[node] = tuple(dict.fromkeys(listed))

    def of(self, node: Node) -> Weight | None:
        """Return the weights that a value holds, or None if it is not made of weights."""
        if node not in self._weights:
            self._weights[node] = self._find(node) if node in self._sources else None
        return self._weights[node]

    def _find(self, node: Node) -> Weight | None:
        value = self._value(node)
        if not isinstance(value, Tensor):
            return None
        sources = self._sources[node]
        whole = sum(self._stored(name).numel() for name in sources) == value.numel()
        key = sources if whole else node
        return Weight(sources, value.numel(), int(torch.count_nonzero(value)), key)

    def _value(self, node: Node) -> Any:
        if node.kind == "stored":
            return self._stored(node.stored)
        if node not in self._values:
            assert node.compute is not None
            named = replaced(dict(node.arguments), self._value)
            self._values[node] = node.compute(named)
        return self._values[node]

    def _stored(self, name: str) -> Tensor:
        return self._masked[name] if name in self._masked else self._captured.stored[name].detach()


def _layer(stored: _Weights, node: Node, samples: int, counted: set[object]) -> LayerCost:
    made = macs_of[node.operator](node)
    macs = made.macs // samples if node in stored.per_sample else 0
    whole = made.whole // samples if node in stored.per_sample else 0
    weights = [weight for operand in made.operands if (weight := stored.of(operand))]
    if not weights:
        return LayerCost(node.name, node.operator, macs, macs, 0, 0)
    size, nonzero = sum(w.size for w in weights), sum(w.nonzero for w in weights)
    new = [w for w in weights if w.key not in counted]
    counted.update(w.key for w in weights)
    name = weights[0].sources[0]
    return LayerCost(
        name.rpartition(".")[0] if node.operator in RECURRENT else name.removesuffix(".weight"),
        node.operator,
        macs,
        whole + (macs - whole) // size * nonzero if size else 0,
        sum(w.size for w in new),
        sum(w.nonzero for w in new),
    )

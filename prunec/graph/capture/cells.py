"""One step of a recurrent cell as the linear maps and gates of its definition.

i: input, h: state, c: memory; W, R: weights and biases applied to input and state, split by gate
(Elman, 1990; Hochreiter & Schmidhuber, 1997; Cho et al., 2014):

    rnn   h′ = tanh(Wi + Rh)                                  or relu in place of tanh
    lstm  c′ = σ(f)·c + σ(i)·tanh(g),  h′ = σ(o)·tanh(c′)     [i, f, g, o] = Wi + Rh
    gru   h′ = n + σ(z)·(h − n),  n = tanh(W_n i + σ(r)·R_n h)   [r, z] = Wi + Rh
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from prunec.graph.capture.aten import arguments
from prunec.graph.capture.form import shape_of

aten = torch.ops.aten


def _rnn(function: Any) -> Callable[[Graph, Node], Node | None]:
    def spelled(graph: Graph, node: Node) -> Node | None:
        named = arguments(node)
        return _of(graph, function, _both(graph, named, named["hx"]))

    return spelled


def _gru(graph: Graph, node: Node) -> Node | None:
    named = arguments(node)
    state = named["hx"]
    size = shape_of(node)[1]
    assert isinstance(size, int)
    given, kept = _maps(graph, named, state)
    reset, update, new = (_gate(graph, given, size, number) for number in range(3))
    reset_kept, update_kept, new_kept = (_gate(graph, kept, size, number) for number in range(3))
    reset = _of(graph, aten.sigmoid.default, _sum(graph, reset, reset_kept))
    update = _of(graph, aten.sigmoid.default, _sum(graph, update, update_kept))
    new = _of(graph, aten.tanh.default, _sum(graph, new, _product(graph, reset, new_kept)))
    further = graph.call_function(aten.sub.Tensor, (state, new))
    return _sum(graph, new, _product(graph, update, further))


def _lstm(graph: Graph, node: Node) -> None:
    """Replace the two results, state and memory, at their readers."""
    items = list(node.users)
    if any(user.target is not operator.getitem for user in items):
        return
    named = arguments(node)
    state, memory = named["hx"]
    size = shape_of(memory)[1]
    assert isinstance(size, int)
    gates = _both(graph, named, state)
    enter, forget, new, leave = (_gate(graph, gates, size, number) for number in range(4))
    enter, forget, leave = (_of(graph, aten.sigmoid.default, x) for x in (enter, forget, leave))
    new = _of(graph, aten.tanh.default, new)
    memory = _sum(graph, _product(graph, forget, memory), _product(graph, enter, new))
    # In the order of the call's results, by which readers index them.
    made = _product(graph, leave, _of(graph, aten.tanh.default, memory)), memory
    for user in items:
        replacement = made[user.args[1]]  # type: ignore[index]
        replacement.meta = dict(user.meta)
        user.replace_all_uses_with(replacement)
        graph.erase_node(user)


def _maps(graph: Graph, named: Mapping[str, Any], state: Node) -> tuple[Node, Node]:
    given = (named["input"], named["w_ih"], named["b_ih"])
    kept = (state, named["w_hh"], named["b_hh"])
    linear = aten.linear.default
    return graph.call_function(linear, given), graph.call_function(linear, kept)


def _both(graph: Graph, named: Mapping[str, Any], state: Node) -> Node:
    return _sum(graph, *_maps(graph, named, state))


def _gate(graph: Graph, gates: Node, size: int, number: int) -> Node:
    return graph.call_function(aten.slice.Tensor, (gates, 1, number * size, (number + 1) * size))


def _of(graph: Graph, function: Any, source: Node) -> Node:
    return graph.call_function(function, (source,))


def _sum(graph: Graph, first: Node, second: Node) -> Node:
    return graph.call_function(aten.add.Tensor, (first, second))


def _product(graph: Graph, first: Node, second: Node) -> Node:
    return graph.call_function(aten.mul.Tensor, (first, second))


CELLS: Mapping[str, Callable[[Graph, Node], Node | None]] = {
    "rnn_tanh_cell": _rnn(aten.tanh.default),
    "rnn_relu_cell": _rnn(aten.relu.default),
    "gru_cell": _gru,
    "lstm_cell": _lstm,
}
"""Operator → function that writes the replacement of a call, or returns None if it did the rest."""

"""Operators of a captured graph spelled out in simpler ones, so that one rule serves them all."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import torch
from torch.fx import Graph, GraphModule, Node

from prunec.graph.capture.aten import arguments, op_name
from prunec.graph.capture.cells import CELLS
from prunec.graph.capture.form import form_of, shape_of
from prunec.graph.capture.names import CONVOLUTIONS, ELEMENTWISE
from prunec.graph.capture.placements import PLACEMENTS

aten = torch.ops.aten


def spell_out(module: GraphModule) -> None:
    """Rewrite in place: gated units, cells, computed biases, transposed weights, expansions."""
    graph = module.graph
    kept = _cells_of_a_long_loop(graph)
    for node in list(graph.nodes):
        if node.op != "call_function" or node in kept:
            continue
        name = op_name(node)
        with graph.inserting_before(node):
            spelled = _SPELLED.get(name, _as_it_is)(graph, node)
            if spelled is not None:
                _replace(node, spelled)
        if name in ELEMENTWISE:
            _skip_expansions(node)
    graph.eliminate_dead_code()


def _as_it_is(graph: Graph, node: Node) -> None:
    """Nothing takes its place."""


_EXTREMES = {"max": aten.amax.default, "min": aten.amin.default}


def _extreme(graph: Graph, node: Node) -> None:
    """The largest value along an axis, of which nobody asks where it stands; replaced here."""
    if "dim" not in arguments(node):
        return
    for user in list(node.users):
        if not user.users:
            graph.erase_node(user)
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return
    named = arguments(node)
    found = graph.call_function(
        _EXTREMES[op_name(node)], (named["self"], [named["dim"]], named["keepdim"])
    )
    for user in list(node.users):
        found.meta = dict(user.meta)
        user.replace_all_uses_with(found)
        graph.erase_node(user)
    graph.erase_node(node)


def _replace(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    node.graph.erase_node(node)


def _axes(node: object) -> int:
    form = form_of(node)
    return 0 if form is None else len(form.shape)


def _glu(graph: Graph, node: Node) -> Node:
    """The product a · sigmoid(b) of the two halves of an axis."""
    named = arguments(node)
    source = named["self"]
    shape = shape_of(source)
    axis = int(named["dim"]) % len(shape)
    size = shape[axis]
    assert isinstance(size, int)
    first = graph.call_function(aten.slice.Tensor, (source, axis, 0, size // 2))
    second = graph.call_function(aten.slice.Tensor, (source, axis, size // 2, size))
    gate = graph.call_function(aten.sigmoid.default, (second,))
    return graph.call_function(aten.mul.Tensor, (first, gate))


def _rrelu(graph: Graph, node: Node) -> Node | None:
    """In evaluation its slope is the mean of those that it would draw from."""
    named = arguments(node)
    if named["training"]:
        return None
    slope = (named["lower"] + named["upper"]) / 2
    return graph.call_function(aten.leaky_relu.default, (named["self"], slope))


def _squeeze(graph: Graph, node: Node) -> Node | None:
    """The axes that are left out by number: a channel axis may be cut to size 1."""
    if "dim" in arguments(node):
        return None
    shape = shape_of(node.args[0])
    axes = [axis for axis, size in enumerate(shape) if isinstance(size, int) and size == 1]
    return graph.call_function(aten.squeeze.dims, (node.args[0], axes))


def _without_computed_bias(graph: Graph, node: Node) -> Node | None:
    """A bias that is computed is added after the kernel."""
    bias = arguments(node)["bias"]
    if not isinstance(bias, Node) or bias.op == "get_attr":
        return None
    shape = shape_of(node)
    named = arguments(node)
    named["bias"] = None
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    assert callable(node.target)
    kernel = graph.call_function(node.target, tuple(named[a.name] for a in schema))
    kernel.meta = dict(node.meta)
    if op_name(node) != "linear":
        sizes = [-1] + [1] * (len(shape) - 2)
        bias = graph.call_function(aten.reshape.default, (bias, sizes))
    return graph.call_function(aten.add.Tensor, (kernel, bias))


def _transposed(node: object) -> Node | None:
    """The parameter of two axes that a node is the transpose of."""
    if not isinstance(node, Node) or op_name(node) not in ("t", "transpose", "permute", "numpy_T"):
        return None
    weight = node.args[0]
    if not isinstance(weight, Node) or weight.op != "get_attr" or _axes(weight) != 2:
        return None
    return weight


def _linear(graph: Graph, node: Node) -> Node | None:
    weight = _transposed(node.args[1])
    if weight is None or _axes(node.args[0]) < 2:
        return None
    return graph.call_function(aten.linear.default, (node.args[0], weight, None))


def _addmm(graph: Graph, node: Node) -> Node | None:
    named = arguments(node)
    weight = _transposed(named["mat2"])
    bias = named["self"]
    plain = named["beta"] == 1 and named["alpha"] == 1 and _axes(bias) == 1
    if weight is None or not plain or not isinstance(bias, Node) or bias.op != "get_attr":
        return None
    return graph.call_function(aten.linear.default, (named["mat1"], weight, bias))


def _skip_expansions(node: Node) -> None:
    """An operand that is expanded to what another has anyway is read before it is."""
    form = form_of(node)
    if form is None:
        return
    for operand in list(node.all_input_nodes):
        source = operand.args[0] if operand.args else None
        if op_name(operand) not in ("expand", "expand_as") or not isinstance(source, Node):
            continue
        rest = [form_of(n) for n in node.all_input_nodes if n is not operand]
        if any(other is not None and other.shape == form.shape for other in rest):
            node.replace_input_with(operand, source)


_LONGEST = 32
"""Steps of a loop whose cells are spelled out: a dozen nodes each, of which 200 took 20 s."""


def _cells_of_a_long_loop(graph: Graph) -> set[Node]:
    """The steps of recurrent cells, where they are so many that their channels are kept instead."""
    calls = (node for node in graph.nodes if node.op == "call_function")
    cells = {node for node in calls if op_name(node) in CELLS}
    return cells if len(cells) > _LONGEST else set()


_SPELLED: Mapping[str, Callable[[Graph, Node], Node | None]] = {
    **PLACEMENTS,
    **CELLS,
    "glu": _glu,
    "rrelu": _rrelu,
    "squeeze": _squeeze,
    "matmul": _linear,
    "mm": _linear,
    "addmm": _addmm,
    **dict.fromkeys(("linear", *CONVOLUTIONS), _without_computed_bias),
    **dict.fromkeys(_EXTREMES, _extreme),
}
"""Operator → what takes the place of a call in the graph, None for the call as it is."""

"""Normal forms: operators of a captured graph rewritten as simpler ones that one rule covers."""

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
    # Read before the loop below, which would change the number of cells.
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
    """Keep the call."""


_EXTREMES = {"max": aten.amax.default, "min": aten.amin.default}


def _extreme(graph: Graph, node: Node) -> None:
    """Replace a maximum or minimum along an axis whose index is not read."""
    if "dim" not in arguments(node):
        return
    for user in list(node.users):
        if not user.users:
            graph.erase_node(user)
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return
    named = arguments(node)
    values = graph.call_function(
        _EXTREMES[op_name(node)], (named["self"], [named["dim"]], named["keepdim"])
    )
    for user in list(node.users):
        values.meta = dict(user.meta)
        user.replace_all_uses_with(values)
        graph.erase_node(user)
    graph.erase_node(node)


def _replace(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)
    # The replacement itself may read the node.
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    node.graph.erase_node(node)


def _axes(node: object) -> int:
    form = form_of(node)
    return 0 if form is None else len(form.shape)


def _glu(graph: Graph, node: Node) -> Node:
    """Write a · sigmoid(b), for the two halves a and b of an axis (Dauphin et al., 2017)."""
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
    """Write the slope of evaluation mode: the mean of the range it is drawn from in training."""
    named = arguments(node)
    if named["training"]:
        return None
    slope = (named["lower"] + named["upper"]) / 2
    return graph.call_function(aten.leaky_relu.default, (named["self"], slope))


def _squeeze(graph: Graph, node: Node) -> Node | None:
    """Write a squeeze of explicit axes: a channel axis that is cut to size 1 must stay."""
    if "dim" in arguments(node):
        return None
    shape = shape_of(node.args[0])
    axes = [axis for axis, size in enumerate(shape) if isinstance(size, int) and size == 1]
    return graph.call_function(aten.squeeze.dims, (node.args[0], axes))


def _without_computed_bias(graph: Graph, node: Node) -> Node | None:
    """Write the addition of a computed bias after the kernel."""
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
    """Return the two-axis parameter that a node transposes; None for other nodes."""
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
    """Read operands before an expansion that broadcasting makes superfluous."""
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
"""Most steps of a loop whose cells are spelled out: a dozen nodes each; 200 steps took 20 s."""


def _cells_of_a_long_loop(graph: Graph) -> set[Node]:
    """Return the cells of loops that are too long to spell out; their channels are pinned."""
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
"""Operator → function that writes the replacement of a call; None keeps the call."""

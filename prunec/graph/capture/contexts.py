"""Contexts and control flow that torch.export keeps as calls of inner graphs.

Contexts without effect in evaluation (gradients on or off, autocast off, checkpointing) are
inlined: their graph replaces the call. All others are refused by name.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node

from prunec.errors import UntraceableModel

_SEEN_THROUGH = frozenset(
    (
        "wrap_with_set_grad_enabled wrap_with_autocast tag_activation_checkpoint hints_wrapper "
        "wrap_activation_checkpoint wrap invoke_subgraph strict_mode"
    ).split()
)
_DESCRIPTIONS: Mapping[str, str] = {
    "wrap_with_autocast": "enabled autocast",
    "cond": "torch.cond",
    "while_loop": "torch.while_loop",
    "map_impl": "torch's map",
    "scan": "torch's scan",
    "associative_scan": "torch's associative_scan",
}


def see_through(module: GraphModule) -> None:
    """Inline the graphs of contexts without effect.

    Raises:
        UntraceableModel: any other call of an inner graph; the message names it.
    """
    graph = module.graph
    for node in graph.nodes:
        # Forward-mode derivatives leave their level markers in the graph.
        if "dual_level" in _name(node):
            raise derivatives("torch.func.jvp or a relative")
    # Inlined graphs may hold further contexts, so repeat until none is left.
    while calls := [n for n in graph.nodes if _is_of_higher_order(n)]:
        for node in calls:
            inner = next((a for a in node.args if _graph_of(module, a) is not None), None)
            sub = _graph_of(module, inner)
            if _name(node) not in _SEEN_THROUGH or sub is None or _casts(node):
                raise _refusal(node)
            assert isinstance(inner, Node)
            _inline(node, sub, str(inner.target), node.args[node.args.index(inner) + 1 :])
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users and _graph_of(module, node) is not None:
            graph.erase_node(node)
    module.recompile()


def derivatives(function: str, place: str = "") -> UntraceableModel:
    """Return the error for a network that takes derivatives in its forward."""
    return UntraceableModel(
        f"The network takes derivatives in its forward ({function}), which prunec cannot "
        f"trace{place}.",
        remedy="Write the derivative with operators: 2 * x for the derivative of x².",
    )


def _is_of_higher_order(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.HigherOrderOperator)


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _graph_of(module: GraphModule, argument: object) -> GraphModule | None:
    if not isinstance(argument, Node) or argument.op != "get_attr":
        return None
    inner = operator.attrgetter(str(argument.target))(module)
    return inner if isinstance(inner, GraphModule) else None


def _casts(node: Node) -> bool:
    """Return whether a context is an enabled autocast; its arguments are (device, type, enabled,
    …).
    """
    return _name(node) == "wrap_with_autocast" and node.args[2] is not False


def _inline(node: Node, sub: GraphModule, path: str, given: tuple[object, ...]) -> None:
    graph = node.graph
    placeholders = [inner for inner in sub.graph.nodes if inner.op == "placeholder"]
    values: dict[Node, Any] = dict(zip(placeholders, given, strict=True))
    with graph.inserting_before(node):
        returned = graph.graph_copy(sub.graph, values)
    for inner in sub.graph.nodes:
        if inner.op == "get_attr":
            values[inner].target = f"{path}.{inner.target}"
    items = returned if isinstance(returned, (list, tuple)) else None
    for user in list(node.users):
        if items is not None and user.target is operator.getitem:
            user.replace_all_uses_with(items[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
    if node.users:
        assert isinstance(returned, Node)
        node.replace_all_uses_with(returned)
    graph.erase_node(node)


def _refusal(node: Node) -> UntraceableModel:
    name = _name(node)
    description = _DESCRIPTIONS.get(name, f"torch's {name}")
    place = list((node.meta.get("nn_module_stack") or {}).values())
    where = f" in {place[-1][0]}" if place and place[-1][0] else ""
    return UntraceableModel(
        f"The forward pass uses {description}{where} (at {node.name}), which prunec cannot trace.",
        remedy="Leave autocast out of forward and convert the network to the wanted type."
        if name == "wrap_with_autocast"
        else "Write the computation with operators: torch.where for a branch, a loop of fixed "
        "length for a repetition.",
    )

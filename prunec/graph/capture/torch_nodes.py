"""Torch front end: a functional torch.fx graph converted to prunec's nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule

from prunec.graph.capture.aten import arguments, op_name
from prunec.graph.capture.captured import Captured
from prunec.graph.capture.form import DTYPE, form_of
from prunec.graph.capture.node import Kind, Node

_KINDS: dict[str, Kind] = {
    "placeholder": "input", "get_attr": "stored", "call_function": "call", "output": "output",
}  # fmt: skip


@dataclass(frozen=True)
class TorchGraph:
    """Captured graph of torch.

    Attributes:
        module: graph with the network's parameters and buffers under their own names.
        fx_nodes: node → its torch.fx node.
    """

    module: GraphModule
    fx_nodes: Mapping[Node, fx.Node]


def read(
    module: GraphModule, values: Mapping[fx.Node, Any], outputs: tuple[Tensor, ...]
) -> Captured:
    """Return the nodes of a functional graph.

    Args:
        module: graph with the network's own parameters and buffers.
        values: node → shape of its result for the example, list of shapes, or number.
        outputs: flat outputs for the example.
    """
    made: dict[fx.Node, Node] = {}
    for node in module.graph.nodes:
        made[node] = _read(module, node, values.get(node), made)
    graph = TorchGraph(module, {own: node for node, own in made.items()})
    return Captured(tuple(made.values()), module.state_dict(), outputs, graph)


def with_stored(captured: Captured, values: Mapping[Node, tuple[str, Tensor]]) -> Captured:
    """Return the network with stored tensors in place of some values; its graph is consumed.

    Args:
        captured: captured network.
        values: node → name and value of the tensor that replaces it.
    """
    source: TorchGraph = captured.source
    graph = source.module.graph
    shapes = {source.fx_nodes[node]: node.value for node in captured.nodes}
    held: dict[fx.Node, Tensor] = {}
    for node, (name, tensor) in values.items():
        theirs = source.fx_nodes[node]
        with graph.inserting_before(theirs):
            stored = graph.create_node("get_attr", name)
        stored.meta = dict(theirs.meta)
        theirs.replace_all_uses_with(stored)
        shapes[stored], held[stored] = node.value, tensor
    for old in reversed(list(graph.nodes)):
        if not old.users and old.op not in ("placeholder", "output"):
            graph.erase_node(old)
    made: dict[fx.Node, Node] = {}
    for own in graph.nodes:
        made[own] = _read(source.module, own, shapes.get(own), made, held.get(own))
    nodes = TorchGraph(source.module, {node: own for own, node in made.items()})
    return replace(captured, nodes=tuple(made.values()), source=nodes)


def _read(
    module: GraphModule,
    node: fx.Node,
    value: Any,
    made: Mapping[fx.Node, Node],
    tensor: Tensor | None = None,
) -> Node:
    name = str(node.target) if node.op == "get_attr" else ""
    if name and tensor is None:
        tensor = operator.attrgetter(name)(module)
    form = form_of(node)
    dtype: torch.dtype | None = node.meta.get(DTYPE)
    # Without a form, as for inserted nodes, the first axis is taken for the batch.
    dynamic = frozenset((0,))
    if form is not None:
        dtype = form.dtype
        dynamic = frozenset(i for i, n in enumerate(form.shape) if not isinstance(n, int))
    return Node(
        name=node.name,
        kind=_KINDS[node.op],
        operator=op_name(node) if node.op == "call_function" else "",
        arguments=_put(_arguments(node), made),
        value=value,
        dtype=dtype,
        dynamic=dynamic,
        stored=name,
        tensor=tensor,
        module=_module_path(node),
        compute=_computing(node) if node.op == "call_function" else None,
    )


def _arguments(node: fx.Node) -> dict[str, Any]:
    if node.op == "output":
        return {"output": node.args[0]}
    if node.target is operator.getitem:
        return {"input": node.args[0], "index": node.args[1]}
    return arguments(node) if node.op == "call_function" else {}


def _put(value: Any, made: Mapping[fx.Node, Node]) -> Any:
    if isinstance(value, fx.Node):
        return made[value]
    if isinstance(value, dict):
        return {key: _put(item, made) for key, item in value.items()}
    if isinstance(value, list):
        return [_put(item, made) for item in value]
    if isinstance(value, tuple):
        return tuple(_put(item, made) for item in value)
    return value


def _computing(node: fx.Node) -> Callable[[Mapping[str, Any]], Any]:
    """Return the call as a function of its arguments by name."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    keywords = frozenset(a.name for a in schema.arguments if a.kwarg_only) if schema else ()

    def compute(named: Mapping[str, Any]) -> Any:
        positional = [value for name, value in named.items() if name not in keywords]
        with torch.no_grad():
            return target(*positional, **{name: named[name] for name in keywords})

    return compute


def _module_path(node: fx.Node) -> str:
    """Return the path of the module that made a call; empty if unknown."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(list(stack.values())[-1][0])
    return path if all(part.isidentifier() or part.isdigit() for part in path.split(".")) else ""

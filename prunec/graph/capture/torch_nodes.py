"""The front end of torch: a functional graph of torch.fx read into prunec's own nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule

from prunec.graph.capture.aten import arguments, op_name
from prunec.graph.capture.captured import Captured
from prunec.graph.capture.form import form_of
from prunec.graph.capture.node import Kind, Node

_KINDS: dict[str, Kind] = {
    "placeholder": "input", "get_attr": "stored", "call_function": "call", "output": "output",
}  # fmt: skip


@dataclass(frozen=True)
class TorchGraph:
    """The captured graph of torch.

    Attributes:
        module: the graph with the network's parameters and buffers under their own names.
        fx_nodes: node → the one of torch.fx that it was read from.
    """

    module: GraphModule
    fx_nodes: Mapping[Node, fx.Node]


def read(
    module: GraphModule, values: Mapping[fx.Node, Any], outputs: tuple[Tensor, ...]
) -> Captured:
    """Return the nodes of a functional graph.

    Args:
        module: the graph with the network's own parameters and buffers.
        values: what each of its nodes computes for the example: a shape, a list of shapes, or a
            number.
        outputs: what it returns for the example, flat.
    """
    made: dict[fx.Node, Node] = {}
    for node in module.graph.nodes:
        made[node] = _read(module, node, values.get(node), made)
    graph = TorchGraph(module, {own: node for node, own in made.items()})
    return Captured(tuple(made.values()), module.state_dict(), outputs, graph)


def _read(module: GraphModule, node: fx.Node, value: Any, made: Mapping[fx.Node, Node]) -> Node:
    name = str(node.target) if node.op == "get_attr" else ""
    form = form_of(node)
    dtype: torch.dtype | None = None
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
        tensor=operator.attrgetter(name)(module) if name else None,
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
    """A function of the call's arguments by name."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    keywords = frozenset(a.name for a in schema.arguments if a.kwarg_only) if schema else ()

    def compute(named: Mapping[str, Any]) -> Any:
        positional = [value for name, value in named.items() if name not in keywords]
        with torch.no_grad():
            return target(*positional, **{name: named[name] for name in keywords})

    return compute


def _module_path(node: fx.Node) -> str:
    """Where the network kept the module that made a call; empty if unknown."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(list(stack.values())[-1][0])
    return path if all(part.isidentifier() or part.isdigit() for part in path.split(".")) else ""

"""In-place operators of a captured graph replaced by those that return a new tensor.

Where nothing else looks at the memory that is written, the operator's functional twin stands in for
it. Where it is a part of another tensor, that tensor is put together anew around the part. What is
computed from numbers alone is computed once, here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from prunec.graph.operators import FACTORIES, arguments, op_name

aten = torch.ops.aten

_ALIASES = frozenset(
    (
        "view reshape flatten unflatten permute transpose t squeeze unsqueeze expand expand_as "
        "chunk split split_with_sizes slice select narrow unbind getitem contiguous alias detach "
        "dropout to lift_fresh_copy feature_dropout movedim"
    ).split()
)
_FACTORIES = frozenset(
    "zeros ones full arange new_zeros new_ones new_full new_empty empty eye linspace".split()
)
_RANDOM = frozenset("dropout feature_dropout alpha_dropout bernoulli rand randn".split())


def functionalise(module: GraphModule) -> bool:
    """Replace in-place operators; False, and the graph spoilt, where memory is shared otherwise."""
    graph = module.graph
    order = {node: i for i, node in enumerate(graph.nodes)}
    root: dict[Node, Node] = {}
    family: dict[Node, list[Node]] = {}
    for node in list(graph.nodes):
        first = node.args[0] if node.args else None
        name = op_name(node) if node.op == "call_function" else ""
        aliasing = name in _ALIASES or name == "detach_" or is_inplace(name)
        root[node] = root[first] if aliasing and isinstance(first, Node) else node
        family.setdefault(root[node], []).append(node)
        if not is_inplace(name) or not isinstance(first, Node):
            continue
        if root[first].op in ("placeholder", "get_attr") and name != "detach_":
            return False
        later = {
            m for m in family[root[node]] if m not in (first, node) and _users_after(m, node, order)
        }
        readers = {m: _users_after(m, node, order) for m in family[root[node]]}
        if not _become_functional(node, name):
            return False
        parts = _put_together(graph, node, first, later)
        if parts is None:
            return False
        for old, new in ((first, node), *parts):
            for user in readers[old]:
                user.replace_input_with(old, new)
            readers[new] = readers.pop(old)
            if new is not node:  # what reads the whole from now on reads the new one
                order[new] = order[node]
                root[new] = root[node]
                family[root[node]].append(new)
    module.recompile()
    return True


def _users_after(node: Node, write: Node, order: dict[Node, int]) -> list[Node]:
    return [user for user in node.users if order.get(user, -1) > order[write]]


def is_inplace(name: str) -> bool:
    """Whether an operator of this name writes into what it is given."""
    return name.endswith("_") and not name.endswith("__")


def _become_functional(node: Node, name: str) -> bool:
    if name == "detach_":
        node.target = aten.detach.default
        return True
    if name == "copy_":
        named = arguments(node)
        node.target, node.args, node.kwargs = (
            aten.expand_as.default,
            (named["src"], named["self"]),
            {},
        )
        return _type(named["src"]) == _type(named["self"])
    functional = getattr(aten, name[:-1], None)
    overload = getattr(node.target, "_overloadname", "")
    if functional is None or not hasattr(functional, overload):
        return False
    node.target = getattr(functional, overload)
    return True


def _type(node: object) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value.dtype if isinstance(value, Tensor) else None


def _put_together(
    graph: torch.fx.Graph, node: Node, part: Node, later: set[Node]
) -> list[tuple[Node, Node]] | None:
    """New tensors in place of those that a written part was taken from, where they are read later.

    Returns:
        Pairs of an old tensor and the new one; None where a tensor that is read later is neither.
    """
    pairs: list[tuple[Node, Node]] = []
    new, place = node, node
    while later - {old for old, _ in pairs}:
        whole = part.args[0] if part.args else None
        if op_name(part) not in ("slice", "select") or not isinstance(whole, Node):
            return None
        named = arguments(part)
        if op_name(part) == "slice" and named["step"] != 1:
            return None
        rank = len(whole.meta["val"].shape)
        axis = int(named["dim"]) % rank
        size = int(whole.meta["val"].shape[axis])
        start, end = _range(named, size)
        parts: list[Node] = []
        if start > 0:
            place = _after(graph, place, aten.slice.Tensor, whole, axis, 0, start)
            parts.append(place)
        if op_name(part) == "select":
            new = place = _after(graph, place, aten.unsqueeze.default, new, axis)
        parts.append(new)
        if end < size:
            place = _after(graph, place, aten.slice.Tensor, whole, axis, end, size)
            parts.append(place)
        if len(parts) > 1:
            new = place = _after(graph, place, aten.cat.default, parts, axis)
        new.meta = dict(whole.meta)
        pairs.append((whole, new))
        part = whole
    return pairs


def _after(graph: torch.fx.Graph, place: Node, target: object, *args: object) -> Node:
    assert callable(target)
    with graph.inserting_after(place):
        return graph.call_function(target, args)  # type: ignore[arg-type]


def _range(named: dict[str, object], size: int) -> tuple[int, int]:
    if "index" in named:
        index = named["index"]
        assert isinstance(index, int)
        return index % size, index % size + 1
    start, end = named["start"] or 0, named["end"]
    assert isinstance(start, int)
    end = size if not isinstance(end, int) else end
    return tuple(  # type: ignore[return-value]
        max(0, min(n + size if n < 0 else n, size)) for n in (start, end)
    )


def fold_numbers(module: GraphModule) -> None:
    """Compute once what is made of numbers alone (masks, ranges), in-place writing included."""
    graph = module.graph
    constant = _constant_nodes(graph.nodes)
    families = _families(graph.nodes)
    written, spoilt = set[Node](), set[Node]()
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        if node.op == "call_function" and is_inplace(op_name(node)) and isinstance(first, Node):
            (written if node in constant else spoilt).add(families[first])
    values: dict[Node, object] = {}
    for node in list(graph.nodes):
        if node not in constant or families[node] in spoilt:
            continue
        inputs = [n for n in node.all_input_nodes if n not in values]
        if inputs and op_name(node) not in _FACTORIES:
            continue
        if op_name(node) in FACTORIES and families[node] not in written:
            continue  # a tensor of one number stays what it is
        values[node] = _computed(node, values)
    for node, value in values.items():
        outside = [user for user in node.users if user not in values]
        if not outside or not isinstance(value, Tensor):
            continue
        name = f"constant_{node.name}"
        module.register_buffer(name, value.clone(), persistent=False)
        with graph.inserting_before(node):
            stored = graph.get_attr(name)
        stored.meta = dict(node.meta)
        for user in outside:
            user.replace_input_with(node, stored)
    for node in reversed(list(values)):
        if not node.users:
            graph.erase_node(node)
    module.recompile()


def _computed(node: Node, values: dict[Node, object]) -> object:
    def put(given: Node) -> Any:
        return values.get(given, given)

    args: Any = torch.fx.node.map_arg(node.args, put)
    kwargs: Any = torch.fx.node.map_arg(node.kwargs, put)
    if op_name(node).startswith("new_"):
        like = node.args[0]
        assert isinstance(like, Node)
        reference = like.meta["val"]
        args = (torch.empty(0, dtype=reference.dtype, device=reference.device), *args[1:])
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _constant_nodes(nodes: Iterable[Node]) -> set[Node]:
    """Nodes whose value depends on no input, parameter or buffer."""
    found: set[Node] = set()
    for node in nodes:
        if node.op != "call_function" or op_name(node) in _RANDOM:
            continue
        if op_name(node) in _FACTORIES:
            numbers = node.args[1:] if op_name(node).startswith("new_") else node.args
            flat: list[object] = []
            torch.fx.node.map_arg((numbers, node.kwargs), flat.append)
            if not flat:
                found.add(node)
        elif node.all_input_nodes and all(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def _families(nodes: Iterable[Node]) -> dict[Node, Node]:
    """Node → the node whose memory it may look at."""
    root: dict[Node, Node] = {}
    for node in nodes:
        first = node.args[0] if node.args else None
        name = op_name(node) if node.op == "call_function" else ""
        shares = name in _ALIASES or is_inplace(name) or node.target is operator.getitem
        root[node] = root[first] if shares and isinstance(first, Node) else node
    return root

"""Replacement of in-place operators by functional ones.

If nothing else views the written memory, the functional variant replaces the operator. If the
written tensor is a part of another one, that tensor is reassembled around the part. Values computed
from numbers alone are computed once, here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from prunec.graph.capture.aten import arguments, op_name
from prunec.graph.capture.form import form_of, shape_of
from prunec.graph.capture.names import FACTORIES

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
_END = 2**63 - 1  # ATen's end of a slice without one
_RANDOM = frozenset("dropout feature_dropout alpha_dropout bernoulli rand randn".split())


def functionalise(module: GraphModule) -> bool:
    """Replace in-place operators; False, with the graph unusable, for other shared memory."""
    graph = module.graph
    order = {node: i for i, node in enumerate(graph.nodes)}
    root: dict[Node, Node] = {}
    family: dict[Node, list[Node]] = {}
    taken: dict[Node, Node] = {}  # result of a write → the view that was written
    now: dict[Node, Node] = {}  # tensor a view was taken from → what it has become
    for node in list(graph.nodes):
        first = node.args[0] if node.args else None
        name = op_name(node) if node.op == "call_function" else ""
        aliasing = name in _ALIASES or name == "detach_" or is_inplace(name)
        # Memory is followed by the first operand: no listed operator aliases another one.
        root[node] = root[first] if aliasing and isinstance(first, Node) else node
        family.setdefault(root[node], []).append(node)
        if not is_inplace(name) or not isinstance(first, Node):
            continue
        # Writing into an input or a parameter changes state of the caller.
        if root[first].op in ("placeholder", "get_attr") and name != "detach_":
            return False
        # Other views of the memory that are read after the write see its result.
        later = {
            m for m in family[root[node]] if m not in (first, node) and _users_after(m, node, order)
        }
        readers = {m: _users_after(m, node, order) for m in family[root[node]]}
        if not _become_functional(node, name):
            return False
        taken[node] = taken.get(first, first)
        parts = _put_together(graph, node, taken, now, later)
        if parts is None:
            return False
        for old, new in ((first, node), *parts):
            for user in readers[old]:
                user.replace_input_with(old, new)
            readers[new] = readers.pop(old)
            if new is not node:  # later readers of the whole read the new one
                order[new] = order[node]
                root[new] = root[node]
                family[root[node]].append(new)
    return True


def _users_after(node: Node, write: Node, order: dict[Node, int]) -> list[Node]:
    return [user for user in node.users if order.get(user, -1) > order[write]]


def is_inplace(name: str) -> bool:
    """Return whether an operator of this name writes into its first argument."""
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
    form = form_of(node)
    return None if form is None else form.dtype


def _put_together(
    graph: torch.fx.Graph,
    node: Node,
    taken: dict[Node, Node],
    now: dict[Node, Node],
    later: set[Node],
) -> list[tuple[Node, Node]] | None:
    """Reassemble the tensors that a written part was taken from, if they are read later.

    Returns:
        Pairs of an old tensor and its replacement; None if a later-read tensor has no replacement.
    """
    pairs: list[tuple[Node, Node]] = []
    part, new, place = taken[node], node, node
    while later - {old for old, _ in pairs}:
        source = part.args[0] if part.args else None
        if op_name(part) not in ("slice", "narrow", "select") or not isinstance(source, Node):
            return None
        whole = now.get(source, source)
        named = arguments(part)
        shape = shape_of(source)
        axis = int(named["dim"]) % len(shape)
        span = _range(named, shape[axis])
        if span is None:
            return None
        start, end = span
        parts: list[Node] = []
        if start > 0:
            place = _after(graph, place, aten.slice.Tensor, whole, axis, 0, start)
            parts.append(place)
        if op_name(part) == "select":
            new = place = _after(graph, place, aten.unsqueeze.default, new, axis)
        parts.append(new)
        if end is not None:
            place = _after(graph, place, aten.slice.Tensor, whole, axis, end, _END)
            parts.append(place)
        if len(parts) > 1:
            new = place = _after(graph, place, aten.cat.default, parts, axis)
        if new is not node:
            new.meta = dict(source.meta)
        pairs.append((whole, new))
        now |= {key: new for key, value in now.items() if value is whole} | {source: new}
        part = taken.get(source, source)
    return pairs


def _after(graph: torch.fx.Graph, place: Node, target: object, *args: object) -> Node:
    assert callable(target)
    with graph.inserting_after(place):
        return graph.call_function(target, args)  # type: ignore[arg-type]


def _range(named: dict[str, object], size: object) -> tuple[int, int | None] | None:
    """Return the first position of a slice or pick and the end after its last, None for no end.

    Returns:
        None if they depend on the batch or skip positions.
    """
    # A strided part cannot be put back by a concatenation.
    if named.get("step", 1) != 1:
        return None
    start, end = named.get("start") or named.get("index") or 0, named.get("end")
    if not isinstance(size, int):  # unknown length: only a slice of everything is understood
        return (0, None) if start == 0 and "end" in named and end in (None, _END) else None
    if not isinstance(start, int) or not isinstance(end, int | None):
        return None
    if "index" in named or "length" in named:
        length = named.get("length", 1)
        end = start % size + length if isinstance(length, int) else 0
    end = size if end is None else end
    first, last = (max(0, min(n + size if n < 0 else n, size)) for n in (start, end))
    return first, None if last == size else last


def fold_numbers(module: GraphModule) -> None:
    """Compute values made of numbers alone (masks, ranges) once, in-place writes included."""
    graph = module.graph
    values = _constant_values(graph)
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


def _constant_values(graph: torch.fx.Graph) -> dict[Node, object]:
    """Return values of nodes computed from numbers alone that nothing else writes into."""
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
            continue  # tensors of one number stay calls: their size may be cut
        values[node] = _computed(node, values)
    return values


def _computed(node: Node, values: dict[Node, object]) -> object:
    def put(given: Node) -> Any:
        return values.get(given, given)

    args: Any = torch.fx.node.map_arg(node.args, put)
    kwargs: Any = torch.fx.node.map_arg(node.kwargs, put)
    # Factories that take only type and device from a tensor: an empty one gives both.
    if op_name(node).startswith("new_"):
        like = node.args[0]
        assert isinstance(like, Node)
        reference = form_of(like)
        assert reference is not None
        args = (torch.empty(0, dtype=reference.dtype, device=reference.device), *args[1:])
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _constant_nodes(nodes: Iterable[Node]) -> set[Node]:
    """Return nodes that do not depend on any input, parameter or buffer."""
    constant: set[Node] = set()
    for node in nodes:
        if node.op != "call_function" or op_name(node) in _RANDOM:
            continue
        if op_name(node) in _FACTORIES:
            numbers = node.args[1:] if op_name(node).startswith("new_") else node.args
            flat: list[object] = []
            torch.fx.node.map_arg((numbers, node.kwargs), flat.append)
            if not flat:
                constant.add(node)
        elif node.all_input_nodes and all(n in constant for n in node.all_input_nodes):
            constant.add(node)
    return constant


def _families(nodes: Iterable[Node]) -> dict[Node, Node]:
    """Return node → the node whose memory it may share."""
    root: dict[Node, Node] = {}
    for node in nodes:
        first = node.args[0] if node.args else None
        name = op_name(node) if node.op == "call_function" else ""
        shares = name in _ALIASES or is_inplace(name) or node.target is operator.getitem
        root[node] = root[first] if shares and isinstance(first, Node) else node
    return root

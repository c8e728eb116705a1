"""Which channels somebody reads, from the outputs backwards; and whole values that are constants.

A channel is live where a reader has a non-zero weight for it, or it reaches the network's output.
A value all of whose live channels are constant, and that only enters element-wise arithmetic with
another value, is *frozen*: the constants take its place, and what computed it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import aten as ops
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights
from prunec.graph.removal.constants import along


@dataclass
class Liveness:
    """Live positions of every layout (bool, in the layout's shape) and the frozen nodes."""

    live: dict[Node, Tensor] = field(default_factory=dict)
    frozen: set[Node] = field(default_factory=set)


def find_live(structure: Structure, weights: Weights, known: dict[Node, Tensor]) -> Liveness:
    """Walk from the outputs to the inputs."""
    result = Liveness()
    computed = _computed(structure)
    for node, layout in structure.layouts.items():
        result.live[node] = torch.zeros(layout.shape, dtype=torch.bool)
    for node in reversed(structure.captured.nodes):
        if node.op == "output":
            for source in node.all_input_nodes:
                _mark_all(result, source)
        elif node.op == "call_function" and node in structure.layouts:
            if node in computed and _is_frozen(structure, node, known, result):
                result.frozen.add(node)
            else:
                _read(structure, node, weights, known, result)
        elif node.op == "call_function":
            _read_unknown(structure, node, result)
    return result


def _computed(structure: Structure) -> set[Node]:
    """Nodes that depend on an input of the network; the others are the network's own parameters."""
    found: set[Node] = set()
    for node in structure.captured.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _mark_all(result: Liveness, node: Node) -> None:
    if node in result.live:
        result.live[node] = torch.ones_like(result.live[node])


def _mark(result: Liveness, node: Node, live: Tensor) -> None:
    """Mark positions; ``live`` broadcasts against the node's layout."""
    if node not in result.live:
        return
    layout = result.live[node]
    lead = live.dim() - layout.dim()
    if lead > 0:
        live = live.flatten(0, lead - 1).any(0) if layout.dim() else live.any()
    elif lead < 0:
        live = live.reshape([1] * -lead + list(live.shape))
    for axis in range(layout.dim()):
        if layout.shape[axis] == 1 and live.shape[axis] > 1:
            live = live.any(axis, keepdim=True)
    result.live[node] = layout | live


def _is_frozen(
    structure: Structure, node: Node, known: dict[Node, Tensor], result: Liveness
) -> bool:
    live = result.live[node]
    if not bool(live.any()) or bool((live & known[node].isnan()).any()):
        return False
    return all(
        user in result.frozen or _takes_constant(structure, user, node, result)
        for user in node.users
    )


def _takes_constant(structure: Structure, user: Node, node: Node, result: Liveness) -> bool:
    if structure.kinds.get(user) != "elementwise":
        return False
    shape = structure.captured.shape(user)
    return any(
        other is not node
        and other not in result.frozen
        and other.op == "call_function"
        and structure.captured.is_tensor(other)
        and structure.captured.shape(other) == shape
        for other in user.all_input_nodes
    )


def _read(
    structure: Structure,
    node: Node,
    weights: Weights,
    known: dict[Node, Tensor],
    result: Liveness,
) -> None:
    live = result.live[node]
    kind = structure.kinds.get(node, "refused")
    if kind == "kernel":
        kernel = structure.kernels[node]
        flat = live.reshape(kernel.groups, -1, 1)
        zero = along(known[kernel.source], kernel.axis, len(kernel.inputs)) == 0
        read = (weights.reads(kernel) & flat).any(1).reshape(-1) & ~zero
        layout = result.live[kernel.source]
        shape = [1] * layout.dim()
        shape[kernel.axis] = -1
        _mark(result, kernel.source, read.reshape(shape))
    elif kind == "norm":
        norm = structure.norms[node]
        if norm.weight is not None:
            shape = [-1 if i == 1 else 1 for i in range(live.dim())]
            live = live & (weights[norm.weight] != 0).reshape(shape)
        _mark(result, norm.source, live)
    elif kind == "rule":
        structure.rules[node].read(
            live, known, weights, lambda operand, wanted: _mark(result, operand, wanted)
        )
    elif kind == "like":
        return
    elif kind == "move":
        _read_move(structure, node, live, result)
    elif kind == "elementwise":
        for operand in node.all_input_nodes:
            _mark(result, operand, live & ~_cancelled(node, operand, known))
    elif kind == "reduction" and not ops.arguments(node).get("keepdim"):
        source = node.all_input_nodes[0]
        rank = result.live[source].dim()
        dims = ops.arguments(node)["dim"]
        for axis in sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)}):
            live = live.unsqueeze(axis)
        _mark(result, source, live)
    elif kind in ("identity", "window", "border", "prelu", "alike", "reduction"):
        for source in node.all_input_nodes if kind == "alike" else node.all_input_nodes[:1]:
            _mark(result, source, live)
    else:
        _read_unknown(structure, node, result)


def _cancelled(node: Node, operand: Node, known: dict[Node, Tensor]) -> Tensor:
    """Where another factor is zero, this operand's value does not matter."""
    cancelled = torch.zeros([], dtype=torch.bool)
    if ops.op_name(node) == "mul":
        for other in node.all_input_nodes:
            if other is not operand and other in known:
                cancelled = cancelled | (known[other] == 0)
    return cancelled


def _read_move(structure: Structure, node: Node, live: Tensor, result: Liveness) -> None:
    link = structure.links[node]
    read = link.index[live.reshape(-1)]
    start = 0
    for operand in link.operands:
        layout = result.live[operand]
        own = read[(read >= start) & (read < start + layout.numel())] - start
        marked = torch.zeros(layout.numel(), dtype=torch.bool)
        marked[own] = True
        result.live[operand] = layout | marked.reshape(layout.shape)
        start += layout.numel()


def _read_unknown(structure: Structure, node: Node, result: Liveness) -> None:
    """Only what becomes a tensor through ``getitem`` of a move is read elsewhere."""
    if ops.op_name(node) in ops.MOVES and not structure.captured.is_tensor(node):
        return
    for operand in node.all_input_nodes:
        _mark_all(result, operand)

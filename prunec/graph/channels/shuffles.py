"""Runs of moves that spread channels over several axes and bring them back permuted.

A channel shuffle (Zhang et al., ShuffleNet, 2018) views C channels as (groups, C/groups),
transposes and views back. In between, an arbitrary choice of channels is not a box and cannot be
cut; from end to end the run is a permutation, under which any choice can.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.layouts import varying
from prunec.graph.channels.structure import Shuffle, Structure


def close_region(structure: Structure, node: Node) -> bool:
    """Record the permutations around a tensor whose channels lie along several axes.

    Returns:
        Whether the run of moves is a permutation at all its ends; if not, nothing is recorded.
    """
    region = _region(structure, node)
    if region is None:
        return False
    entry, inside, exits = region
    shuffles = [_permutation(structure, entry, end) for end in exits]
    if not exits or None in shuffles:
        return False
    structure.virtual |= inside
    for end, shuffle in zip(exits, shuffles, strict=True):
        assert shuffle is not None
        structure.shuffles[end] = shuffle
    return True


def _is_wide(structure: Structure, node: Node) -> bool:
    return len(varying(structure.layouts[node])) > 1


def _region(structure: Structure, node: Node) -> tuple[Node, set[Node], list[Node]] | None:
    """Return the last tensor before the region, the tensors inside, the first ones after it."""
    inside: set[Node] = set()
    entry = node
    while _is_wide(structure, entry):
        inside.add(entry)
        source = _single_source(structure, entry)
        if source is None:
            return None
        entry = source
    exits: list[Node] = []
    frontier = [node]
    while frontier:
        current = frontier.pop()
        inside.add(current)
        for user in current.users:
            if _single_source(structure, user) is not current:
                return None
            (frontier if _is_wide(structure, user) else exits).append(user)
    return entry, inside, exits


def _single_source(structure: Structure, node: Node) -> Node | None:
    """Return the operand of an identity or of a move with one operand."""
    operator = structure.operators.get(node)
    return operator.passed() if operator is not None and node.is_tensor else None


def _permutation(structure: Structure, entry: Node, end: Node) -> Shuffle | None:
    """Return the permutation between the ends of a region, proven at every position."""
    real = entry.shape
    axes = varying(structure.layouts[entry])
    same = real == end.shape and varying(structure.layouts[end]) == axes
    if len(axes) != 1 or not same:
        return None
    axis = axes[0]
    index = torch.arange(math.prod(real)).reshape(real)
    moved = _run(structure, entry, end, index)
    # Flat index → index along the axis.
    stride = math.prod(real[axis + 1 :])
    order = moved.movedim(axis, 0).reshape(real[axis], -1)[:, 0] // stride % real[axis]
    # The order is read off one line of positions, and must hold for all.
    if not torch.equal(index.index_select(axis, order), moved):
        return None
    return Shuffle(entry, axis, order)


def _run(structure: Structure, entry: Node, end: Node, value: Tensor) -> Tensor:
    """Return the moves between two nodes applied to another value."""
    path = [end]
    while path[-1] is not entry:
        source = _single_source(structure, path[-1])
        assert source is not None
        path.append(source)
    for node in reversed(path[:-1]):
        value = structure.operators[node].move(value)
    return value

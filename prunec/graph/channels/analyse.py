"""Which atom of channel identity sits at each index of every tensor.

Every output channel of a producer is an integer, an *atom*. Operators that only move values are
run on tensors of such integers, so that views, concatenations, splits and shuffles need no rule of
their own. Operators that combine several tensors position by position join atoms (union–find);
whatever is not understood pins the atoms it reads, with its name as the reason.
"""

from __future__ import annotations

import torch

from prunec.graph.capture.captured import Captured
from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.families import FAMILIES, by_name
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import varying
from prunec.graph.channels.operators.move import Move
from prunec.graph.channels.operators.positions import PICKS, picked_axes
from prunec.graph.channels.shuffles import close_region
from prunec.graph.channels.structure import Structure


def analyse(captured: Captured, families: tuple[type[Family], ...] = FAMILIES) -> Structure:
    """Find atoms, operators and pins of a captured network.

    Args:
        captured: the network.
        families: of the operators that are understood.
    """
    builder = Builder(captured)
    family_of = by_name(families)
    for node in captured.nodes:
        if node.kind == "call":
            _visit(builder, node, family_of.get(node.operator))
        elif node.kind == "output":
            for source in node.operands:
                if source.is_tensor:
                    builder.pin(builder.layout(source), "network output")
    _pin_what_is_read_otherwise(builder)
    builder.settle_tables()
    _narrow(builder)
    return builder.found


def _visit(builder: Builder, node: Node, family: type[Family] | None) -> None:
    operands = [n for n in node.operands if n.is_tensor]
    understood = family is not None and (family.several or (node.is_tensor and operands))
    if family is not None and understood:
        family.visit(builder, node)
    else:
        builder.refuse(node, operands)


def _pin_what_is_read_otherwise(builder: Builder) -> None:
    """A weight that is also an operand of something else keeps the channels on all its sides."""
    found = builder.found
    weights = {name for operator in found.operators.values() for name in operator.cuts}
    for name in sorted(weights):
        calls = sorted(builder.captured.readers(name), key=lambda call: call.name)
        other = next((call for call in calls if not _only_cuts(found, call, name)), None)
        if other is not None:
            why = f"{name} is read by {other.operator} at {other.name} too"
            if name in builder.tables:
                builder.pin(builder.tables.pop(name), why)
            for (owner, _), atoms in found.slices.items():
                if owner == name:
                    builder.pin(atoms, why)


def _only_cuts(found: Structure, call: Node, name: str) -> bool:
    """Whether a call reads a weight in such a way that it is cut with its channels."""
    operator = found.operators.get(call)
    return operator is not None and operator.only_cuts(name)


def _narrow(builder: Builder) -> None:
    """Let the channels of every tensor lie along one axis: as a permutation seen from its ends, or
    by joining those that lie at the same place along the longest axis.
    """
    found = builder.found
    suspects = [n for n in builder.captured.nodes if _spread(found, n)]
    while True:
        found.classes = builder.unions.classes()
        for node in suspects:
            found.layouts[node] = found.classes[found.layouts[node]]
        pinned = torch.zeros(len(found.classes), dtype=torch.bool)
        pinned[found.pinned_classes()] = True
        wide = [
            node
            for node in suspects
            if _spread(found, node)
            and node not in builder.ragged
            and not bool(pinned[found.layouts[node]].all())
        ]
        found.virtual, found.shuffles = set(), {}
        for node in wide:
            if node not in found.virtual and not close_region(found, node):
                layout = found.layouts[node]
                builder.coarsen(layout, [max(varying(layout), key=lambda i: layout.shape[i])])
                break
        else:
            break
    _pin_what_cannot_be_picked(builder)


def _pin_what_cannot_be_picked(builder: Builder) -> None:
    """Positions along a channel axis are picked anew after a cut: by one axis and one row of them.

    A move that picks along several axes at once must find all channels in place.
    """
    found = builder.found
    for node, move in found.of(Move).items():
        name = move.call.operator
        if name not in PICKS:
            continue
        picked = picked_axes(move.call, move.moved[0])
        source = found.layouts[move.moved[0]]
        lies = set(varying(found.classes[source]))
        if lies & set(picked) and picked != sorted(lies):
            builder.pin(source, f"{name} at {node.name} picks along several axes")


def _spread(found: Structure, node: Node) -> bool:
    return node in found.layouts and len(varying(found.layouts[node])) > 1

"""Analysis of channel identity: the atom at each index of every tensor.

Each output channel of a producer is an integer, its *atom*. Operators that only move values are run
on tensors of atoms, so views, concatenations, splits and shuffles need no rules of their own.
Operators that combine tensors position by position join atoms (union–find). An operator that is not
understood pins the atoms it reads, with its name as the reason.
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
        families: families of the understood operators.
    """
    builder = Builder(captured)
    family_of = by_name(families)
    for node in captured.nodes:
        if node.kind == "call":
            _visit(builder, node, family_of.get(node.operator))
        elif node.kind == "output":
            for source in node.operands:
                if source.is_tensor:
                    # Callers rely on the number and order of output channels.
                    builder.pin(builder.layout(source), "network output")
    _pin_weights_read_elsewhere(builder)
    # After all joins, before narrowing: a table needs one axis before its layout can be cut.
    builder.settle_tables()
    _narrow(builder)
    return builder.structure


def _visit(builder: Builder, node: Node, family: type[Family] | None) -> None:
    operands = [n for n in node.operands if n.is_tensor]
    understood = family is not None and (family.several or (node.is_tensor and operands))
    if family is not None and understood:
        family.visit(builder, node)
    else:
        builder.refuse(node, operands)


def _pin_weights_read_elsewhere(builder: Builder) -> None:
    """Pin the channels of weights that are also read by other operators."""
    structure = builder.structure
    weights = {name for operator in structure.operators.values() for name in operator.cuts}
    for name in sorted(weights):
        calls = sorted(builder.captured.readers(name), key=lambda call: call.name)
        other = next((call for call in calls if not _only_cuts(structure, call, name)), None)
        if other is not None:
            why = f"{name} is read by {other.operator} at {other.name} too"
            if name in builder.tables:
                builder.pin(builder.tables.pop(name), why)
            for (owner, _), atoms in structure.slices.items():
                if owner == name:
                    builder.pin(atoms, why)


def _only_cuts(structure: Structure, call: Node, name: str) -> bool:
    """Return whether a call reads a weight only as a table whose channels are cut."""
    operator = structure.operators.get(call)
    return operator is not None and operator.only_cuts(name)


def _narrow(builder: Builder) -> None:
    """Make the channels of every tensor lie along one axis.

    Runs of moves that permute channels are closed to one shuffle; elsewhere channels at the same
    index of the longest axis are joined. A join changes other layouts, so the search restarts after
    each.
    """
    structure = builder.structure
    suspects = [n for n in builder.captured.nodes if _spread(structure, n)]
    while True:
        structure.classes = builder.unions.classes()
        for node in suspects:
            structure.layouts[node] = structure.classes[structure.layouts[node]]
        pinned = torch.zeros(len(structure.classes), dtype=torch.bool)
        # Layouts of pinned channels are never cut: they may vary along several axes.
        pinned[structure.pinned_classes()] = True
        wide = [
            node
            for node in suspects
            if _spread(structure, node)
            and node not in builder.ragged
            and not bool(pinned[structure.layouts[node]].all())
        ]
        structure.virtual, structure.shuffles = set(), {}
        for node in wide:
            if node not in structure.virtual and not close_region(structure, node):
                layout = structure.layouts[node]
                builder.coarsen(layout, [max(varying(layout), key=lambda i: layout.shape[i])])
                break
        else:
            break
    _pin_picks_along_several_axes(builder)


def _pin_picks_along_several_axes(builder: Builder) -> None:
    """Pin channels that a move picks along several axes at once.

    After a cut, a selection is rewritten as one selection along one axis. That is impossible if it
    picks along several axes: then all channels must stay in place.
    """
    structure = builder.structure
    for node, move in structure.of(Move).items():
        name = move.call.operator
        if name not in PICKS:
            continue
        picked = picked_axes(move.call, move.moved[0])
        source = structure.layouts[move.moved[0]]
        lies = set(varying(structure.classes[source]))
        if lies & set(picked) and picked != sorted(lies):
            builder.pin(source, f"{name} at {node.name} picks along several axes")


def _spread(structure: Structure, node: Node) -> bool:
    """Return whether the channels of a value vary along more than one axis."""
    return node in structure.layouts and len(varying(structure.layouts[node])) > 1

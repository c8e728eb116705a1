"""Checks that a file's graph is the one that an export of the network has now, node by node.

A digest in the file says that nobody edited the graph after the export, unless the digest was
edited too; what the network is exported to now nobody can forge.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from prunec.deploy.checks.check import Check
from prunec.deploy.written import Graph, Operation, Written
from prunec.errors import PrunecError

_NAME = "graph, node by node"
_SHOWN = 3


def compare_graphs(
    written: Written, again: Callable[[Written], Graph | None]
) -> tuple[list[Check], list[str]]:
    """Compare the graphs; return the check, and why it could not be made.

    Other versions of the exporting libraries may write the same network in other nodes: a
    difference then says nothing, and is told.
    """
    found = written.graph
    if found is None:
        return [], []
    try:
        fresh = again(written)
    except PrunecError as error:
        return [], [f"{_NAME}: the network cannot be exported here: {error.message}"]
    if fresh is None:
        return [], []
    pairs = zip_longest(fresh.operations, found.operations)
    wrong = [text for ours, theirs in pairs if (text := _difference(ours, theirs))]
    count = len(fresh.operations)
    if wrong and found.made_with != fresh.made_with:
        made = found.made_with or "unknown libraries"
        return [], [f"{_NAME}: exported with {made}, and here are {fresh.made_with}: {wrong[0]}"]
    more = f" … and {len(wrong) - _SHOWN} more." if len(wrong) > _SHOWN else ""
    message = " ".join(wrong[:_SHOWN]) + more
    return [Check(_NAME, count, count - len(wrong), None, not wrong, message)], []


def _difference(ours: Operation | None, theirs: Operation | None) -> str:
    """Say what is different of one operation, as a sentence; empty if nothing is."""
    if theirs is None:
        return f"{_where(ours)} is not in the file."
    if ours is None:
        return f"{_where(theirs)} ({theirs.operator}) is in the file alone."
    if ours.operator != theirs.operator:
        return f"{_where(ours)} is {theirs.operator}, expected {ours.operator}."
    for number, (a, b) in enumerate(zip_longest(ours.reads, theirs.reads, fillvalue="nothing")):
        if a != b:
            return f"{_where(ours)} reads {b} as input {number}, expected {a}."
    for name in sorted(ours.options.keys() | theirs.options.keys()):
        a, b = (options.get(name, "left out") for options in (ours.options, theirs.options))
        if a != b:
            return f"{name} of {_where(ours)} is {b[:80]}, expected {a[:80]}."
    return ""


def _where(operation: Operation | None) -> str:
    if operation is None:
        return "nothing"
    layer = operation.layer.rpartition(".")[0] or operation.layer
    return f"{operation.name} (layer {layer})" if layer else operation.name

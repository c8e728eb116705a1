"""Check of a file's graph against a fresh export of the network, node by node.

A digest in the file shows that nobody edited the graph after the export, unless the digest was
edited too; a fresh export of the network cannot be forged.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from prunec.deploy.checks.check import Check
from prunec.deploy.written import Written, WrittenGraph, WrittenOperation
from prunec.errors import PrunecError

_NAME = "graph, node by node"
_SHOWN = 3  # differences named in a message


def compare_graphs(
    written: Written, again: Callable[[Written], WrittenGraph | None]
) -> tuple[list[Check], list[str]]:
    """Compare the graphs; return the check, or why it could not be made.

    Other versions of the exporting libraries may write the same network with other nodes. A
    difference then proves nothing, and is only reported.
    """
    shipped = written.graph
    if shipped is None:
        return [], []
    try:
        fresh = again(written)
    except PrunecError as error:
        return [], [f"{_NAME}: the network cannot be exported here: {error.message}"]
    if fresh is None:
        return [], []
    pairs = zip_longest(fresh.operations, shipped.operations)
    wrong = [text for ours, theirs in pairs if (text := _difference(ours, theirs))]
    count = len(fresh.operations)
    if wrong and shipped.made_with != fresh.made_with:
        made = shipped.made_with or "unknown libraries"
        return [], [f"{_NAME}: exported with {made}, but here with {fresh.made_with}: {wrong[0]}"]
    more = f" … and {len(wrong) - _SHOWN} more." if len(wrong) > _SHOWN else ""
    message = " ".join(wrong[:_SHOWN]) + more
    return [Check(_NAME, count, count - len(wrong), None, not wrong, message)], []


def _difference(ours: WrittenOperation | None, theirs: WrittenOperation | None) -> str:
    """Return how two operations differ, in a sentence; empty if they are equal."""
    if theirs is None:
        return f"{_where(ours)} is not in the file."
    if ours is None:
        return f"{_where(theirs)} ({theirs.operator}) is only in the file."
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


def _where(operation: WrittenOperation | None) -> str:
    if operation is None:
        return "nothing"
    layer = operation.layer.rpartition(".")[0] or operation.layer
    return f"{operation.name} (layer {layer})" if layer else operation.name

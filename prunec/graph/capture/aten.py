"""Calls of ATen operators in a torch.fx graph: operator names, and arguments by name."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

_KNOWN = frozenset({"aten", "prim", "prims", "torchvision"})


def op_name(node: Node) -> str:
    """Return the operator name of a call, without overload: ``conv2d``, ``add``, ``getitem``.

    Operators of other libraries are prefixed with the library's name, so that none passes for a
    torch operator of the same name.
    """
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", node.target)
    name = str(getattr(packet, "__name__", packet))
    library = getattr(node.target, "namespace", "aten")
    return name if library in _KNOWN else f"{library}.{name}"


def arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of a call by their names in the schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): value for i, value in enumerate(node.args)}
    named: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(node.args):
            named[argument.name] = node.args[i]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        else:
            # Defaults are filled in, so that rules need not know which arguments a caller spelled
            # out.
            named[argument.name] = argument.default_value if argument.has_default_value() else None
    return named

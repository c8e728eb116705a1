"""Items of what a call returns, where it returns several values."""

from __future__ import annotations

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family


class Items(Family):
    """getitem: what the call that made the values says of each."""

    names = ("getitem",)
    several = True

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Ask the operator whose value this is."""
        owner = builder.found.operators.get(node.arguments["input"])
        if isinstance(owner, Family):
            owner.visit_item(builder, node)
        else:
            builder.refuse(node, ())

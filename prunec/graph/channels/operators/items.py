"""Items of the tuples that some operators return."""

from __future__ import annotations

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family


class Items(Family):
    """getitem: delegates to the operator that returned the tuple."""

    names = ("getitem",)
    several = True

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Bind the item by ``visit_item`` of the operator that returned it."""
        owner = builder.structure.operators.get(node.arguments["input"])
        if isinstance(owner, Family):
            owner.visit_item(builder, node)
        else:
            builder.refuse(node, ())

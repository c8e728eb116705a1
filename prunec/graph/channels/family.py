"""Base class of operator families: their names, and how a call is analysed."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operator import Operator


class Family(Operator):
    """One operator family: its channel identity, constants, liveness and rewriting.

    A family is a promise about values: a name belongs to it only if the promise holds for every
    call of that name, or ``visit`` refuses the other calls.
    """

    names: ClassVar[Collection[str]] = ()
    """Names of the family's operators."""

    several: ClassVar[bool] = False
    """Whether a call may return several tensors, or have no tensor operand."""

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Determine the layout of a call and bind it to an operator, or refuse the call."""
        raise NotImplementedError

    def visit_item(self, builder: Builder, node: Node) -> None:
        """Determine the layout of one of the values that the call returns."""
        builder.refuse(node, ())

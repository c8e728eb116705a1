"""A family of operators: which names it has, and how it finds what channels a call moves."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operator import Operator


class Family(Operator):
    """One class in one file: channel identity, constants, liveness, and how it is written again.

    A family is a promise about values: a name belongs to it only if the promise holds for every
    call of that name, or ``visit`` refuses the others.
    """

    names: ClassVar[Collection[str]] = ()
    """Operators of this family."""

    several: ClassVar[bool] = False
    """Whether a call may return several tensors, or take none."""

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Find the layout of a call and bind it to an operator, or refuse it."""
        raise NotImplementedError

    def visit_item(self, builder: Builder, node: Node) -> None:
        """Find the layout of one of the values that this call returns."""
        builder.refuse(node, ())

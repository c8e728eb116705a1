"""A node of a captured network, in words of no front end.

A front end (torch's here) reads its own graph into such nodes; the analyses know nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["input", "stored", "call", "output"]


@dataclass(eq=False, slots=True)
class Node:
    """One step of a network's computation.

    Attributes:
        name: unique in its graph.
        kind: an input of the network, a tensor that it stores, a call of an operator, the output.
        operator: the operator that a call names, ``conv2d``, ``add``, ``getitem``; else empty.
        arguments: of a call, by the names of the operator's schema, defaults filled in; a node
            stands for what it computes.
        value: shape of the tensor that it computes for the example, a list of such where it
            computes several, or the number that it stands for.
        dtype: of its tensor; None where it computes none.
        dynamic: axes of its tensor whose length depends on the batch.
        stored: name of the parameter, buffer or constant that it stands for; else empty.
        tensor: that parameter, buffer or constant itself; else None.
        module: path of the module that made the call; empty where it is unknown.
        compute: computes the call from its arguments by name.
        users: the nodes that read it, in the order of computation.
    """

    name: str
    kind: Kind
    operator: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None
    dtype: torch.dtype | None = None
    dynamic: frozenset[int] = frozenset()
    stored: str = ""
    tensor: Tensor | None = None
    module: str = ""
    compute: Callable[[Mapping[str, Any]], Any] | None = None
    users: list[Node] = field(default_factory=list)
    operands: tuple[Node, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.operands = tuple(dict.fromkeys(_nodes_in(tuple(self.arguments.values()))))
        for operand in self.operands:
            operand.users.append(self)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_tensor(self) -> bool:
        """Whether it computes one tensor."""
        return isinstance(self.value, tuple) and all(isinstance(s, int) for s in self.value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its tensor for the example."""
        shape: tuple[int, ...] = self.value
        return shape

    @property
    def first(self) -> Any:
        """Its first argument."""
        return next(iter(self.arguments.values()))

    def concrete(self, argument: Any) -> Any:
        """Return an argument with every number that is computed replaced by its value."""
        return replaced(argument, lambda node: node.value if is_number(node.value) else node)


def is_number(value: object) -> bool:
    """Say whether a node's value is a number, and no shape."""
    return isinstance(value, (int, float))


def replaced(argument: Any, put: Callable[[Node], Any]) -> Any:
    """Return an argument with something else in place of every node in it."""
    if isinstance(argument, Node):
        return put(argument)
    if isinstance(argument, (list, tuple)):
        return type(argument)(replaced(item, put) for item in argument)
    if isinstance(argument, dict):
        return {key: replaced(item, put) for key, item in argument.items()}
    return argument


def per_axis(value: Any, length: int) -> tuple[int, ...]:
    """Return an integer or a list of integers as a tuple of ``length``."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(int(v) for v in (items * length if len(items) == 1 else items))


def _nodes_in(argument: Any) -> Iterator[Node]:
    if isinstance(argument, Node):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from _nodes_in(item)
    elif isinstance(argument, dict):
        yield from _nodes_in(list(argument.values()))

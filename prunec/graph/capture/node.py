"""Node of a captured network, independent of the front end.

A front end, here torch's, converts its graph to such nodes; the analyses use nothing else.
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
        name: unique name in the graph.
        kind: input, stored tensor, call of an operator, or output.
        operator: operator of a call, such as ``conv2d``, ``add``, ``getitem``; else empty.
        arguments: arguments of a call by their names in the schema, defaults filled in; nodes stand
            for their values.
        value: shape of the result for the example, a list of shapes for several results, or a
            number.
        dtype: type of the resulting tensor; None if there is none.
        dynamic: axes of the resulting tensor whose length depends on the batch.
        stored: name of the parameter, buffer or constant; else empty.
        tensor: the parameter, buffer or constant; else None.
        module: path of the module that made the call; empty if unknown.
        compute: function of the arguments by name that computes the call.
        users: nodes that read this one, in the order of computation.
        operands: nodes that this one reads, each once.
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
        # x + x reads one operand, once.
        self.operands = tuple(dict.fromkeys(_nodes_in(tuple(self.arguments.values()))))
        for operand in self.operands:
            operand.users.append(self)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_tensor(self) -> bool:
        """Whether the result is a single tensor."""
        return isinstance(self.value, tuple) and all(isinstance(s, int) for s in self.value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result for the example."""
        shape: tuple[int, ...] = self.value
        return shape

    @property
    def first(self) -> Any:
        """First argument."""
        return next(iter(self.arguments.values()))

    def concrete(self, argument: Any) -> Any:
        """Return an argument with computed numbers replaced by their values."""
        return replaced(argument, lambda node: node.value if is_number(node.value) else node)


def is_number(value: object) -> bool:
    """Return whether a node's value is a number rather than a shape."""
    return isinstance(value, (int, float))


def replaced(argument: Any, put: Callable[[Node], Any]) -> Any:
    """Return an argument with ``put(node)`` in place of every node in it."""
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

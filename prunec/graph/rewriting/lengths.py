"""Loops over an axis of an input: unrolled at one length, they are an error at any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Interpreter

from prunec.errors import PrunecError
from prunec.graph.capture import Captured, Node

Step = tuple[Node, int]
"""A value and an axis of it whose positions the graph takes one by one."""


@dataclass(frozen=True)
class Lengths:
    """A hook before a forward pass: axes of its inputs that have one length only.

    Attributes:
        fixed: number of an input, its axis, the length, the operator that takes it step by step.
    """

    fixed: tuple[tuple[int, int, int, str], ...]

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """Raise for another length.

        Raises:
            PrunecError: an input has one; says which and what mends it.
        """
        for number, axis, length, operator in self.fixed:
            shape = given[number].shape
            if shape[axis] != length:
                raise PrunecError(
                    f"input {number} has shape {tuple(shape)}, but its axis {axis} is unrolled at "
                    f"length {length}: the network takes it step by step ({operator})",
                    remedy=f"Give it length {length}, or compile the network with an example of "
                    "the other length.",
                )


def lengths_of(captured: Captured) -> Lengths | None:
    """The axes of a network's inputs that it takes step by step; None where there is none."""
    steps = _steps(captured)
    if not steps:
        return None
    inputs = [node for node in captured.nodes if node.kind == "input"]
    fixed = [
        (number, axis, node.shape[axis], operator)
        for number, node in enumerate(inputs)
        for axis in range(1, len(node.shape))
        if (operator := _follows(captured, inputs, number, axis, steps))
    ]
    return Lengths(tuple(fixed)) if fixed else None


def _steps(captured: Captured) -> dict[Step, str]:
    """Axes of which two positions or more are taken one by one, or all, but for reshaped ones."""
    taken: dict[Step, set[int]] = {}
    found: dict[Step, str] = {}
    for node in captured.nodes:
        named = node.arguments
        source = next(iter(named.values()), None) if node.kind == "call" else None
        if not isinstance(source, Node) or not source.is_tensor or "dim" not in named:
            continue
        dim = named["dim"]
        step = (source, dim % len(source.shape)) if isinstance(dim, int) and source.shape else None
        if step is None or step[1] in source.dynamic or source.operator in _RESHAPING:
            continue
        if node.operator == "unbind" or (node.operator in _SPLITS and _is_one(node)):
            found[step] = node.operator
        elif node.operator in ("select", "slice", "narrow"):
            at = _position(node)
            if at is not None:
                taken.setdefault(step, set()).add(at % source.shape[step[1]])
                if len(taken[step]) > 1:
                    found[step] = node.operator
    return found


_RESHAPING = frozenset(("view", "reshape", "unflatten"))  # the length is what they say
_SPLITS = frozenset(("split", "chunk", "split_with_sizes", "tensor_split"))


def _is_one(node: Node) -> bool:
    """Whether every part of a split is one position."""
    axis = int(node.arguments["dim"])
    return all(isinstance(shape, tuple) and shape[axis] == 1 for shape in node.value)


def _position(node: Node) -> int | None:
    """The one position that is taken, None where there are several or it is computed."""
    if node.operator == "select":
        index = node.arguments["index"]
        return index if isinstance(index, int) else None
    start = node.arguments.get("start") or 0
    one = node.is_tensor and node.shape[int(node.arguments["dim"])] == 1
    return start if one and isinstance(start, int) else None


def _follows(
    captured: Captured, inputs: list[Node], number: int, axis: int, steps: dict[Step, str]
) -> str:
    """The operator at an axis that is longer if that of an input is; empty where none is."""
    own = captured.source.fx_nodes
    wanted = {own[node]: (node, places) for node, places in _by_node(steps).items()}
    for more in (1, inputs[number].shape[axis]):
        shapes = [list(node.shape) for node in inputs]
        shapes[number][axis] += more
        seen = _Seen(captured.source.module, frozenset(wanted))
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            given = [torch.empty(s, dtype=n.dtype) for s, n in zip(shapes, inputs, strict=True)]
            seen.see(given)
        for theirs, shape in seen.shapes.items():
            node, places = wanted[theirs]
            for place, operator in places.items():
                if shape[place] != node.shape[place]:
                    return operator
    return ""


def _by_node(steps: dict[Step, str]) -> dict[Node, dict[int, str]]:
    found: dict[Node, dict[int, str]] = {}
    for (node, axis), operator in steps.items():
        found.setdefault(node, {})[axis] = operator
    return found


class _Enough(Exception):
    """All that is asked for was seen."""


class _Seen(Interpreter):
    """Shapes of some values of a graph for other inputs, as far as the graph takes them."""

    def __init__(self, graph: fx.GraphModule, wanted: Iterable[fx.Node]) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self._left = set(wanted)

    def see(self, given: list[Tensor]) -> None:
        try:
            self.run(*given)
        except Exception:  # enough, or an operator that takes no such shape
            return

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._left and isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
            self._left.discard(n)
            if not self._left:
                raise _Enough
        return result

"""Shapes that a file reads at run time, and the readers of channel counts in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
import torch

from prunec.deploy.compaction.observed import Observed, names_read
from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.operator import Known, Mark
from prunec.graph.channels.weights import Weights

OPERATOR = "shape_of"
_SIZED = {
    "Reshape": 1,
    "Expand": 1,
    "Resize": 3,
}  # operator → index of its input of sizes, which is rewritten


@dataclass(frozen=True, eq=False)
class ShapeOf(Family):
    """Sizes of a value: the value must exist, and stay whole if its channel count matters."""

    names = (OPERATOR,)
    several = True

    node: Node

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Pin the channels whose number is read."""
        source = node.arguments["input"]
        if set(builder.axes(source)) & set(node.arguments["axes"]):
            builder.pin(builder.layout(source), f"their number is read by Shape at {node.name}")
        builder.bind(cls(node), builder.blank(node))

    def read(self, live: torch.Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark nothing: the values are not read."""


class ShapeReaders:
    """Readers of the sizes of values in a file."""

    def __init__(self, graph: onnx.GraphProto, observed: Observed) -> None:
        self._graph = graph
        self._observed = observed
        self._readers: dict[str, list[int]] = {}
        for number, node in enumerate(graph.node):
            for name in names_read(node):
                self._readers.setdefault(name, []).append(number)
        self._outputs = {value.name for value in graph.output}

    def axes_that_matter(self, node: onnx.NodeProto, rank: int) -> tuple[tuple[int, ...], set[int]]:
        """Return the axes whose sizes enter computations, and the reshapes that read sizes.

        Args:
            node: ``Shape`` or ``Size`` node.
            rank: rank of its operand.
        """
        axes: set[int] = set()
        sized: set[int] = set()
        whole = tuple(range(rank))
        shape = node.op_type == "Shape" and not node.attribute
        for name in node.output:
            if name in self._outputs:
                axes.update(whole)
            for number in self._readers.get(name, ()):
                read = self._entries(self._graph.node[number], whole) if shape else whole
                free, ends = self._ends(number, name)
                sized |= ends
                if not free:
                    axes.update(read)
        return tuple(sorted(axes)), sized

    def _entries(self, reader: onnx.NodeProto, whole: tuple[int, ...]) -> Iterable[int]:
        """Return the entries of a shape that its reader uses."""
        values = self._observed.values
        listed = [values.get(name) for name in reader.input[1:]]
        if any(value is None or value.array is None for value in listed):
            return whole
        arrays = [value.array for value in listed if value is not None]
        if reader.op_type == "Gather" and len(arrays) == 1 and arrays[0] is not None:
            return [int(i) % len(whole) for i in arrays[0].reshape(-1)]
        # Without steps, which would be a fourth operand.
        if reader.op_type == "Slice" and len(arrays) in (2, 3):
            start, end = (int(a.reshape(-1)[0]) for a in arrays[:2] if a is not None)
            return whole[start:end]
        return whole

    def _ends(self, number: int, name: str) -> tuple[bool, set[int]]:
        """Return whether only reshapes read, in the end, a value made of sizes, and these
        reshapes.
        """
        todo, seen, sized = [(number, name)], set(), set()
        while todo:
            number, name = todo.pop()
            node = self._graph.node[number]
            place = _SIZED.get(node.op_type)
            if place is not None and list(node.input).index(name) == place:
                sized.add(number)
                continue
            if any(out not in self._observed.shaped for out in node.output):
                return False, sized
            if any(out in self._outputs for out in node.output):
                return False, sized
            for out in node.output:
                for reader in self._readers.get(out, ()):
                    if (reader, out) not in seen:
                        seen.add((reader, out))
                        todo.append((reader, out))
        return True, sized

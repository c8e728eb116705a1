"""One operator of a file, as its translation sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from prunec.deploy.compaction.observed import Observed, ObservedValue
from prunec.deploy.compaction.source import Place
from prunec.graph.capture.node import Node

AS_IT_IS = "as it is"
"""Operator of values that stay unchanged: sizes, and values computed from them."""
Compute = Callable[[Mapping[str, Any]], Any]


class Reading:
    """Nodes created so far, and the tensors that they store."""

    def __init__(self, observed: Observed, opset: int) -> None:
        self.observed = observed
        self.opset = opset
        self.nodes: list[Node] = []
        self.by_name: dict[str, Node] = {}
        self.named: dict[Node, str] = {}
        self.numbers: dict[Node, int] = {}
        self.operands: dict[Node, list[Node | None]] = {}
        self.places: dict[str, Place] = {}
        self._stored: dict[str, Node] = {}

    def stored(self, stored: str, name: str, *, turned: bool = False, flat: bool = False) -> Node:
        """Return the node of a stored tensor; the same node for the same name.

        Args:
            stored: name for the analyses, shared by tensors that are cut together.
            name: name in the file.
            turned: whether to exchange its two axes.
            flat: whether to drop axes of size 1.
        """
        if stored not in self._stored:
            array = self.observed.values[name].array
            assert array is not None
            # A copy: arrays of protobuf are read-only.
            tensor = torch.from_numpy(np.array(array))
            tensor = tensor.t().contiguous() if turned else tensor
            tensor = tensor.reshape(-1) if flat else tensor
            node = Node(
                name=f"stored_{len(self._stored)}", kind="stored", value=tuple(tensor.shape),
                dtype=tensor.dtype, dynamic=frozenset(), stored=stored, tensor=tensor,
            )  # fmt: skip
            self._stored[stored] = node
            self.places[stored] = Place(name, tuple(array.shape), turned)
            self.nodes.append(node)
        return self._stored[stored]

    def value(self, name: str) -> Node:
        """Return the node of a value; one without channels for values computed from shapes."""
        if name not in self.by_name:
            seen = self.observed.values.get(name)
            node = Node(
                name=name, kind="call", operator=AS_IT_IS, value=seen and seen.shape,
                dtype=seen.dtype if seen else None, dynamic=seen.open if seen else frozenset(),
            )  # fmt: skip
            self.nodes.append(node)
            self.by_name[name] = node
            self.named[node] = name
        return self.by_name[name]


class Call:
    """One operator of the file.

    Attributes:
        proto: operator.
        reading: nodes of the file so far.
        number: number of the operator in the file.
    """

    def __init__(self, reading: Reading, proto: onnx.NodeProto, number: int) -> None:
        self.reading = reading
        self.proto = proto
        self.number = number
        self._attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        self._used: dict[int, Node] = {}

    @property
    def opset(self) -> int:
        """Version of the operators."""
        return self.reading.opset

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; bytes as text."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Return whether an input is given."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def name(self, index: int) -> str:
        """Return the name of an input in the file."""
        return str(self.proto.input[index])

    def value(self, index: int) -> ObservedValue:
        """Return the observed value of an input."""
        return self.reading.observed.values[self.name(index)]

    @property
    def made(self) -> ObservedValue:
        """Observed value of the first output."""
        return self.reading.observed.values[self.proto.output[0]]

    def is_constant(self, index: int) -> bool:
        """Return whether an input does not depend on the file's inputs."""
        known = self.has(index) and self.name(index) in self.reading.observed.constant
        return known and self.value(index).array is not None

    def numbers(self, index: int, attribute: str = "") -> list[Any] | None:
        """Return the numbers of an input, or of the attribute that older files have instead.

        None if they are computed or not given.
        """
        if attribute and attribute in self._attributes:
            value = self._attributes[attribute]
            return list(value) if isinstance(value, (list, tuple)) else [value]
        if not self.is_constant(index):
            return None
        array = self.value(index).array
        assert array is not None
        return list(array.reshape(-1).tolist())

    def node(self, index: int) -> Node:
        """Return the node of an input; stored tensors belong to this operator alone."""
        if self.is_constant(index):
            return self.keep(index, self.stored(index))
        return self.keep(index, self.reading.value(self.name(index)))

    def stored(self, index: int, *, flat: bool = False) -> Node:
        """Return a stored tensor of this operator alone; ``flat`` drops axes of size 1."""
        name = self.name(index)
        return self.reading.stored(f"{plain(name)}~{self.number}.{index}", name, flat=flat)

    def keep(self, index: int, node: Node) -> Node:
        """Record the node of an input."""
        self._used[index] = node
        return node

    def weight(self, index: int, *, turned: bool = False) -> Node:
        """Return a kernel: one node for all its readers."""
        if not self.is_constant(index):
            return self.node(index)
        stored = f"{self.owner(index, turned=turned)}.weight"
        return self.keep(index, self.reading.stored(stored, self.name(index), turned=turned))

    def owner(self, index: int, *, turned: bool = False) -> str:
        """Return the name of the layer that holds a kernel; it is not a prefix of another
        layer's.
        """
        return f"{plain(self.name(index))}{'~t' if turned else ''}"

    def beside(self, weight: int, index: int, *, turned: bool = False, role: str = "bias") -> Node:
        """Return a vector that belongs to a kernel: one node for all readers of both."""
        if not self.is_constant(index):
            return self.node(index)
        stored, name = f"{self.owner(weight, turned=turned)}.{role}", self.name(index)
        place = self.reading.places.get(stored)
        if place is not None and place.name != name:
            stored = f"{self.owner(weight, turned=turned)}~{plain(name)}.{role}"
        return self.keep(index, self.reading.stored(stored, name, flat=True))

    def call(
        self,
        operator: str,
        arguments: Mapping[str, Any],
        compute: Callable[..., Any] | None = None,
    ) -> Node:
        """Create the node of this operator.

        Args:
            operator: operator name of the families.
            arguments: arguments by their names in the families.
            compute: function of the arguments' values, in order; None if no analysis needs it.
        """
        outputs = [name for name in self.proto.output if name]
        values = [self.reading.observed.values.get(name) for name in outputs]
        several = len(outputs) != 1
        first = values[0]
        shapes: Any = [v and v.shape for v in values] if several else first and first.shape
        node = Node(
            name=self.proto.name or outputs[0], kind="call", operator=operator,
            arguments=arguments, value=shapes, dtype=None if several or not first else first.dtype,
            dynamic=first.open if first and not several else frozenset(),
            compute=_of_arguments(compute) if compute else None,
        )  # fmt: skip
        self._note(node)
        if not several:
            self._bind(node, outputs[0])
            return node
        for index, (name, value) in enumerate(zip(self.proto.output, self._all(), strict=True)):
            if name:
                item = Node(
                    name=name, kind="call", operator="getitem",
                    arguments={"input": node, "index": index},
                    value=value and value.shape, dtype=value.dtype if value else None,
                    dynamic=value.open if value else frozenset(),
                )  # fmt: skip
                self._note(item)
                self._bind(item, name)
        return node

    def _all(self) -> list[ObservedValue | None]:
        return [self.reading.observed.values.get(name) for name in self.proto.output]

    def _note(self, node: Node) -> None:
        reading = self.reading
        reading.nodes.append(node)
        reading.numbers[node] = self.number
        reading.operands[node] = [self._used.get(i) for i in range(len(self.proto.input))]

    def _bind(self, node: Node, name: str) -> None:
        self.reading.by_name[name] = node
        self.reading.named[node] = name


def plain(name: str) -> str:
    """Return a name without the dots that would make it part of another name."""
    return name.replace(".", "/")


def _of_arguments(compute: Callable[..., Any]) -> Compute:
    def computed(named: Mapping[str, Any]) -> Any:
        with torch.no_grad():
            return compute(*named.values())

    return computed

"""Writer of ONNX files: a finished file with the kept channels; uncut operators stay as they
were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor

from prunec.deploy.compaction.observed import inner_graphs, names_read
from prunec.deploy.compaction.reading import AS_IT_IS
from prunec.deploy.compaction.shape_of import OPERATOR
from prunec.deploy.compaction.source import SourceFile
from prunec.deploy.compaction.tensors import Tensors
from prunec.graph.capture.node import Node
from prunec.graph.channels.operator import WrittenLayer
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting.kept import Kept

_SLICE_BY_INPUTS = 10  # first opset in which Slice takes its numbers as inputs
_COPIED = (-1, 0)  # sizes of a reshape that are inferred or copied from its operand


class OnnxWriter(Kept):
    """Writer of nodes in the order of the file, each in its old place.

    Attributes:
        source: original file.
        model: written model.
        tensors: its stored tensors.
        made: node → name of its value.
    """

    def __init__(self, structure: Structure, decision: Decision) -> None:
        super().__init__(structure, decision)
        self.source: SourceFile = structure.captured.source
        self.model = onnx.ModelProto()
        self.model.CopyFrom(self.source.model)
        self.tensors = Tensors(self.model, self.source.observed)
        self.made: dict[Node, str] = {}
        self._written: dict[int, list[onnx.NodeProto]] = {}
        self._biases: dict[str, str] = {}

    def write(self) -> onnx.ModelProto:
        """Write everything that the outputs need."""
        needed = self.needed()
        for node in self.captured.nodes:
            if node.kind == "call" and node in needed and node.operator != OPERATOR:
                self.made[node] = self._emit(node)
        self._keep_names(needed)
        self._assemble()
        return self.model

    def _emit(self, node: Node) -> str:
        if node.operator == AS_IT_IS:
            return self.source.named[node]
        if node in self.structure.shuffles:
            return self._shuffle(node)
        written: str = self.structure.operators[node].emit(self)
        return written

    # -- values -------------------------------------------------------------------------------

    def new(self, node: Node) -> str:
        """Return the name of a written value; stored tensors are placed at first use."""
        if node.kind == "input":
            return self.source.named[node]
        if node not in self.made:
            if node.kind == "stored":
                place = self.source.places[node.stored]
                self.made[node] = self.tensors.place(place, self.tensor(node.stored).cpu())
            elif node in self.decision.frozen:
                value = self.frozen_value(node).cpu().numpy()
                self.made[node] = self.tensors.add(f"{self.source.named[node]}_constant", value)
            else:
                raise AssertionError(f"{node.name} was not written")
        return self.made[node]

    # -- calls --------------------------------------------------------------------------------

    def copy(self, node: Node) -> str:
        """Write an operator unchanged, on written values."""
        if node.operator == "getitem":
            call = node.arguments["input"]
            if call not in self.made:
                self.made[call] = self.copy(call)
            return self.source.named[node]
        axis = self.channel_axis(node) if node in self.structure.layouts else None
        cut = axis is not None and not self.is_whole(node)
        proto = self.source.proto(node)
        sized = proto.op_type == "Resize" and len(proto.input) > 3 and proto.input[3] and cut
        if sized or self.source.numbers[node] in self.source.read_by_count:
            return self._sized(node, axis)
        return self._put(node, self._again(node))

    def call(self, node: Node, **changes: Any) -> str:
        """Write a concatenation of fewer parts, a padding or a norm of fewer channels."""
        proto = self._again(node, tensors="tensors" not in changes)
        for key, value in changes.items():
            if key == "tensors":
                del proto.input[:]
                proto.input.extend(value)
            elif key == "num_groups":
                _set(proto, key, int(value))
            else:
                assert key == "pad", key
                self._pad(proto, value)
        return self._put(node, proto)

    def layer(self, node: Node, source: Node, layer: WrittenLayer) -> str:
        """Write an operator that owns tensors, with an added bias if there is one."""
        proto = self._again(node)
        name = layer.names.get("bias")
        if name is not None and node.arguments.get("bias") is None:
            tensor = layer.tensors["bias"]
            assert tensor is not None
            if name not in self._biases:
                weight = self.source.places[name.removesuffix("bias") + "weight"].name
                self._biases[name] = self.tensors.add(f"{weight}_bias", tensor.cpu().numpy())
            del proto.input[2:]
            proto.input.append(self._biases[name])
        groups = layer.changes.get("groups")
        if groups is not None and groups != node.arguments["groups"]:
            _set(proto, "group", int(groups))
        return self._put(node, proto)

    def pick(self, node: Node, source: Node, axis: int, positions: Tensor) -> str:
        """Write positions along an axis: as nothing, the old split, a slice, or a gather."""
        if node.operator == "getitem" and all(map(self.is_whole, (node, source))):
            return self.copy(node)
        value = self.new(source)
        start, length = int(positions[0]), len(positions)
        run = torch.equal(positions, torch.arange(start, start + length))
        if run and length == len(self.kept(source, axis)):
            return value
        name = self.source.named[node]
        if run and self._opset >= _SLICE_BY_INPUTS:
            numbers = [self._numbers(node, [n]) for n in (start, start + length, axis)]
            return self._put(node, helper.make_node("Slice", [value, *numbers], [name]))
        index = self._numbers(node, positions.tolist())
        return self._put(node, helper.make_node("Gather", [value, index], [name], axis=axis))

    def pick_one(self, source: Node, axis: int, position: int) -> str:
        """Write the selection of one position along an axis; the axis is dropped."""
        node = next(n for n, move in self.structure.operators.items() if n not in self.made
                    and source in n.operands and n.operator == "select")  # fmt: skip
        index = self.tensors.add(f"{self.source.named[node]}_index", np.asarray(position, np.int64))
        made = helper.make_node(
            "Gather", [self.new(source), index], [self.source.named[node]], axis=axis
        )
        return self._put(node, made)

    def scaled(self, value: str, factor: float) -> str:
        """Write a value times a number."""
        return self._behind(value, "Mul", factor)

    def bounded(self, value: str, bound: float, *, above: bool) -> str:
        """Write a clamp by one bound: an upper bound where ``above``, else a lower bound."""
        return self._behind(value, "Min" if above else "Max", bound)

    def _behind(self, value: str, operator: str, number: float) -> str:
        """Write an operator with a number after a value; the result takes over the value's name."""
        place, proto = next(
            (place, proto)
            for place, protos in self._written.items()
            for proto in reversed(protos)
            if value in proto.output
        )
        inner = self.tensors.fresh(f"{value}_of_kept")
        proto.output[list(proto.output).index(value)] = inner
        kind = torch.empty(0, dtype=self.source.observed.values[value].dtype).numpy().dtype
        constant = self.tensors.add(f"{value}_number", np.asarray(number, kind))
        made = helper.make_node(operator, [inner, constant], [value])
        self._written[place].append(made)
        return value

    def resize(self, node: Node, axis: int) -> str:
        """Write a reshape with its size of the channel axis set to the kept count."""
        return self._sized(node, axis)

    def dropout(self, node: Node, source: Node) -> str:
        """Write a dropout."""
        return self.copy(node)

    def is_folded(self, node: Node) -> bool:
        """Return False: no batch norm is folded here."""
        return False

    def recurrent(self, node: Node, from_zero: bool, first_states: Sequence[Tensor]) -> str:
        """Raise: recurrent layers of ONNX are not translated."""
        raise AssertionError(f"{node.name} is recurrent")

    def item(self, node: Node) -> str:
        """Write one item of the result of a call."""
        return self.copy(node)

    def _shuffle(self, node: Node) -> str:
        """Write a run of moves that permutes channels as one gather after its entry."""
        shuffle = self.structure.shuffles[node]
        origin = shuffle.index[self.kept(node, shuffle.axis)].contiguous()
        positions = torch.searchsorted(self.kept(shuffle.entry, shuffle.axis), origin)
        return self.pick(node, shuffle.entry, shuffle.axis, positions)

    # -- sizes --------------------------------------------------------------------------------

    def _sized(self, node: Node, axis: int | None) -> str:
        """Write a reshape or resize with literal sizes: fixed ones, and the cut channel count."""
        proto = self._again(node)
        place = 3 if proto.op_type == "Resize" else 1
        name = self.source.proto(node).input[place]
        known = self.source.observed.values[name].array
        made = self.source.observed.values[proto.output[0]]
        assert known is not None
        numbers = [int(n) for n in known]
        # −1 and 0 follow the cut operand by themselves.
        if axis is not None and numbers[axis] not in (*_COPIED, 1):
            numbers[axis] = len(self.kept(node, axis))
        computed = name not in self.source.observed.constant
        open_axes = {i for i in made.open if numbers[i] not in _COPIED} if computed else set()
        proto.input[place] = self._target(node, proto.input[place], numbers, open_axes)
        return self._put(node, proto)

    def _target(self, node: Node, computed: str, numbers: list[int], open_axes: set[int]) -> str:
        if not open_axes:
            return self._numbers(node, numbers)
        parts: list[str] = []
        for axis, number in enumerate(numbers):
            part = self._numbers(node, [axis if axis in open_axes else number])
            if axis in open_axes:
                name = self.tensors.fresh(f"{self.source.named[node]}_size")
                self._add(node, helper.make_node("Gather", [computed, part], [name], axis=0))
                part = name
            parts.append(part)
        whole = self.tensors.fresh(f"{self.source.named[node]}_sizes")
        self._add(node, helper.make_node("Concat", parts, [whole], axis=0))
        return whole

    def _pad(self, proto: onnx.NodeProto, widths: Sequence[int]) -> None:
        """Set the widths of a padding, given as torch lists them: last axis first."""
        rank = len(self.source.observed.values[proto.output[0]].shape)
        pairs = [(0, 0)] * rank
        for i in range(len(widths) // 2):
            pairs[rank - 1 - i] = (widths[2 * i], widths[2 * i + 1])
        flat = [int(first) for first, _ in pairs] + [int(second) for _, second in pairs]
        if any(a.name == "pads" for a in proto.attribute):
            _set(proto, "pads", flat)
        else:
            pads = np.asarray(flat, np.int64)
            proto.input[1] = self.tensors.add(f"{proto.output[0]}_pads", pads)

    def _numbers(self, node: Node, numbers: Sequence[int]) -> str:
        stem = f"{self.source.named[node]}_numbers"
        return self.tensors.add(stem, np.asarray(list(numbers), np.int64))

    @property
    def _opset(self) -> int:
        versions = {o.domain: o.version for o in self.model.opset_import}
        return int(versions.get("", versions.get("ai.onnx", 1)))

    # -- the graph ----------------------------------------------------------------------------

    def _again(self, node: Node, *, tensors: bool = True) -> onnx.NodeProto:
        """Return a copy of a call's operator on written values."""
        proto = onnx.NodeProto()
        proto.CopyFrom(self.source.proto(node))
        for index, operand in enumerate(self.source.operands[node]) if tensors else ():
            if operand is not None:
                proto.input[index] = self.new(operand)
        return proto

    def _put(self, node: Node, proto: onnx.NodeProto) -> str:
        self._add(node, proto)
        return str(next(name for name in proto.output if name))

    def _add(self, node: Node, proto: onnx.NodeProto) -> None:
        self._written.setdefault(self.source.numbers[node], []).append(proto)

    def _keep_names(self, needed: set[Node]) -> None:
        """Restore the name of values that an output, a shape or an inner graph reads."""
        graph = self.source.model.graph
        asked = {value.name for value in graph.output}
        for proto in graph.node:
            outputs = [name for name in proto.output if name]
            if any(inner_graphs(proto)):
                asked.update(set(names_read(proto)) - set(proto.input))
            if all(name in self.source.observed.shaped for name in outputs):
                asked.update(proto.input)
        for node in needed:
            name = self.source.named.get(node)
            made = self.made.get(node)
            if name is None or made is None or made == name:
                continue
            if node.kind == "call" and name in asked:
                self._add(node, helper.make_node("Identity", [made], [name]))

    def _assemble(self) -> None:
        from prunec.deploy.compaction.assembly import assemble

        assemble(self.model, self.source, self._written, self.tensors.inputs, self._cut_shapes())

    def _cut_shapes(self) -> dict[str, tuple[int, int]]:
        """Return value → (axis along which it was cut, remaining length)."""
        cut_shapes = {}
        for node in self.made:
            name = self.source.named.get(node)
            if name is None or node not in self.structure.layouts or not node.is_tensor:
                continue
            axis = self.channel_axis(node)
            if axis is not None and not self.is_whole(node):
                cut_shapes[name] = (axis, len(self.kept(node, axis)))
        return cut_shapes


def _set(proto: onnx.NodeProto, name: str, value: int | list[int]) -> None:
    """Set an attribute in place, or add it."""
    made = helper.make_attribute(name, value)
    for attribute in proto.attribute:
        if attribute.name == name:
            attribute.CopyFrom(made)
            return
    proto.attribute.append(made)

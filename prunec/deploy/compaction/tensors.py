"""Stored tensors of the written file: cut tensors in place of the old ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from prunec.deploy.compaction.observed import Observed, names_read
from prunec.deploy.compaction.source import Place


class Tensors:
    """Stored tensors of a model that is written.

    Attributes:
        model: written model, still with the nodes of the old one.
        inputs: cut tensor → its shape.
    """

    def __init__(self, model: onnx.ModelProto, observed: Observed) -> None:
        self.model = model
        self._observed = observed
        graph = model.graph
        self._held = {tensor.name: tensor for tensor in graph.initializer}
        self._constants = {
            node.output[0]: attribute.t
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        self._reads = Counter(name for node in graph.node for name in names_in(node))
        self._reads.update(value.name for value in graph.output)
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self._taken |= set(self._held) | {value.name for value in graph.input}
        self._made: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.inputs: dict[str, tuple[int, ...]] = {}

    def place(self, place: Place, tensor: Tensor) -> str:
        """Return the name of a cut tensor: the old name if it has no other reader."""
        array = place.back(tensor).numpy()
        old = self._observed.values[place.name].array
        assert old is not None
        if array.shape == old.shape:
            array = array.astype(old.dtype)
            if array.tobytes() == old.tobytes():
                return place.name
        return self._put(place.name, array)

    def _put(self, name: str, array: np.ndarray) -> str:
        key = (name, array.shape, array.tobytes())
        if key not in self._made:
            held = self._held.get(name, self._constants.get(name))
            # Several readers may be cut differently: each then has a tensor of its own.
            alone = self._reads[name] == 1 and held is not None and not self._is_made(name)
            if alone and held is not None:
                _overwrite(held, array)
                self.inputs[name] = array.shape
                self._made[key] = name
            else:
                self._made[key] = self.add(f"{name}_compact", array)
        return self._made[key]

    def _is_made(self, name: str) -> bool:
        return any(known == name for known, _, _ in self._made)

    def add(self, name: str, array: np.ndarray) -> str:
        """Store a new tensor; return its name."""
        name = self.fresh(name)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def fresh(self, name: str) -> str:
        """Return a name that is unused in the file."""
        unused, count = name, 1
        while unused in self._taken:
            count += 1
            unused = f"{name}_{count}"
        self._taken.add(unused)
        return unused


def names_in(node: onnx.NodeProto) -> list[str]:
    """Return every name that a node reads, as often as it is read; by inner graphs once."""
    given = [name for name in node.input if name]
    return given + [name for name in names_read(node) if name not in given]


def _overwrite(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    made = numpy_helper.from_array(array, tensor.name)
    # Values in typed fields or in another file would contradict raw_data.
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    del tensor.dims[:]
    tensor.dims.extend(made.dims)
    tensor.raw_data = made.raw_data

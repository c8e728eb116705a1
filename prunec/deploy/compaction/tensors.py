"""The stored tensors of a file that is written: those that were cut in place of the old ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from prunec.deploy.compaction.observed import Observed, names_read
from prunec.deploy.compaction.source import Place


class Tensors:
    """Puts tensors into a model.

    Attributes:
        model: the one that is written, still with the nodes of the old one.
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
        """Return the name of a cut tensor: the old one's where nobody else reads that."""
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
        """Store a new tensor; return the name that it got."""
        name = self.fresh(name)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def fresh(self, name: str) -> str:
        """Return a name that nothing in the file has."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found


def names_in(node: onnx.NodeProto) -> list[str]:
    """Return every reading of a name, one as often as it is read; of inner graphs once."""
    given = [name for name in node.input if name]
    return given + [name for name in names_read(node) if name not in given]


def _overwrite(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    made = numpy_helper.from_array(array, tensor.name)
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    del tensor.dims[:]
    tensor.dims.extend(made.dims)
    tensor.raw_data = made.raw_data

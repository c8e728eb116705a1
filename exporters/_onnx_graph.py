"""Constants, shapes and types of an ONNX graph, for rules that rewrite it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

_Type = tuple[int, list[int | None] | None]
"""(element type, sizes as far as known, or None)."""


class Needs(Exception):
    """An operator cannot be expressed below an opset.

    Args:
        node: operator.
        opset: first opset that can express it.
        because: the feature that it needs.
    """

    def __init__(self, node: onnx.NodeProto, opset: int, because: str = "") -> None:
        super().__init__(node.op_type)
        self.operator = str(node.op_type)
        self.place = str(node.name or node.output[0])
        self.opset = opset
        self.because = f" ({because})" if because else ""


class RewrittenGraph:
    """ONNX graph that rules rewrite node by node.

    Attributes:
        made: constants created by rules, to be added to the initialisers.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.made: list[onnx.TensorProto] = []
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types: dict[str, _Type] = {}
        for tensor in model.graph.initializer:
            self._types[tensor.name] = (tensor.data_type, list(tensor.dims))
        inferred = shape_inference.infer_shapes(_without_weights(model)).graph
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            self._types[value.name] = _type(value)

    def rank(self, name: str) -> int | None:
        """Return the number of axes of a value; None if unknown."""
        sizes = self._types.get(name, (0, None))[1]
        return None if sizes is None else len(sizes)

    def sizes(self, name: str) -> list[int | None] | None:
        """Return the sizes of a value, None for dynamic ones; None if the rank is unknown."""
        return self._types.get(name, (0, None))[1]

    def type(self, name: str) -> int:
        """Return ONNX's number of a value's element type; 0 if unknown."""
        return self._types.get(name, (0, None))[0]

    def type_name(self, name: str) -> str:
        """Return the type of a value as in operator schemas: ``tensor(float)``."""
        return f"tensor({onnx.TensorProto.DataType.Name(self.type(name)).lower()})"

    def constant(self, node: onnx.NodeProto, place: int, opset: int) -> np.ndarray | None:
        """Return the content of a stored input; None if there is no such input.

        Args:
            node: operator.
            place: index of the input.
            opset: first opset that accepts a computed input.

        Raises:
            Needs: the input is computed.
        """
        name = node.input[place] if len(node.input) > place else ""
        if not name:
            return None
        if name not in self._stored:
            raise Needs(node, opset, "its settings are computed in the graph")
        return numpy_helper.to_array(self._stored[name])

    def store(self, value: np.ndarray) -> str:
        """Add a constant; return its name."""
        name = f"earlier_constant_{len(self.made)}"
        tensor = numpy_helper.from_array(value, name)
        self.made.append(tensor)
        self._stored[name] = tensor
        self._types[name] = (tensor.data_type, list(tensor.dims))
        return name

    def tell(self, name: str, kind: int, sizes: list[int | None] | None) -> None:
        """Record type and sizes of a value that a rule created."""
        self._types[name] = (kind, sizes)

    def known(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Record outputs of a new node with the type, and possibly the sizes, of its first
        input.
        """
        like = self._types.get(node.input[0], (0, None))
        kept: _Type = like if node.op_type in _SHAPED_AS_INPUT else (like[0], None)
        for output in node.output:
            self._types.setdefault(output, kept)
        return node

    @staticmethod
    def set(node: onnx.NodeProto, name: str, value: Any) -> None:
        """Set an attribute of a node, or remove it if the value is None."""
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))


_SHAPED_AS_INPUT = frozenset(
    {"Add", "Sub", "Mul", "Div", "Sqrt", "Cast", "Tanh", "Softplus", "HardSigmoid", "Softmax"}
    | {"LogSoftmax", "Hardmax", "Identity", "ReduceMean"}
)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of an attribute; bytes as ``str``."""
    for given in node.attribute:
        if given.name == name:
            value = helper.get_attribute_value(given)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    # Larger initialisers cannot be a shape or an axis; inference needs only their type.
    large = [t for t in bare.graph.initializer if np.prod(t.dims) > 1024]
    kept = [t for t in bare.graph.initializer if np.prod(t.dims) <= 1024]
    bare.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in large
    )
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    return bare


def _type(value: onnx.ValueInfoProto) -> _Type:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    return tensor.elem_type, sizes

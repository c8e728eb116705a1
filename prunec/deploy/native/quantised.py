"""Reading of an int8 ONNX file for C: the float network, and the integers that stand for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from prunec.deploy.native.reading import Network, read_network
from prunec.errors import PassError

_REMEDY = "C reads files that to-int8 writes."
_BYTE = 255


@dataclass(frozen=True)
class Codes:
    """Bytes of a tensor: byte b stands for ``(b - zero) * scale``."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Kernel:
    """Kernel of a layer as it is stored.

    Attributes:
        values: signed bytes, in the shape of the kernel.
        scales: step of each filter; one for all if there is a single one.
    """

    values: np.ndarray
    scales: np.ndarray


@dataclass(frozen=True)
class Quantised:
    """An int8 file.

    Attributes:
        network: the float network, with a ``Clip`` to the range wherever the file rounds to bytes.
        codes: result of such a ``Clip`` → its bytes.
        kernels: constant of the network → its integers.
        biases: constant of the network → its integers, in steps of the sums.
    """

    network: Network
    codes: Mapping[str, Codes]
    kernels: Mapping[str, Kernel]
    biases: Mapping[str, np.ndarray]


def read_quantised(path: Path) -> Quantised:
    """Return an int8 ONNX file as written by ``to-int8``.

    Raises:
        PassError: it rounds in a way that C has no kernel for, or its float network has a shape or
            a type that C has none for.
    """
    model = onnx.load(path)
    pairs = _Pairs(model.graph)
    pairs.replace()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        onnx.save(model, plain)
        network = read_network(plain)
    return Quantised(network, pairs.codes, pairs.kernels, pairs.biases)


@dataclass
class _Pairs:
    """Pairs of QuantizeLinear and DequantizeLinear in a graph, which is changed in place."""

    graph: onnx.GraphProto
    codes: dict[str, Codes] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.held = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in self.graph.output}

    def replace(self) -> None:
        """Replace the pairs of constants by their values, and those of activations by ``Clip``."""
        nodes = list(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend(new for node in nodes for new in self._replaced(node))

    def _replaced(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == "DequantizeLinear":
            # Those of activations went with their QuantizeLinear.
            if node.input[0] in self.held:
                self._unpack(node)
        elif node.op_type == "QuantizeLinear":
            yield from self._clipped(node)
        elif node.op_type == "Max" and self._is_kept_float(node):
            yield onnx.helper.make_node("Identity", [node.input[0]], node.output, node.name)
        else:
            yield node

    def _is_kept_float(self, node: onnx.NodeProto) -> bool:
        """Whether a node is the maximum with the lowest number that marks a float layer."""
        lowest = self.held.get(node.input[1]) if len(node.input) == 2 else None
        return lowest is not None and bool((lowest == np.finfo(np.float32).min).all())

    def _unpack(self, node: onnx.NodeProto) -> None:
        """Store what a constant's integers stand for under the name of the result."""
        values, name = self.held[node.input[0]], node.output[0]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        scale, zero = self._scale(node)
        if zero.any():
            raise PassError(f"C has no weights with a zero point ({name})", remedy=_REMEDY)
        steps = scale.astype(np.float64).reshape(-1)
        if steps.size > 1:
            own = axis % values.ndim
            steps = steps.reshape([-1 if a == own else 1 for a in range(values.ndim)])
        made = np.asarray(values * steps, np.float32).reshape(values.shape)
        self.graph.initializer.append(numpy_helper.from_array(made, name))
        if values.dtype == np.int8:
            self.kernels[name] = Kernel(values, scale.reshape(-1))
        elif values.dtype == np.int32:
            self.biases[name] = values

    def _scale(self, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and zero point of a node, which the file holds."""
        zero = self.held.get(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.uint8)
        scale = self.held.get(node.input[1])
        if scale is None or zero is None:
            raise PassError(f"C has no computed scales ({node.name})", remedy=_REMEDY)
        return scale, zero

    def _clipped(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the ``Clip`` that replaces a pair; each dequantised copy gets its one name."""
        scale, zero = self._scale(node)
        readers = self.readers.get(node.output[0], [])
        if scale.size != 1 or zero.dtype != np.uint8 or {r.op_type for r in readers} != _UNDONE:
            raise PassError(
                f"C has no QuantizeLinear but to unsigned bytes of one scale, and back "
                f"(node {node.name!r})",
                remedy=_REMEDY,
            )
        codes = Codes(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]))
        names = [name for reader in readers for name in reader.output]
        kept = next((name for name in names if name in self.outputs), names[0])
        ends = [f"{kept}_{end}" for end in ("least", "most")]
        for name, byte in zip(ends, (0, _BYTE), strict=True):
            value = np.array((byte - codes.zero) * codes.scale, np.float32)
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.codes[kept] = codes
        yield onnx.helper.make_node("Clip", [node.input[0], *ends], [kept], node.name or kept)
        for name in names:
            if name != kept and name in self.outputs:
                yield onnx.helper.make_node("Identity", [kept], [name], name)
            elif name != kept:
                for reader in self.readers.get(name, []):
                    reader.input[:] = [kept if each == name else each for each in reader.input]


_UNDONE = {"DequantizeLinear"}

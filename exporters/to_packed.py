"""Exporter of ONNX with weights stored without their zeros, in standard operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from prunec.cost.lifetimes import Flow
from prunec.cost.onnx_packed import OLDEST_OPSET, axis_of_sums, pack, packed_nodes
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.onnx_file import onnx_activations, onnx_operators, read_onnx
from prunec.deploy.written import Written
from prunec.errors import PassError

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
Pieces = tuple[list[TensorProto], list[NodeProto]]


@dataclass(frozen=True)
class ToPacked(Exact):
    """Store the non-zero values of each weight and the gaps between them.

    Standard operators restore the weight when a runtime loads the file: the same bits, and the same
    speed as without packing. Gaps are one or two bytes, values become halves if that loses no bit;
    the smallest variant is chosen per tensor, or the tensor itself. Optimisers that fold constants
    undo the packing: pack last.
    """

    suffix: ClassVar[str] = ".onnx"
    reads: ClassVar[str] = "onnx"
    oldest_opset: ClassVar[int] = OLDEST_OPSET

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            PassError: the opset of the ONNX file is too old.
        """
        model = onnx.load(source.files[self.reads])
        opset = next(
            entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")
        )
        if opset < OLDEST_OPSET:
            raise PassError(
                f"packed weights need opset {OLDEST_OPSET}, the ONNX file has {opset}",
                remedy=f"Export ONNX at opset {OLDEST_OPSET} or later ([[export]] opset, --opset).",
            )
        graph, nodes, beside = model.graph, [], []
        for number, tensor in enumerate(graph.initializer):
            pieces = smallest(tensor, number)
            if pieces is not None:
                (values, *others), made = pieces
                values.metadata_props.extend(tensor.metadata_props)
                tensor.CopyFrom(values)
                beside += others
                nodes += made
        if nodes:
            graph.initializer.extend([*beside, axis_of_sums()])
            for place, node in enumerate(nodes):
                graph.node.insert(place, node)
        path.write_bytes(model.SerializeToString(deterministic=True))

    def read_back(self, path: Path) -> Written:
        """Return the content of the file, with its weights restored."""
        return read_onnx(path)

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        return onnx_activations(path)

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name, operator) of every node."""
        return onnx_operators(path)


def smallest(tensor: TensorProto, number: int) -> Pieces | None:
    """Return the packed form with the fewest bytes; None if the tensor itself is smaller."""
    if tensor.data_type not in _FLOATS:
        return None
    array = numpy_helper.to_array(tensor)
    ways = list(_ways(array, tensor, number)) if array.size else []
    best = min(ways, key=_size, default=None)
    return best if best is not None and _size(best) < tensor.ByteSize() else None


def _ways(array: np.ndarray, tensor: TensorProto, number: int) -> Iterator[Pieces]:
    """Yield a tensor packed with gaps of one and of two bytes, and as halves if those are exact."""
    for gap in (np.uint8, np.uint16):
        packed = pack(array, gap)
        yield packed_nodes(tensor.name, packed, tensor.data_type, number)
        if array.dtype == np.float32:
            # Values above 65504 become infinite, which the comparison finds.
            with np.errstate(over="ignore"):
                halves = packed.values.astype(np.float16)
            if halves.astype(np.float32).tobytes() == packed.values.tobytes():
                small = type(packed)(halves, packed.gaps, packed.shape)
                yield packed_nodes(tensor.name, small, tensor.data_type, number)


def _size(pieces: Pieces) -> int:
    return sum(piece.ByteSize() for kind in pieces for piece in kind)

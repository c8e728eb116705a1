"""Exporter of ONNX with kernels stored in half precision, where it suffices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.losses import Stored
from prunec.deploy.onnx_file import onnx_activations, onnx_operators, read_onnx
from prunec.deploy.signature import GRAPH_DIGEST, graph_digest
from prunec.deploy.written import Written
from prunec.wording import percent

_HALF = np.finfo(np.float16)
_MOVED = 2.0**-10  # largest relative change of a filter by rounding: the precision of a normal half
_SUFFIX = "_half"


@dataclass(frozen=True, kw_only=True)
class ToFp16(Lossy):
    """Store kernels in half precision; inputs, outputs, biases and arithmetic stay float32.

    A kernel is stored in half precision if no weight exceeds 65504 and rounding changes no filter
    by more than 1/1024 of its norm, so that small filters keep their precision. Other kernels stay
    float32 and are named.
    """

    suffix: ClassVar[str] = ".onnx"
    reads: ClassVar[str] = "onnx"

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the file; report the kernels that stay float32, and weights that become zero."""
        model = onnx.load(source.files[self.reads])
        graph, remarks, casts = model.graph, [], []
        for tensor in graph.initializer:
            if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
                continue
            values = numpy_helper.to_array(tensor)
            reason = _unfit(values)
            if reason:
                remarks.append(f"{tensor.name} stays float32: {reason}")
                continue
            remarks += _vanished(tensor.name, values)
            casts.append(_stored(tensor, values))
        # First in the graph: ONNX wants every node after those that it reads.
        for place, cast in enumerate(casts):
            graph.node.insert(place, cast)
        _sign(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return {"half": len(casts), "remarks": remarks}

    def read_back(self, path: Path) -> Written:
        """Return the content of an ONNX file."""
        return read_onnx(path)

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        return onnx_activations(path)

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name, operator) of every node."""
        return onnx_operators(path)

    def stored(self, path: Path) -> Mapping[str, Stored]:
        """Return every tensor as used in computations, with its unit in the last place."""
        tensors = {}
        for tensor in onnx.load(path).graph.initializer:
            values = numpy_helper.to_array(tensor)
            if np.issubdtype(values.dtype, np.floating):
                steps = np.spacing(np.abs(values)).astype(np.float64)
                tensors[tensor.name.removesuffix(_SUFFIX)] = Stored(values, steps)
        return tensors


def _unfit(values: np.ndarray) -> str:
    """Return why half precision cannot hold a kernel; empty if it can."""
    most = float(np.abs(values).max(initial=0.0))
    if most > float(_HALF.max):
        return f"its largest weight is {most:.3g}, half precision ends at {float(_HALF.max):g}"
    rows = values.reshape(len(values), -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    gaps = np.linalg.norm(rows - rows.astype(np.float16), axis=1)
    lost = np.divide(gaps, norms, out=np.zeros_like(gaps), where=norms > 0)
    worst = int(np.argmax(lost)) if lost.size else 0
    if lost.size and lost[worst] > _MOVED:
        return (
            f"{int((lost > _MOVED).sum())} of its {len(rows)} filters are too small for it: "
            f"filter {worst}, of norm {norms[worst]:.3g}, would move by {percent(lost[worst])}"
        )
    return ""


def _vanished(name: str, values: np.ndarray) -> list[str]:
    gone = (values != 0) & (values.astype(np.float16) == 0)
    count = int(gone.sum())
    if not count:
        return []
    most = float(np.abs(values[gone]).max())
    return [f"{name}: {count} weights of up to {most:.2g} are zero in half precision"]


def _stored(tensor: onnx.TensorProto, values: np.ndarray) -> onnx.NodeProto:
    """Store a tensor in place as halves under another name; return the node that widens it."""
    name, properties = tensor.name, list(tensor.metadata_props)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}{_SUFFIX}"))
    tensor.metadata_props.extend(properties)
    return onnx.helper.make_node(
        "Cast", [tensor.name], [name], f"Cast_{name}", to=onnx.TensorProto.FLOAT
    )


def _sign(model: onnx.ModelProto) -> None:
    # The digest that was copied is that of the graph before.
    kept = [entry for entry in model.metadata_props if entry.key != GRAPH_DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=GRAPH_DIGEST, value=graph_digest(model))

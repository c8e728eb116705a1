"""Writes ONNX whose kernels are stored in half precision, where they fit it."""

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

_HALF = np.finfo(np.float16)
_MOVED = 2.0**-10  # of a filter's norm, that its rounding may move it by
_SUFFIX = "_half"


@dataclass(frozen=True, kw_only=True)
class ToFp16(Lossy):
    """Store kernels in half precision; inputs, outputs, biases and arithmetic stay float32.

    A kernel fits if no weight is beyond 65504 and rounding moves no filter by more than 1/1024 of
    its norm: small filters keep their digits. One that does not fit stays float32 and is named.
    """

    suffix: ClassVar[str] = ".onnx"
    reads: ClassVar[str] = "onnx"

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the file; tell which kernels stay float32, and which weights are zero in it."""
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
        for place, cast in enumerate(casts):
            graph.node.insert(place, cast)
        _sign(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return {"half": len(casts), "remarks": remarks}

    def read_back(self, path: Path) -> Written:
        """Return what an ONNX file holds."""
        return read_onnx(path)

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        return onnx_activations(path)

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return name and operator of every node."""
        return onnx_operators(path)

    def stored(self, path: Path) -> Mapping[str, Stored]:
        """Return every tensor as it is computed with, and its unit in the last place."""
        found = {}
        for tensor in onnx.load(path).graph.initializer:
            values = numpy_helper.to_array(tensor)
            if np.issubdtype(values.dtype, np.floating):
                steps = np.spacing(np.abs(values)).astype(np.float64)
                found[tensor.name.removesuffix(_SUFFIX)] = Stored(values, steps)
        return found


def _unfit(values: np.ndarray) -> str:
    """Why half precision cannot hold a kernel; empty where it can."""
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
            f"filter {worst}, of norm {norms[worst]:.3g}, would move by {lost[worst]:.1%}"
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
    """Change a tensor in place to halves under another name; return the node that widens them."""
    name, told = tensor.name, list(tensor.metadata_props)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}{_SUFFIX}"))
    tensor.metadata_props.extend(told)
    return onnx.helper.make_node(
        "Cast", [tensor.name], [name], f"Cast_{name}", to=onnx.TensorProto.FLOAT
    )


def _sign(model: onnx.ModelProto) -> None:
    kept = [entry for entry in model.metadata_props if entry.key != GRAPH_DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=GRAPH_DIGEST, value=graph_digest(model))

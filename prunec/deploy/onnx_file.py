"""Reads an ONNX file back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper

from prunec.cost import Cost
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.signature import graph_digest, metadata_of
from prunec.deploy.written import Written
from prunec.errors import PrunecError
from prunec.wording import first_line


def read_onnx(path: Path) -> Written:
    """Return what an ONNX file holds.

    Raises:
        PrunecError: nothing can be made of it.
    """
    model = _parsed(path)
    missing = _missing_files(model, path.parent)
    if missing:
        raise PrunecError(missing)
    flaw = _flaw(model, path)
    cost, uncounted = _cost(model)
    initialised = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialised]
    return Written(
        inputs={value.name: _sizes(value) for value in inputs},
        outputs=tuple(value.name for value in model.graph.output),
        metadata=metadata_of(model),
        weights=_Weights(model),
        cost=cost,
        uncounted=uncounted,
        graph_digest=graph_digest(model),
        flaw=flaw,
    )


class _Weights(Mapping[str, np.ndarray]):
    """The initialisers of a model, each made an array when it is asked for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def __getitem__(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(path.read_bytes())
    except OSError as error:
        raise PrunecError(f"{path} cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError) as error:
        raise _truncated(path, first_line(error)) from error
    if not model.graph.node:
        raise _truncated(path, "no graph")
    return model


def _truncated(path: Path, why: str) -> PrunecError:
    return PrunecError(f"{path} is truncated or not an ONNX file ({why}). Export it again")


def _flaw(model: onnx.ModelProto, path: Path) -> str:
    try:
        onnx.checker.check_model(path, full_check=True)
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"{path} is not valid ONNX: {first_line(error)}"
    return ""


def _cost(model: onnx.ModelProto) -> tuple[Cost | None, str]:
    try:
        return count_onnx(model), ""
    except PrunecError as error:
        return None, error.message


def _missing_files(model: onnx.ModelProto, folder: Path) -> str:
    names = {
        entry.value
        for tensor in model.graph.initializer
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    missing = sorted(name for name in names if not (folder / name).is_file())
    return f"the file keeps weights in {', '.join(missing)}, which is missing" if missing else ""


def _sizes(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)

"""Checks that a file can be read, is the run's own, and was not edited since its export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper
from torch import Tensor, nn

from prunec.deploy.checks.report import Check, Value, equal, failed
from prunec.deploy.signature import (
    GRAPH_DIGEST,
    RECIPE_DIGEST,
    WEIGHTS_DIGEST,
    file_digest,
    graph_digest,
    input_names,
    metadata_of,
    output_names,
)
from prunec.models.state import weights_digest

_READABLE = "a valid ONNX file"
_ANOTHER = "the file holds another model's weights"


def read(path: Path) -> tuple[onnx.ModelProto | None, Check]:
    """Return the parsed file, None if nothing can be made of it, and the check of its validity."""
    name = "readable"
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        return None, failed(name, _READABLE, "nothing", f"{path} cannot be read: {reason}.")
    try:
        model = onnx.load_from_string(data)
    except (DecodeError, ValueError) as error:
        return None, failed(name, _READABLE, f"{len(data):,} bytes", _truncated(path, error))
    if not model.graph.node:
        return None, failed(name, _READABLE, f"{len(data):,} bytes", _truncated(path, "no graph"))
    missing = _missing_files(model, path.parent)
    if missing:
        return None, failed(name, _READABLE, "weights missing", missing)
    try:
        onnx.checker.check_model(path, full_check=True)
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"{path} is not valid ONNX: {_line(error)}"
        return model, failed(name, _READABLE, "an invalid graph", message)
    return model, Check(name, _READABLE, _READABLE, None, True)


def _truncated(path: Path, error: object) -> str:
    return f"{path} is truncated or not an ONNX file ({_line(error)}). Export it again."


def _line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def _missing_files(model: onnx.ModelProto, folder: Path) -> str:
    names = {
        entry.value
        for tensor in model.graph.initializer
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    missing = sorted(name for name in names if not (folder / name).is_file())
    return f"the file keeps weights in {', '.join(missing)}, which is missing." if missing else ""


def same_network(
    model: onnx.ModelProto, module: nn.Module, manifest: Mapping[str, object]
) -> list[Check]:
    """Return the checks that the file's metadata names this run's recipe and this network."""
    found = metadata_of(model)
    weights = weights_digest(module)
    checks = [_digest("weights digest", weights, found.get(WEIGHTS_DIGEST), f"{_ANOTHER}.")]
    recipe = manifest.get("recipe_digest")
    if isinstance(recipe, str):
        wrong = "the file was made by another recipe."
        checks.insert(0, _digest("recipe digest", recipe, found.get(RECIPE_DIGEST), wrong))
    return checks


def unchanged(model: onnx.ModelProto, path: Path, manifest: Mapping[str, object]) -> list[Check]:
    """Return the checks that neither the file nor its graph was edited after the export."""
    checks = []
    recorded = manifest.get("sha256")
    if isinstance(recorded, str):
        wrong = "the file was changed after export: its sha256 is not the manifest's."
        checks.append(_digest("file digest", recorded, file_digest(path.read_bytes()), wrong))
    wrong = "operators, attributes, wiring or constants of the graph were edited after export."
    recorded = metadata_of(model).get(GRAPH_DIGEST)
    checks.append(_digest("graph digest", recorded, graph_digest(model), wrong))
    return checks


def _digest(name: str, expected: str | None, found: str | None, wrong: str) -> Check:
    if expected is None or found is None:
        wrong = f"the metadata lacks the {name}: truncated, or not exported by prunec."
    passed = expected is not None and expected == found
    return Check(name, _short(expected), _short(found), None, passed, "" if passed else wrong)


def _short(digest: str | None) -> Value:
    return digest[:12] if digest else None


def interface(
    model: onnx.ModelProto, module: nn.Module, example: tuple[Tensor, ...]
) -> list[Check]:
    """Return the checks of names and shapes of inputs and outputs."""
    initialised = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialised]
    outputs = list(model.graph.output)
    sizes = [("batch", *x.shape[1:]) for x in example]
    expected = _joined(zip(input_names(len(example)), sizes, strict=True))
    found = _joined((value.name, _size(value)) for value in inputs)
    wrong = f"an input was renamed or reshaped: expected {expected}, found {found}."
    names, given = ", ".join(output_names(len(outputs))), ", ".join(v.name for v in outputs)
    renamed = f"an output was renamed: expected {names}, found {given}."
    return [equal("inputs", expected, found, wrong), equal("outputs", names, given, renamed)]


def _joined(values: object) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, size))}" for name, size in values)  # type: ignore[attr-defined]


def _size(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)

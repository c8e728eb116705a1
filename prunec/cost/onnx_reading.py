"""Reader of ONNX files that may be damaged: all failures become one kind of error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, helper

from prunec.cost.onnx_packed import unpack_weights
from prunec.cost.onnx_texts import not_texts
from prunec.errors import PrunecError
from prunec.wording import first_line

_SHOWN = 3  # faults named in one error
_DIGITS = 18  # of an offset in a file: 18 digits always fit 63 bits
_HALF_BYTES = frozenset({TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1})
_PAIRS = frozenset({TensorProto.COMPLEX64, TensorProto.COMPLEX128})


def read_model(path: Path) -> onnx.ModelProto:
    """Return a valid model with its weights loaded and packed ones restored.

    Raises:
        PrunecError: the file cannot be read, or is damaged; the message names the tensor or node.
    """
    with foreign_bytes(path):
        model = _parsed(path)
        # Before ONNX's own checker, whose errors do not name the tensor.
        wrong = _damages(model, path.parent)
        if wrong:
            more = f" … and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise PrunecError(f"{path} is damaged: {'; '.join(wrong[:_SHOWN])}{more}")
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        _check(path, model)
        _unpack(model, path)
        return model


def _unpack(model: onnx.ModelProto, path: Path) -> None:
    try:
        unpack_weights(model)
    except PrunecError as error:
        raise PrunecError(f"{path} is damaged: {error.message}") from error


@contextmanager
def foreign_bytes(source: object) -> Iterator[None]:
    """Turn every exception over foreign bytes into an error that names them.

    Libraries raise whatever their code runs into (KeyError, ValueError, OverflowError, MemoryError
    and more), so every exception counts.
    """
    try:
        yield
    except PrunecError:
        raise
    except Exception as error:
        raise PrunecError(
            f"{source} is damaged: {type(error).__name__}: {first_line(error)}",
            remedy="Export it again.",
        ) from error


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


def _check(path: Path, model: onnx.ModelProto) -> None:
    """Run ONNX's checker on a file.

    The checker requires shapes of all outputs, which runtimes do not: if one is missing, it checks
    a copy with the shapes that can be inferred.
    """
    shapeless = [v.name for v in model.graph.output if not _has_shape(v)]
    try:
        if shapeless:
            onnx.checker.check_model(_with_shapes(model, shapeless), full_check=True)
        else:
            onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PrunecError(f"{path} is not valid ONNX: {_in_one_line(error)}") from error


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return not value.type.HasField("tensor_type") or value.type.tensor_type.HasField("shape")


def _with_shapes(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose outputs have inferred shapes; outputs without one are dropped."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(copied).graph.output
    del copied.graph.output[:]
    copied.graph.output.extend(v for v in inferred if v.name not in names or _has_shape(v))
    return copied


def _in_one_line(error: Exception) -> str:
    """Return the first line of an error, which states it, and the line that names the node."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [line for line in lines[1:] if "name:" in line.lower()]
    return "; ".join([*lines[:1], *places[:1]])[:500] or type(error).__name__


def _damages(model: onnx.ModelProto, folder: Path) -> list[str]:
    tensors = [(t.name, t) for t in model.graph.initializer]
    tensors += [(s.values.name, s.values) for s in model.graph.sparse_initializer]
    tensors += [
        (f"{node.name or node.op_type}.{attribute.name}", tensor)
        for node in model.graph.node
        for attribute in node.attribute
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
    ]
    damages = [(name, _damage(tensor, folder)) for name, tensor in tensors]
    damages += [(place, "is not text: its bytes are not UTF-8") for place in not_texts(model)]
    return [f"{name} {wrong}" for name, wrong in damages if wrong]


def _damage(tensor: onnx.TensorProto, folder: Path) -> str:
    """Return what is wrong with a tensor; empty if its values can be read."""
    kind, dims = tensor.data_type, list(tensor.dims)
    if kind not in TensorProto.DataType.values() or kind == TensorProto.UNDEFINED:
        return f"is of type {kind}, which ONNX does not know"
    if min(dims, default=0) < 0:
        return f"has a negative size in its shape {dims}"
    if external_data_helper.uses_external_data(tensor):
        return _external_damage(tensor, folder)
    if tensor.HasField("raw_data"):
        expected, held, unit = _bytes(tensor), len(tensor.raw_data), "bytes"
    else:
        field = helper.tensor_dtype_to_field(kind)
        expected, held, unit = _items(tensor), len(getattr(tensor, field)), "values"
    if expected == held:
        return ""
    return f"holds {held:,} {unit}, but its shape {dims} needs {expected:,}"


def _bytes(tensor: onnx.TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    if tensor.data_type in _HALF_BYTES:
        return -(-count // 2)
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _items(tensor: onnx.TensorProto) -> int:
    """Return the number of entries of a tensor's typed field."""
    count: int = math.prod(tensor.dims)
    if tensor.data_type in _HALF_BYTES:
        return -(-count // 2)
    return 2 * count if tensor.data_type in _PAIRS else count


def _external_damage(tensor: onnx.TensorProto, folder: Path) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, home = entries.get("location", ""), folder.resolve()
    try:
        file = (folder / location).resolve()
        exists = file.is_file()
    except (OSError, ValueError):
        return f"points to {location[:80]!r}, which is not a file name"
    # A foreign file must not read files elsewhere on this machine.
    if not location or file == home or not file.is_relative_to(home):
        return f"points to {location!r}, outside the file's folder"
    if not exists:
        return f"keeps weights in {location}, which is missing"
    size, needed = file.stat().st_size, _bytes(tensor)
    start, length = entries.get("offset", "0"), entries.get("length", str(needed))
    for word in (start, length):
        if not (word.isascii() and word.isdigit() and len(word) <= _DIGITS):
            return f"has no valid place in {location}: offset {start[:20]}, length {length[:20]}"
    if int(length) != needed or int(start) + needed > size:
        return (
            f"needs {needed:,} bytes; {location} of {size:,} bytes keeps {int(length):,} at "
            f"{int(start):,} for it"
        )
    return ""

"""Compaction of a file: read, compacted, proven, and written completely or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import external_data_helper

from prunec.cost.onnx_graph import count_known
from prunec.cost.onnx_reading import read_model
from prunec.cost.onnx_sizes import Sizes, require_fit
from prunec.deploy.compaction.compact import Compacted, compact_model
from prunec.deploy.compaction.proof import (
    Difference,
    InputRange,
    differences,
    given_inputs,
    random_inputs,
    runnable,
)
from prunec.errors import ParityError, PrunecError
from prunec.files import files_atomic, require_writable

_LARGEST = 2**31 - 1  # bytes: protobuf's limit of one message


@dataclass(frozen=True)
class FileResult:
    """Result of compacting a file.

    Attributes:
        path: original file.
        written: new file; None if nothing was removed.
        compacted: removed channels, and reasons for the kept ones.
        macs: MACs (before, after); None if they cannot be counted.
        bytes: sizes (before, after).
        proof: largest difference of each output.
        inputs: number of compared inputs.
    """

    path: Path
    written: Path | None
    compacted: Compacted
    macs: tuple[int, int] | None = None
    bytes: tuple[int, int] = (0, 0)
    proof: tuple[Difference, ...] = field(default=())
    inputs: int = 0


def compact_file(
    path: Path,
    output: Path,
    sizes: Sizes | None = None,
    *,
    data: Sequence[Path] = (),
    bounds: InputRange | None = None,
    round_to: int = 1,
) -> FileResult:
    """Write a file without its dead, unread and constant channels, if it has any.

    Args:
        path: ONNX file.
        output: path of the new file.
        sizes: sizes of inputs that the file leaves open.
        data: files of arrays named like the inputs, compared in addition to random numbers.
        bounds: range of the random numbers.
        round_to: multiple to which kept counts of each channel group are rounded up.

    Raises:
        PrunecError: the file cannot be read or run, or the smaller file differs from it.
    """
    model = read_model(path)
    _require_unpacked(path, model)
    require_fit(model.graph, sizes or {})
    require_writable(output)
    given = [given_inputs(model, file) for file in data]
    compacted = compact_model(model, sizes, round_to=round_to)
    if not compacted.changed:
        return FileResult(path, None, compacted)
    batches = [*runnable(model, random_inputs(model, sizes or {}, bounds)), *given]
    proof = differences(model, compacted.model, batches)
    _require_equal(path, proof)
    macs = _macs(model, compacted.model, sizes or {})
    beside = _beside(path)
    before = path.stat().st_size + sum(
        len(tensor.raw_data) for tensor in model.graph.initializer if tensor.name in beside
    )
    made = _write(path, output, compacted.model, beside)
    return FileResult(path, output, compacted, macs, (before, made), tuple(proof), len(batches))


def _require_unpacked(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a file with packed weights: reading unpacks them, so the result would be larger."""
    if len(onnx.load(path, load_external_data=False).graph.node) != len(model.graph.node):
        raise PrunecError(
            f"{path} holds packed weights", remedy="Compact the file before packing it."
        )


def _beside(path: Path) -> set[str]:
    """Return the names of tensors that a file stores beside itself (external data)."""
    return {
        tensor.name
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if external_data_helper.uses_external_data(tensor)
    }


def _write(path: Path, output: Path, model: onnx.ModelProto, beside: set[str]) -> int:
    """Write a file completely or not at all, with external weights where the old file had them.

    Returns:
        The number of bytes written.
    """
    data, offset = f"{output.name}.data", 0
    with files_atomic(output) as place:
        if beside:
            with place.with_name(data).open("wb") as file:
                for tensor in model.graph.initializer:
                    if tensor.name in beside and tensor.HasField("raw_data"):
                        raw = tensor.raw_data
                        external_data_helper.set_external_data(tensor, data, offset, len(raw))
                        offset += file.write(raw)
                        tensor.ClearField("raw_data")
        if model.ByteSize() > _LARGEST:
            raise PrunecError(
                f"{path} is larger than one ONNX file may be",
                remedy="Export it with its weights in a file beside it (external data).",
            )
        return offset + place.write_bytes(model.SerializeToString())


def _require_equal(path: Path, proof: Sequence[Difference]) -> None:
    wrong = [difference for difference in proof if not difference.share <= 1]
    if wrong:
        first = wrong[0]
        raise ParityError(
            f"the smaller file is not equal to {path}: {first.output} differs by {first.found:.3g}"
            f", {first.share:.3g} times what rounding explains; nothing was written",
            remedy="This is a fault of prunec: please report it with the file.",
        )


def _macs(before: onnx.ModelProto, after: onnx.ModelProto, sizes: Sizes) -> tuple[int, int] | None:
    try:
        return count_known(before, sizes).macs, count_known(after, sizes).macs
    except PrunecError:
        return None

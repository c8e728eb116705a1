"""Exporter of integer kernels: ONNX with pairs of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from pydantic import Field
from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.alignment import alignment
from prunec.deploy.checks.check import Check, failed
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.losses import Stored
from prunec.deploy.onnx_file import onnx_activations, onnx_operators, read_onnx
from prunec.deploy.runner import LoadedFile
from prunec.deploy.signature import GRAPH_DIGEST, graph_digest
from prunec.deploy.written import Written
from prunec.errors import PassError
from prunec.exporters._int8_calibration import Inputs, Probe, Session, arrays_of
from prunec.exporters._int8_filters import (
    dequantised,
    integer_layers,
    keep_float,
    mend_zero_filters,
)
from prunec.exporters._int8_search import (
    PERCENTILES,
    Attempts,
    Errors,
    Percentiles,
    Ranges,
    within_bounds,
)
from prunec.exporters._int8_sums import cut_off_remarks

_OLDEST = 13  # first opset with one scale per channel
_BLOCK = 16  # channels per block of integer kernels
_ANYWHERE = 7  # bits of weights with which two products with a byte fit 16 bits


_EIGHT = " Where this processor has no VNNI, weight_bits = 7 may meet them: no sum is cut off."


@dataclass(frozen=True, kw_only=True)
class ToInt8(Lossy):
    """Write int8 with one scale per filter and one per activation, from real images.

    Ranges of activations lie between two percentiles of their values on real images; values beyond
    are clipped. Where no percentile meets the bounds, layers stay float until they are met.

    Weights have seven bits: with eight, sums of two products saturate on processors without VNNI or
    ARM's dot product, so the file would answer differently there.
    """

    suffix: ClassVar[str] = ".onnx"
    reads: ClassVar[str] = "onnx"
    oldest_opset: ClassVar[int] = _OLDEST
    needs: ClassVar[frozenset[str]] = frozenset({"compact", "folded"})

    percentiles: Percentiles = PERCENTILES
    weight_bits: Annotated[int, Field(ge=7, le=8)] = 7

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the file; report the layers that stay float, and why.

        Raises:
            PassError: the ONNX file is too old for one scale per channel, or no layer can be int8.
        """
        model = onnx.load(source.files[self.reads])
        _require_opset(model)
        given = arrays_of(batches)
        files = _Files(model, given[0], self.weight_bits)
        attempts: Attempts[onnx.ModelProto] = Attempts(
            model,
            given,
            source.labels,
            self.weight_bits,
            Probe(model),
            files.quantised,
            lambda made: (Session(made).run(batch)[0] for batch in given),
        )
        advice = _EIGHT if self.weight_bits > _ANYWHERE else ""
        chosen = within_bounds(self, attempts, self.percentiles, advice)
        made = chosen.made
        zeros = mend_zero_filters(made, {t.name: t for t in model.graph.initializer})
        _finish(made, model)
        path.write_bytes(made.SerializeToString(deterministic=True))
        return {
            "float layers": chosen.left,
            "percentile": chosen.percentile,
            "zero filters": zeros,
            "remarks": [
                *chosen.remarks,
                *cut_off_remarks(made),
                *_alignment(source.files[self.reads]),
            ],
        }

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
        """Return the values that the integers of each tensor represent."""
        return {name: Stored(*pair) for name, pair in dequantised(onnx.load(path)).items()}

    def as_run(self, path: Path, loaded: LoadedFile) -> list[Check]:
        """Return the checks that integer layers run in integers, and alike on any processor."""
        name, layers, model = "integer layers, as run", loaded.layers, onnx.load(path)
        sums = [self._sums(model)]
        if layers is None:
            return sums
        expected = sum(1 for _ in integer_layers(model))
        actual = layers.get("integer", 0)
        total = sum(layers.values())
        if actual == expected:
            right, ran = f"{expected} of {total}", f"{actual} of {total}"
            return [Check(name, right, ran, None, True), *sums]
        wrong = (
            f"the runtime runs {expected - actual} of them in float, because it cannot fuse them "
            "with their neighbours; they are slower than fp32."
        )
        return [failed(name, expected, actual, wrong), *sums]

    def _sums(self, model: onnx.ModelProto) -> Check:
        """Return the check that no pair of products leaves 16 bits, unless the recipe allows it."""
        remarks = cut_off_remarks(model)
        actual = "in some layers on VNNI alone" if remarks else "within 16 bits"
        passed = not remarks or self.weight_bits > _ANYWHERE
        wrong = "" if passed else f"{remarks[0]}."
        return Check("integer sums, any processor", "within 16 bits", actual, None, passed, wrong)


@dataclass
class _Files:
    """Files of onnxruntime's quantiser."""

    model: onnx.ModelProto
    images: Inputs
    bits: int

    def quantised(self, ranges: Ranges, left: Errors) -> onnx.ModelProto:
        """Return the file in which all layers but ``left`` are integer."""
        model = copy.deepcopy(self.model)
        # Tells the quantiser that shapes are inferred already; it warns otherwise.
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        overrides = {
            name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
            for name, (low, high) in ranges.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.onnx"
            quantize_static(
                model,
                str(target),
                _Reader([value.name for value in model.graph.input], self.images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=self.bits < 8,
                nodes_to_exclude=list(left),
                extra_options={"TensorQuantOverrides": overrides},
            )
            made = onnx.load(target)
        keep_float(made, left)
        return made


class _Reader(CalibrationDataReader):  # type: ignore[misc] # its library has no types
    """Reader of one batch: the quantiser needs a run, although all ranges are given."""

    def __init__(self, names: Sequence[str], batch: Inputs) -> None:
        one = {name: x[:1] for name, x in zip(names, batch, strict=True)}
        self._left: list[dict[str, np.ndarray]] = [one]

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None


def _require_opset(model: onnx.ModelProto) -> None:
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < _OLDEST:
        raise PassError(
            f"int8 with one scale per channel needs opset {_OLDEST}, the ONNX file has {opset}",
            remedy=f"Export ONNX at opset {_OLDEST} or later ([[export]] opset, --opset).",
        )


def _finish(made: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Copy the metadata of the source file, and add the digest of the new graph."""
    made.producer_name, made.producer_version = "prunec", ""
    made.ir_version = max(made.ir_version, model.ir_version)
    del made.metadata_props[:]
    made.metadata_props.extend(e for e in model.metadata_props if e.key != GRAPH_DIGEST)
    made.metadata_props.add(key=GRAPH_DIGEST, value=graph_digest(made))


def _alignment(path: Path) -> list[str]:
    counts = alignment(path)
    if not counts.odd[_BLOCK]:
        return []
    return [
        f"{counts.odd[_BLOCK]} of {counts.layers} convolutions have channels that are not a "
        f"multiple of {_BLOCK}, the block size of integer kernels: round_to = {_BLOCK}"
    ]

"""Exporter of LiteRT's flatbuffer with integer kernels, for one sample."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.runners.litert import Litert
from prunec.deploy.written import Written
from prunec.exporters._int8_files import layers_told, write_within_bounds
from prunec.exporters._int8_search import PERCENTILES, Percentiles, Ranges
from prunec.exporters._litert_file import (
    convert,
    expressing,
    litert_flow,
    litert_operators,
    read_file,
    read_model,
)
from prunec.exporters._litert_int8 import Network, Quantised
from prunec.exporters._one_sample import one_sample, require_eval


@dataclass(frozen=True, kw_only=True)
class ToLitertInt8(Lossy):
    """Quantise the file of ``to-litert`` with LiteRT's own quantiser, with ranges from real images.

    Weights have eight bits and one scale per filter, activations one scale per tensor. Inputs and
    outputs stay float. Ranges and layers in float are found as for `to-int8`.
    """

    suffix: ClassVar[str] = ".tflite"
    reads: ClassVar[str] = "onnx"
    needs: ClassVar[frozenset[str]] = frozenset({"compact", "folded"})

    percentiles: Percentiles = PERCENTILES

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the file; report its layers in float, and the changes of its weights.

        Raises:
            PassError: the network is in training mode, LiteRT cannot express it, or no layers in
                float make its answers near enough.
        """
        require_eval(source.module, "LiteRT's")
        with tempfile.TemporaryDirectory() as folder, expressing():
            floats = Path(folder) / "model.tflite"
            convert(source.module, one_sample(source.example), floats)
            network = Network(read_model(floats), source.module)

        def write(ranges: Ranges, left: Collection[str], file: Path) -> Quantised:
            with expressing():
                made = network.quantised(ranges, left)
            file.write_bytes(made.content)
            return made

        chosen = write_within_bounds(
            self,
            source,
            path,
            batches,
            percentiles=self.percentiles,
            network=network,
            write=write,
            runner=Litert(),
        )
        made = chosen.made
        told: Mapping[str, object] = layers_told(
            chosen, made.integer, made.floats, made.stored, source.module
        )
        return told

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form has names of its own."""
        written: Written = read_file(path)
        return written

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        flow: Flow = litert_flow(path)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name of its first output, operator) of every node."""
        operators: list[tuple[str, str]] = litert_operators(path)
        return operators

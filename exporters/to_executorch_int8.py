"""Exporter of an ExecuTorch program with integer kernels, for XNNPACK, for one sample."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.runners.executorch import Executorch
from prunec.deploy.written import Written
from prunec.exporters._executorch_graph import executorch_flow, executorch_operators
from prunec.exporters._executorch_int8 import Network
from prunec.exporters._executorch_program import expressing, read_program, write_program
from prunec.exporters._int8_files import layers_told, write_within_bounds
from prunec.exporters._int8_search import PERCENTILES, Percentiles, Ranges
from prunec.exporters._one_sample import one_sample, require_eval


@dataclass(frozen=True, kw_only=True)
class ToExecutorchInt8(Lossy):
    """Lower the network to XNNPACK's integer kernels, with ranges from real images.

    Weights have eight bits and one scale per filter, activations one scale per tensor. XNNPACK adds
    products in 32 bits on every processor. Ranges and layers in float are found as for `to-int8`.
    """

    suffix: ClassVar[str] = ".pte"
    reads: ClassVar[str] = "onnx"
    needs: ClassVar[frozenset[str]] = frozenset({"compact", "folded"})

    percentiles: Percentiles = PERCENTILES

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the program; report its layers in float, and the changes of its weights.

        Raises:
            PassError: the network is in training mode, ExecuTorch or XNNPACK cannot express it, or
                no layers in float make its answers near enough.
        """
        require_eval(source.module, "XNNPACK's")
        example = one_sample(source.example)
        with expressing():
            network = Network(source.module, example)

        def write(ranges: Ranges, left: Collection[str], file: Path) -> Any:
            with expressing():
                made = network.quantised(ranges, left)
                write_program(made, example, file)
            return made

        chosen = write_within_bounds(
            self,
            source,
            path,
            batches,
            percentiles=self.percentiles,
            network=network,
            write=write,
            runner=Executorch(),
        )
        made = chosen.made
        told: Mapping[str, object] = layers_told(
            chosen, *network.layers(made), network.stored_weights(made), source.module
        )
        return told

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form stores no names."""
        written: Written = read_program(path)
        return written

    def flow(self, path: Path) -> Flow | None:
        """Return the activations of a file; None if it computes outside of XNNPACK."""
        flow: Flow | None = executorch_flow(path)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (place, operator) of every node of XNNPACK and every kernel outside of it."""
        operators: list[tuple[str, str]] = executorch_operators(path)
        return operators

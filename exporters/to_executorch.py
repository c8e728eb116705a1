"""Exporter of an ExecuTorch program (``.pte``) for XNNPACK, for one sample, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.written import Written
from prunec.exporters._executorch_graph import executorch_flow, executorch_operators
from prunec.exporters._executorch_program import expressing, read_program, write_program
from prunec.exporters._one_sample import one_sample, require_eval


@dataclass(frozen=True)
class ToExecutorch(Exact):
    """Lower the network to XNNPACK."""

    suffix: ClassVar[str] = ".pte"
    reads: ClassVar[str] = "onnx"

    def write(self, source: Source, path: Path) -> None:
        """Write the program.

        Raises:
            PassError: the network is in training mode, or ExecuTorch cannot express it.
        """
        require_eval(source.module, "XNNPACK's")
        with expressing():
            write_program(source.module, one_sample(source.example), path)

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

"""Exporter of an ExecuTorch program (``.pte``) for XNNPACK, for one sample, in float32."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._executorch_graph import executorch_flow, executorch_operators
from prunec.exporters._one_sample import one_sample, require_eval
from prunec.wording import first_line


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
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.export(source.module, one_sample(source.example))
                lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
                path.write_bytes(lowered.to_executorch().buffer)
        except Exception as error:
            raise PassError(
                f"ExecuTorch cannot express the network: {first_line(error)}",
                remedy="Replace the operator in the network, or ship another form.",
            ) from error

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form stores no names."""
        try:
            Runtime.get().load_program(path).load_method("forward")
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        return Written(graph_digest=file_digest(path.read_bytes()))

    def flow(self, path: Path) -> Flow | None:
        """Return the activations of a file; None if it computes outside of XNNPACK."""
        flow: Flow | None = executorch_flow(path)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (place, operator) of every node of XNNPACK and every kernel outside of it."""
        operators: list[tuple[str, str]] = executorch_operators(path)
        return operators

"""Exporter of LiteRT's flatbuffer (``.tflite``), for one sample, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.written import Written
from prunec.exporters._litert_file import (
    convert,
    expressing,
    litert_flow,
    litert_operators,
    read_file,
)
from prunec.exporters._one_sample import one_sample, require_eval


@dataclass(frozen=True)
class ToLitert(Exact):
    """Convert the network for LiteRT."""

    suffix: ClassVar[str] = ".tflite"
    reads: ClassVar[str] = "onnx"

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            PassError: the network is in training mode, or LiteRT cannot express it.
        """
        require_eval(source.module, "LiteRT's")
        with expressing():
            convert(source.module, one_sample(source.example), path)

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

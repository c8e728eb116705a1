"""Writes LiteRT's flatbuffer (``.tflite``), of one sample, in float32."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import litert_torch
from ai_edge_litert.interpreter import Interpreter

from prunec.deploy.exporter import Exact, Source
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._one_sample import one_sample, require_eval
from prunec.wording import first_line


@dataclass(frozen=True)
class ToLitert(Exact):
    """Convert the network for LiteRT; the ONNX file is what its time is compared with."""

    suffix: ClassVar[str] = ".tflite"
    reads: ClassVar[str] = "onnx"

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            PassError: the network is in training mode, or LiteRT cannot express it.
        """
        require_eval(source.module, "LiteRT's")
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                litert_torch.convert(source.module, one_sample(source.example)).export(str(path))
        except Exception as error:
            raise PassError(
                f"litert-torch cannot express the network: {first_line(error)}",
                remedy="Replace the operator in the network, or ship another form.",
            ) from error

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form keeps its own names."""
        try:
            Interpreter(str(path), num_threads=1).allocate_tensors()
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        return Written(graph_digest=file_digest(path.read_bytes()))

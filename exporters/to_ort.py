"""Exporter of onnxruntime's own format (``.ort``), at a level that every processor runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnxruntime

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._ort_graph import ort_flow, ort_operators
from prunec.wording import first_line


@dataclass(frozen=True)
class ToOrt(Exact):
    """Save the ONNX file as onnxruntime optimises it at level `extended`.

    At level `all`, kernels are laid out for the processor that saves the file: a file saved with
    AVX-512 silently computes garbage on AVX2. onnxruntime has no option against that.
    """

    suffix: ClassVar[str] = ".ort"
    reads: ClassVar[str] = "onnx"

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            PassError: onnxruntime cannot load the ONNX file.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal errors only; others are raised
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            _session(source.files[self.reads], options)
        except Exception as error:
            raise PassError(
                f"onnxruntime cannot load the ONNX file: {first_line(error)}",
                remedy="Try another opset ([[export]] opset, --opset).",
            ) from error

    def read_back(self, path: Path) -> Written:
        """Return the interface of a file, and its digest."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = _session(path, options)
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        return Written(
            inputs={entry.name: tuple(entry.shape) for entry in session.get_inputs()},
            outputs=tuple(entry.name for entry in session.get_outputs()),
            graph_digest=file_digest(path.read_bytes()),
        )

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        flow: Flow = ort_flow(path)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name, operator) of every node."""
        operators: list[tuple[str, str]] = ort_operators(path)
        return operators


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

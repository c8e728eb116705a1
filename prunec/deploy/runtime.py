"""Runs a shipped file under onnxruntime on the CPU, as a device would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from prunec.errors import PrunecError


class Session:
    """A loaded file.

    Args:
        path: the ONNX file.
        threads: threads within an operator; 1 gives the same bits every time.

    Raises:
        PrunecError: onnxruntime cannot load it.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that spin while they wait take the core that the next step needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _cannot("load", path, error) from error
        self._path = path
        self._names = [entry.name for entry in self._session.get_inputs()]

    @property
    def input_shapes(self) -> list[tuple[int | str | None, ...]]:
        """Sizes of the inputs; a name or None stands for a dynamic one."""
        return [tuple(entry.shape) for entry in self._session.get_inputs()]

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for inputs given in order.

        Raises:
            PrunecError: the file does not take these inputs.
        """
        if len(inputs) != len(self._names):
            raise PrunecError(f"{self._path} has {len(self._names)} inputs, {len(inputs)} given")
        try:
            outputs = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        except Exception as error:
            raise _cannot("run", self._path, error) from error
        return [np.asarray(output) for output in outputs]


def _cannot(what: str, path: Path, error: Exception) -> PrunecError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return PrunecError(
        f"onnxruntime cannot {what} {path}: {reason}", remedy="Export the file again."
    )
